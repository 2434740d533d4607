"""A server for the page's tests: the real application on a real socket, over an engine that says what it was told."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import replace
from types import TracebackType
from typing import Any

import uvicorn
from tests.serve.harness import backend_of

from selfee.engines.scripted import Reply, Rule, ScriptedEngine
from selfee.serve.app import make_app
from selfee.serve.config import Defaults, ServerConfig
from selfee.serve.service import Served

FIRST = (
    "The sky is blue because it **reflects the ocean**. Water is blue, and the air above it takes on its colour, "
    "which is why the sky over a desert looks paler."
)
CRITIC = (
    "The answer names the wrong cause: the sky is blue over deserts too. Explain how air scatters light of different "
    "wavelengths, and why the sky is not violet. Revision is needed."
)
SECOND = (
    "The sky is blue because **air scatters short waves of light** more strongly than long ones (*Rayleigh "
    "scattering*):\n\n"
    "1. Sunlight holds all colours.\n"
    "2. Molecules of the air scatter blue about ten times as strongly as red.\n"
    "3. So blue reaches your eye from every direction.\n\n"
    "Violet is scattered even more, but sunlight holds less of it and our eyes see it less well."
)
CONTENT = "The cause is right, the steps are in order, and violet is explained. Revision is not needed."
THIRD = (
    "Air scatters short waves of light more strongly than long ones. Blue light therefore reaches your eye from every "
    "direction of the sky, and violet, which is scattered even more, is both rarer in sunlight and harder to see."
)


def chain_text(*sections: str) -> str:
    """A chain as a model writes it: answer, feedback, revision, …"""
    text = sections[0]
    for index, section in enumerate(sections[1:]):
        number = index // 2 + 1
        name = "Feedback" if index % 2 == 0 else "Revision"
        text += f"\n\n### {name} {number}:\n{section}"
    return text


def story(delay: float = 0.004) -> ScriptedEngine:
    """An engine that revises once, then is content; and goes on wherever it is asked to."""

    def say(text: str) -> Reply:
        return Reply(text, delay=delay)

    rules = [
        Rule(say(chain_text(FIRST, CRITIC, SECOND, CONTENT)), ends_with="### Answer:\n"),
        Rule(say(CRITIC), ends_with="### Feedback 1:\n"),
        Rule(say(SECOND + "\n\n### Feedback 2:\n" + CONTENT), ends_with="### Revision 1:\n"),
        Rule(say(CONTENT), pattern=r"### Feedback \d+:\n\Z"),
        Rule(say(THIRD), pattern=r"### Revision \d+:\n\Z"),
    ]
    return ScriptedEngine(rules=rules, name="storyteller", strict=False)


def says(*sections: str, delay: float = 0.0) -> ScriptedEngine:
    """An engine that answers every question with this chain."""
    return ScriptedEngine(rules=[Rule(Reply(chain_text(*sections), delay=delay))], name="says", strict=False)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Site:
    """The server; ``stop`` and ``start`` it as if its machine were restarted: what it remembered is gone."""

    def __init__(self, *engines: object, config: ServerConfig | None = None, mode: Any = "single-pass") -> None:
        self._mode = mode
        self.config = replace(config or ServerConfig(), port=free_port())
        self.engine: Any = engines[0]
        self._engines = {getattr(engine, "name", "model"): engine for engine in engines}
        self.start()

    @property
    def url(self) -> str:
        return self.config.url

    def start(self) -> None:
        defaults = Defaults(mode=self._mode)
        backends = [backend_of(engine, name=name, mode=self._mode) for name, engine in self._engines.items()]
        models = [Served(backend, defaults) for backend in backends]
        settings = uvicorn.Config(make_app(self.config, models), port=self.config.port, log_level="critical")
        settings.timeout_graceful_shutdown = 0
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        until = time.monotonic() + 20
        while not self._server.started and time.monotonic() < until:
            time.sleep(0.01)
        assert self._server.started, "the server did not start"

    def stop(self) -> None:
        self._server.force_exit = self._server.should_exit = True
        self._thread.join(20)

    def __enter__(self) -> Site:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Relay:
    """A wire between the browser and a server that can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._port = free_port()
        self._sockets: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.mend()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        assert self._listener is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        while self._sockets:
            one = self._sockets.pop()
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
