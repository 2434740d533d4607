"""Runs the application until it is told to end: first nothing new is taken on, then what is under way may finish."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from selfee.errors import ResourceError
from selfee.serve.app import make_app
from selfee.serve.config import ServerConfig
from selfee.serve.http_protocol import protocol_with
from selfee.serve.service import Served, Service

LOG = logging.getLogger("selfee.serve")

_BACKLOG = 256
_NO_MORE_FILES = (errno.EMFILE, errno.ENFILE)
_SECONDS_BETWEEN = 10.0


class Server(uvicorn.Server):
    """Drains when it is told to end: SIGTERM or Ctrl-C once waits for what is under way, twice does not."""

    def __init__(self, config: uvicorn.Config, service: Service, seconds: float) -> None:
        super().__init__(config)
        self.signal: int | None = None
        self._service = service
        self._seconds = seconds

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear SIGTERM and SIGINT for the time of a ``with`` block."""
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self.signal = self.signal or sig
        self._service.refuse_more()

    async def shutdown(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Let what is under way finish, for so long; then cut it, and tell its clients."""
        for server in self.servers:
            server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                while self._service.is_busy and not self.force_exit:
                    await asyncio.sleep(0.05)
        await self._service.cut()
        await super().shutdown(list(sockets) if sockets is not None else None)


class FewFiles:
    """Says once in a while, in one line, that no more connections can be opened; asyncio would say it hundredfold.

    It tries again after a second, so that whoever waits is served once others leave.
    """

    def __init__(self) -> None:
        self._last = -_SECONDS_BETWEEN

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """As ``loop.set_exception_handler`` wants it."""
        if getattr(context.get("exception"), "errno", None) not in _NO_MORE_FILES:
            loop.default_exception_handler(context)
        elif time.monotonic() - self._last >= _SECONDS_BETWEEN:
            self._last = time.monotonic()
            LOG.warning("too many open files: new connections wait until others end; allow more (ulimit -n)")


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ResourceError where it cannot."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family[0], socket.SOCK_STREAM)
    except OSError as error:
        raise ResourceError(
            f"{host}: is no address of this machine ({error.strerror}); expected one; try 127.0.0.1"
        ) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(family[4])
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        advice = "choose another with --port, or 0 for any" if port else "try 127.0.0.1"
        raise ResourceError(f"{host}:{port}: cannot be listened on ({error.strerror}); {advice}") from error
    return listening


def run_server(
    config: ServerConfig, models: Sequence[Served], listening: socket.socket, ready: Callable[[], None]
) -> int | None:
    """Serve on a socket until a signal comes, which is returned. ``ready`` is called once questions can be answered.

    Raises SelfeeError where a model cannot be loaded.
    """
    app = make_app(config, models)
    return run_app(app, app.state.service, config, listening, ready)


def run_app(
    app: FastAPI, service: Service, config: ServerConfig, listening: socket.socket, ready: Callable[[], None]
) -> int | None:
    """As ``run_server``, for an application that is there already."""
    tls = config.tls
    settings = uvicorn.Config(
        app,
        http=protocol_with(config.limits.header_seconds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        h11_max_incomplete_event_size=config.limits.header_bytes,
        backlog=_BACKLOG,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
        ssl_certfile=None if tls is None else str(tls.certificate),
        ssl_keyfile=None if tls is None else str(tls.key),
    )
    server = Server(settings, service, config.limits.drain_seconds)

    async def serve() -> None:
        asyncio.get_running_loop().set_exception_handler(FewFiles())
        with server.capture_signals():
            try:
                await service.start()
                if not server.should_exit:
                    ready()
                    await server._serve([listening])
            finally:
                await service.close()

    asyncio.run(serve())
    return server.signal
