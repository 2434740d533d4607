"""Server-sent events that notice at once when nobody reads them any more, and say when nothing happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from selfee.serve.protocol.errors import ApiError

T = TypeVar("T")

COMMENT = b": ping\n\n"
"""A heartbeat that no client takes for an event."""


@dataclass(frozen=True)
class Pace:
    """How long to wait: for something to send before a heartbeat goes out, and for a reader to take what was sent."""

    heartbeat: float
    send: float


class EventStream(Response):
    """Sends what an iterator yields, whole events as bytes; closes it when the reader goes away, or reads too slowly."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        pace: Pace,
        *,
        heartbeat: bytes = COMMENT,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._events = events
        self._pace = pace
        self._heartbeat = heartbeat
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"} | dict(headers or {}))

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Headers without a length: it is not known."""
        self.raw_headers = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self.raw_headers.append((b"content-type", b"text/event-stream; charset=utf-8"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_wait_gone(receive))
        try:
            await self._say(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send_events(gone, send)
            await self._say(send, {"type": "http.response.body", "body": b"", "more_body": False})
        except (OSError, TimeoutError):
            pass  # the reader is gone, or will never read
        finally:
            gone.cancel()
            await _close(self._events)

    async def _send_events(self, gone: asyncio.Future[None], send: Send) -> None:
        coming: asyncio.Future[bytes] | None = None
        try:
            while True:
                if coming is None:
                    coming = asyncio.ensure_future(anext(self._events))
                await asyncio.wait((coming, gone), timeout=self._pace.heartbeat, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    raise OSError("gone")
                body = self._heartbeat
                if coming.done():
                    try:
                        body = coming.result()
                    except StopAsyncIteration:
                        return
                    coming = None
                await self._say(send, {"type": "http.response.body", "body": body, "more_body": True})
        finally:
            if coming is not None:
                await _cancel(coming)

    async def _say(self, send: Send, message: Message) -> None:
        async with asyncio.timeout(self._pace.send):
            await send(message)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled when the client goes away; ApiError (499) is raised then."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_wait_gone(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(499, "request: the client went away", "server_error", code="cancelled")
    finally:
        gone.cancel()
        await _cancel(task)


async def _wait_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(task: asyncio.Future[T]) -> None:
    """Cancel it and wait until it has ended, whatever comes of it."""
    if task.done():
        return
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, ApiError):
        await task


async def _close(events: AsyncIterator[bytes]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()
