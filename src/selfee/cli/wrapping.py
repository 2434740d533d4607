"""Text that arrives in pieces, wrapped and indented as it comes: what is on the screen is never redrawn."""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size

_PARTS = re.compile(r"\n|[^\S\n]+|\S+")
_TAB = 4  # columns


class WrappingText:
    """Feed it pieces, write what it returns. A word is held back until it is known to be whole.

    ``indent`` columns of space stand before every line, and lines end at column ``width``. ``after_label``: the first
    line's indent is on the screen already.
    """

    def __init__(self, width: int, indent: int, *, after_label: bool = False) -> None:
        self._room = max(8, width - indent)
        self._indent = " " * indent
        self._column = 0
        self._space = ""  # not written yet: at a line's end it is not wanted
        self._word = ""  # not written yet: it may go on
        self._is_line_start = not after_label

    def feed(self, text: str) -> str:
        """What can be written now."""
        out = []
        for part in _PARTS.findall(text.expandtabs(_TAB)):
            if part == "\n":
                out += [self._flush_word(), "\n"]
                self._space, self._column, self._is_line_start = "", 0, True
            elif part.isspace():
                out.append(self._flush_word())
                self._space += part
            else:
                self._word += part
        return "".join(out)

    def finish(self) -> str:
        """The rest."""
        return self._flush_word()

    def _flush_word(self) -> str:
        word, self._word = self._word, ""
        if not word:
            return ""
        out = ""
        needed = cell_len(self._space) + cell_len(word)
        if self._column and self._column + needed > self._room:
            out += "\n"
            self._column, self._space = 0, ""
            self._is_line_start = True
        if not self._column:  # an indentation as wide as the line leaves no room for a letter, which may take two cells
            self._space = self._space[: self._room - 2]
        out += self._write(self._space) + self._write_long(word)
        self._space = ""
        return out

    def _write_long(self, word: str) -> str:
        """A word, cut where it is longer than a line (an address, a language without spaces)."""
        out = ""
        while cell_len(word) > self._room - self._column:
            head = set_cell_size(word, max(2, self._room - self._column)).rstrip(" ") or word[0]
            out += self._write(head) + "\n"
            word = word[len(head) :]
            self._column, self._is_line_start = 0, True
        return out + self._write(word)

    def _write(self, text: str) -> str:
        if not text:
            return ""
        indent = self._indent if self._is_line_start else ""
        self._is_line_start = False
        self._column += cell_len(text)
        return indent + text
