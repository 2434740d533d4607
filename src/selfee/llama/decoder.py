"""Tokens back into text, one at a time, without ever cutting a character in two."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from selfee.errors import UsageError


class PieceTable:
    """What every token id stands for when text is made of it.

    ``make(id)`` gives the bytes of a token, asked for once; ``count`` is the number of ids. ``hidden`` are the ids that
    mean something other than text (control and unknown tokens); ``verbatim`` are the ids that encoding finds as a whole
    (hidden ones and user-defined ones). ``adds_space`` says that encoding puts a space before a text and after a
    verbatim token, so decoding takes it away.
    """

    def __init__(
        self,
        make: Callable[[int], bytes],
        count: int,
        *,
        hidden: frozenset[int],
        verbatim: frozenset[int],
        adds_space: bool,
    ) -> None:
        self._make = make
        self._known: dict[int, bytes] = {}
        self.count = count
        self.hidden = hidden
        self.verbatim = verbatim
        self.adds_space = adds_space

    def bytes_of(self, token: int) -> bytes:
        """The bytes of one token, a space in front included. Raises UsageError for an id that does not exist."""
        data = self._known.get(token)
        if data is None:
            if not 0 <= token < self.count:
                raise UsageError(f"token {token}: does not exist; expected 0 to {self.count - 1}")
            data = self._known[token] = self._make(token)
        return data


class StreamDecoder:
    """Turns tokens into text as they come; a character whose bytes are incomplete waits for the next token.

    Law: everything ``feed`` gave, then ``finish``, is ``bytes.decode(errors="replace")`` of all the tokens' bytes,
    however they were fed. ``start_of_text`` says that the first token begins a text, so the space that encoding added
    there is dropped; without it the tokens continue a text and the first keeps its space.
    """

    def __init__(self, table: PieceTable, *, skip_special: bool = True, start_of_text: bool = False) -> None:
        self._table = table
        self._skip_special = skip_special
        self._at_start = start_of_text and table.adds_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The text that this token makes certain, possibly none. Raises UsageError for an id that does not exist."""
        table = self._table
        data = table.bytes_of(token)
        if token in table.verbatim:
            self._at_start = table.adds_space
            return "" if self._skip_special and token in table.hidden else self._utf8.decode(data)
        if self._at_start:
            self._at_start = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def finish(self) -> str:
        """What was withheld: U+FFFD for a character that never became complete, else nothing."""
        return self._utf8.decode(b"", final=True)
