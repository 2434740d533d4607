"""A connection that another thread may hang up on: whoever waits for its next byte hears of it at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx2

from selfee.engines.cancelling import Cancellation

_CONNECTED = ("connect_tcp.complete", "start_tls.complete", "connect_unix_socket.complete")


class Line:
    """A client for one request at a time, whose socket is known also while nothing has been answered yet."""

    def __init__(self, client: httpx2.Client) -> None:
        self.client = client
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut = threading.Event()

    @property
    def is_cut(self) -> bool:
        """Whether somebody has hung up."""
        return self._cut.is_set()

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """The client's own word of what it does; given with each request."""
        if name.endswith(_CONNECTED):
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
            if self.is_cut:
                self._shut()

    def hang_up(self) -> None:
        """End what is under way, and let nothing begin; from any thread."""
        self._cut.set()
        self._shut()

    def wait(self, seconds: float) -> None:
        """Sleep, unless somebody hangs up."""
        self._cut.wait(seconds)

    def _shut(self) -> None:
        with self._lock, suppress(OSError):
            if self._socket is not None:  # not its own method: one of TLS would pull its state from under the reader
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class Lines:
    """Lends lines, and keeps those that were given back, with their connections."""

    def __init__(self, make: Callable[[], httpx2.Client]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._idle: list[Line] = []
        self._is_closed = False

    @contextmanager
    def lend(self, cancellation: Cancellation) -> Iterator[Line]:
        """A line for the time of a ``with`` block, hung up on once ``cancellation`` is set."""
        with self._lock:
            line = self._idle.pop() if self._idle else None
        line = line or Line(self._make())
        try:
            with cancellation.heard_by(line.hang_up):
                yield line
        finally:
            with self._lock:
                is_kept = not (line.is_cut or self._is_closed)
                if is_kept:
                    self._idle.append(line)
            if not is_kept:
                line.client.close()

    def close(self) -> None:
        """Close every socket; what is under way on one that is lent ends with an error."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for line in idle:
            line.client.close()
