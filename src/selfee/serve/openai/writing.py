"""What chat completions and completions have in common: an answer whole, or as chunks that end as they should."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from selfee.errors import SelfeeError
from selfee.serve.event_stream import DONE, EventStream, data_event, unless_gone
from selfee.serve.protocol.errors import ApiError, from_selfee
from selfee.serve.service import Service

Row = dict[str, Any]


class Writer(Protocol):
    """Does what one request asks for."""

    async def whole(self) -> Row:
        """The answer as one object. Raises ApiError, SelfeeError."""
        ...

    def stream(self) -> AsyncIterator[bytes]:
        """The answer as chunks. Raises ApiError, SelfeeError before the first."""
        ...

    def release(self) -> None:
        """Give places back that were never used."""
        ...


async def respond(service: Service, request: Request, writer: Writer, *, streams: bool) -> Response:
    """What the writer writes, as it was asked for; its places are given back in any case."""
    if streams:
        return EventStream(writer.stream(), service.pace, on_close=writer.release)
    try:
        return JSONResponse(await unless_gone(request, writer.whole()))
    finally:
        writer.release()


def head_of(prefix: str, kind: str, model: str) -> Row:
    """What every object of one answer begins with."""
    row = {"id": prefix + secrets.token_hex(12), "object": kind, "created": int(time.time()), "model": model}
    return row | {"system_fingerprint": "selfee"}


async def as_events(
    head: Row, rows: AsyncGenerator[Row, None], usage: Callable[[], Row] | None
) -> AsyncIterator[bytes]:
    """Chunks that begin with ``head``, then the usage where it is asked for, and the end.

    What fails after the first chunk is told, and then no end follows: nobody may take that for a whole answer.
    """
    if usage is not None:
        head = head | {"usage": None}
    started = False
    try:
        async with aclosing(rows):
            async for row in rows:
                started = True
                yield data_event(head | row)
    except (ApiError, SelfeeError) as error:
        if not started:
            raise
        known = error if isinstance(error, ApiError) else from_selfee(error)
        yield data_event(known.body)
        return
    if usage is not None:
        yield data_event(head | {"choices": [], "usage": usage()})
    yield DONE
