"""What a person sees and types: text in three colours, and entries of one or more lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO

from selfee.cli.output import Screen, for_terminal

_COLORS = {"text": "\x1b[0m", "prompt": "\x1b[33m", "input": "\x1b[1m\x1b[32m", "error": "\x1b[1m\x1b[31m"}


@dataclass(frozen=True)
class Entry:
    """What was typed; ``at_end`` where nothing more will come."""

    text: str
    at_end: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether it only gives the word back."""
        return self.text in ("", "\n")


class Console:
    """Two screens and somebody who types. ``multiline``: an entry goes on until a line that ends with \\ or /."""

    def __init__(self, stdin: TextIO, stdout: Screen, stderr: Screen, *, multiline: bool = False) -> None:
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._multiline = multiline
        self._color = "text"

    def color(self, name: str) -> None:
        """From here on text is this: "prompt", "input", "error" or "text" of the model's."""
        if self._stdout.has_color and name != self._color:
            self._stdout.write(_COLORS[name])
        self._color = name

    def write(self, text: str) -> None:
        """Text on stdout, at once; a terminal is sent nothing that could steer it."""
        if text:
            self._stdout.write(for_terminal(text) if self._stdout.is_terminal else text)

    def note(self, text: str) -> None:
        """A line on stderr."""
        self._stderr.write(for_terminal(text) + "\n")

    def read(self) -> Entry:
        """An entry: a trailing \\ asks for one more line (or ends, if multiline), a trailing / drops the line break."""
        self.color("input")
        text, more, at_end = "", True, False
        while more:
            line, more, at_end = self._read_line()
            text += line
        self.color("text")
        return Entry(text, at_end)

    def _read_line(self) -> tuple[str, bool, bool]:
        """A line, whether another follows, and whether the input has ended."""
        raw = self._stdin.readline()
        at_end = not raw.endswith("\n")
        line = raw.rstrip("\r\n")
        if line.endswith("\\"):
            return line[:-1] + "\n", not self._multiline and not at_end, at_end
        if line.endswith("/"):
            return ("" if line == " /" else line[:-1]), False, at_end
        return line + ("" if at_end else "\n"), self._multiline and not at_end, at_end
