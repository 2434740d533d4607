"""A fleet on loopback sockets: controller, workers and a server, each with its own event loop in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI
from tests.serve.harness import QuickServer, backend_of

from selfee.engines.base import SamplingParams
from selfee.serve.app import make_app
from selfee.serve.config import Access, Defaults, Limits, ServerConfig
from selfee.serve.fleet.addresses import AllowedAddresses
from selfee.serve.fleet.backend import FleetBackend
from selfee.serve.fleet.controller import make_controller
from selfee.serve.fleet.directory import Directory
from selfee.serve.fleet.members import make_worker
from selfee.serve.fleet.settings import Identity, Patience
from selfee.serve.service import Served

SECRET = "a-secret-of-the-tests"
QUICK = Patience(beat=0.2, expiry=2.0, refresh=0.1, connect=2.0, stall=3.0, status=2.0, worker=2.0, shunned=0.5)
LIMITS = Limits(heartbeat_seconds=0.3, drain_seconds=1, per_key=64)


class Part:
    """One server. ``kill`` ends it as a crash would: its connections are cut in the middle of a word."""

    def __init__(self, app: FastAPI, port: int) -> None:
        self.app = app
        self.port = port
        settings = uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=0)
        self._server = QuickServer(settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_for(lambda: self._server.started)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve()

        asyncio.run(serve())

    def kill(self) -> None:
        if self._loop is None or not self._thread.is_alive():
            return

        def abort() -> None:
            for server in self._server.servers:
                server.close()
            for connection in list(self._server.server_state.connections):
                transport = getattr(connection, "transport", None)
                if transport is not None:
                    transport.abort()
            self._server.force_exit = self._server.should_exit = True

        self._loop.call_soon_threadsafe(abort)
        self._thread.join(10)


@dataclass
class Fleet:
    """All parts, and a client of the server."""

    controller: Part
    workers: list[Part]
    web: Part
    backend: FleetBackend
    client: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx2.Client(base_url=self.web.url, timeout=60, trust_env=False, verify=False)

    def ask(self, path: str, body: Any) -> httpx2.Response:
        return self.client.post(path, json=body)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Until it holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


def config(port: int, secret: str | None = SECRET) -> ServerConfig:
    keys = () if secret is None else (secret,)
    return ServerConfig(port=port, limits=LIMITS, access=Access(keys))


def start_controller(port: int | None = None, secret: str | None = SECRET, **settings: Any) -> Part:
    port = port or free_port()
    allowed = settings.pop("allowed", AllowedAddresses())
    patience = settings.pop("patience", QUICK)
    return Part(make_controller(config(port, secret), allowed, patience=patience, **settings), port)


def start_worker(
    engine: Any, controller: str, *, secret: str | None = SECRET, port: int | None = None, **settings: Any
) -> Part:
    port = port or free_port()
    mode = settings.pop("mode", "single-pass")
    model = Served(backend_of(engine, name=settings.pop("name", "model"), mode=mode), Defaults(mode=mode))
    identity = Identity(f"http://127.0.0.1:{port}", controller, secret)
    return Part(make_worker(config(port, secret), [model], identity, patience=QUICK, **settings), port)


def registered(controller: Part) -> list[str]:
    """Addresses of the workers that a controller knows."""
    return [worker.address for worker in controller.app.state.controller.registry.workers]


@contextmanager
def fleet(
    engines: Sequence[Any], *, mode: Any = "single-pass", temperature: float = 0.0, patience: Patience = QUICK
) -> Iterator[Fleet]:
    """A whole fleet with a worker for each engine."""
    with ExitStack() as stack:
        controller = start_controller()
        stack.callback(controller.kill)
        workers = [start_worker(engine, controller.url, mode=mode) for engine in engines]
        for worker in workers:
            stack.callback(worker.kill)
        wait_for(lambda: len(registered(controller)) == len(engines))
        port = free_port()
        backend = FleetBackend(Directory(controller.url, SECRET, patience), "model", 16)
        defaults = Defaults(mode=mode, params=SamplingParams(temperature=temperature))
        web = Part(make_app(config(port, None), [Served(backend, defaults)]), port)
        stack.callback(web.kill)
        wait_for(lambda: backend.is_ready)
        yield Fleet(controller, workers, web, backend)
