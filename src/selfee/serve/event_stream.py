"""Server-sent events that notice at once when nobody reads them any more, and say when nothing happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from selfee.errors import SelfeeError
from selfee.serve.protocol.errors import ApiError, from_selfee

T = TypeVar("T")

COMMENT = b": ping\n\n"
"""A heartbeat that no client takes for an event."""

DONE = b"data: [DONE]\n\n"


def encode_json(value: Any) -> bytes:
    """JSON as it goes over the wire; half a surrogate pair, which no UTF-8 has, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def data_event(value: Any) -> bytes:
    """An event without a name."""
    return b"data: " + encode_json(value) + b"\n\n"


@dataclass(frozen=True)
class Pace:
    """How long to wait: for something to send before a heartbeat goes out, and for a reader to take what was sent."""

    heartbeat: float
    send: float


class EventStream(Response):
    """Sends what an iterator yields, whole events as bytes; closes it when the reader goes away, or reads too slowly.

    What the iterator raises before its first event becomes an error's answer; ``on_close`` is called in any case, also
    if the iterator never began.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        pace: Pace,
        *,
        heartbeat: bytes = COMMENT,
        headers: Mapping[str, str] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._events = events
        self._pace = pace
        self._heartbeat = heartbeat
        self._on_close = on_close
        self._coming: asyncio.Future[bytes] | None = None
        self.status_code = 200
        self.background = None
        told = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
        told |= {"x-accel-buffering": "no"} | dict(headers or {})
        self.raw_headers = [(name.encode(), value.encode()) for name, value in told.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(wait_gone(receive))
        try:
            await self._answer(gone, scope, receive, send)
        except (OSError, TimeoutError):
            pass  # the reader is gone, or will never read
        finally:
            gone.cancel()
            if self._coming is not None:
                await cancel(self._coming)
            await close_events(self._events)
            if self._on_close is not None:
                self._on_close()

    async def _answer(self, gone: asyncio.Future[None], scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._next(gone)
        except ApiError as error:
            await JSONResponse(error.body, error.status, dict(error.headers))(scope, receive, send)
            return
        except SelfeeError as error:
            known = from_selfee(error)
            await JSONResponse(known.body, known.status, dict(known.headers))(scope, receive, send)
            return
        await self._say(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while body is not None:
            await self._say(send, {"type": "http.response.body", "body": body, "more_body": True})
            body = await self._next(gone)
        await self._say(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self, gone: asyncio.Future[None]) -> bytes | None:
        """The next event, or a heartbeat; None at the end. Raises OSError where nobody reads any more."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(_anext(self._events))
        await asyncio.wait((self._coming, gone), timeout=self._pace.heartbeat, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise OSError("gone")
        if not self._coming.done():
            return self._heartbeat
        coming, self._coming = self._coming, None
        try:
            return coming.result()
        except StopAsyncIteration:
            return None

    async def _say(self, send: Send, message: Message) -> None:
        async with asyncio.timeout(self._pace.send):
            await send(message)


async def _anext(events: AsyncIterator[bytes]) -> bytes:
    return await anext(events)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled when the client goes away; ApiError (499) is raised then."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(wait_gone(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(499, "request: the client went away", "server_error", code="cancelled")
    finally:
        gone.cancel()
        await cancel(task)


async def wait_gone(receive: Receive) -> None:
    """Until the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def cancel(task: asyncio.Future[T]) -> None:
    """Cancel it and wait until it has ended, whatever comes of it."""
    if not task.done():
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, ApiError, SelfeeError):
        await task


async def close_events(events: AsyncIterator[bytes]) -> None:
    """Close an iterator, if it can be closed."""
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()
