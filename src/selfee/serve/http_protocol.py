"""HTTP as the server reads it: headers must come in time and in measure, and what cannot be read is told in JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from selfee.serve.protocol.errors import ApiError


class GuardedProtocol(H11Protocol):
    """Uvicorn's, with a limit of time for headers and errors in the form of the others."""

    header_seconds = 10.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; its headers must follow."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.header_seconds, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._forget_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """More of a request has come."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE:
            if self._deadline is None:
                self._deadline = self.loop.call_later(self.header_seconds, self._too_late)
        else:
            self._forget_deadline()

    def on_response_complete(self) -> None:
        """Ready for the next request, which keep-alive gives its own time."""
        self._forget_deadline()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """The request cannot be read: say so, and why if it is its size."""
        waiting, _ = self.conn.trailing_data
        error = ApiError(400, f"request: {msg}; expected HTTP/1.1", code="bad_request")
        if len(waiting) >= (self.config.h11_max_incomplete_event_size or 0) > 0:
            line = waiting.split(b"\r\n", 1)
            if len(line) == 1:
                error = ApiError(414, "url: too long; expected less", code="url_too_long")
            else:
                error = ApiError(431, "headers: too large; expected less", code="headers_too_large")
        self._answer(error)

    def _too_late(self) -> None:
        self._deadline = None
        if self.transport.is_closing() or self.conn.our_state is not h11.IDLE:
            return
        self._answer(ApiError(408, f"headers: not complete within {self.header_seconds:g} s", code="timeout"))

    def _answer(self, error: ApiError) -> None:
        body = json.dumps(error.body).encode()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            head = h11.Response(status_code=error.status, headers=[*headers, (b"connection", b"close")])
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def protocol_with(header_seconds: float) -> type[GuardedProtocol]:
    """The protocol with this limit of time."""

    class TimedProtocol(GuardedProtocol):
        pass

    TimedProtocol.header_seconds = header_seconds
    return TimedProtocol
