"""Server-sent events from bytes that may be cut anywhere.

Follows the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream": LF, CR or CRLF end a line, ``:``
begins a comment, several ``data`` lines join with a newline, an empty line ends the event. One leniency: an event
still open when the stream ends is given out by ``finish``, because servers leave out the last empty line.
"""

from __future__ import annotations

from collections.abc import Iterator

from selfee.errors import EngineError

_BOM = b"\xef\xbb\xbf"


class SseParser:
    """``feed`` bytes, get the ``data`` of each complete event as text.

    Invalid UTF-8 becomes U+FFFD, as the standard says; a character cut by a chunk border is not invalid.
    Raises EngineError once one event exceeds ``max_event_bytes``.
    """

    def __init__(self, max_event_bytes: int = 1 << 23) -> None:
        self._max = max_event_bytes
        self._line = bytearray()  # of the line not ended yet
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._first = True

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Yield the data of every event that ``chunk`` completes."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr |= chunk.endswith(b"\r")
        *lines, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._line += line
            whole, self._line = bytes(self._line), bytearray()
            yield from self._take_line(whole)
        self._line += rest
        self._check(len(self._line))

    def finish(self) -> Iterator[str]:
        """Yield the data of an event that the stream's end left open."""
        whole, self._line = bytes(self._line), bytearray()
        yield from self._take_line(whole)
        yield from self._dispatch()

    def _take_line(self, line: bytes) -> Iterator[str]:
        if self._first:
            line = line.removeprefix(_BOM)
            self._first = False
        if not line:
            yield from self._dispatch()
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value) + 1
            self._check(0)

    def _dispatch(self) -> Iterator[str]:
        data, self._data, self._size = self._data, [], 0
        if data:
            yield b"\n".join(data).decode("utf-8", errors="replace")

    def _check(self, extra: int) -> None:
        if self._size + extra > self._max:
            raise EngineError(f"event stream: one event exceeds {self._max} bytes; expected far less; check the server")
