"""Standard output and error: colour or not, what a terminal may be sent, how wide it is."""

from __future__ import annotations

import enum
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TextIO

from selfee.errors import ResourceError

_NARROWEST, _WIDEST = 40, 110  # columns; longer lines are hard to read
_STYLES = {
    "dim": "2",
    "bold": "1",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "magenta": "35",
    "cyan": "36",
    "removed": "31;9",
    "added": "32",
}
# Bidirectional overrides and isolates can make a terminal show a text in another order than it is in.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Color(enum.Enum):
    """When to use colour."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True)
class Screen:
    """One output stream and what it can show."""

    stream: TextIO
    is_terminal: bool
    has_color: bool
    width: int  # columns

    def fitted(self) -> Screen:
        """The same as wide as it is now: a window may be drawn larger or smaller while a program runs."""
        return replace(self, width=_columns()) if self.is_terminal else self

    @property
    def room(self) -> int:
        """Columns for what is no prose, such as a table: all there are, however wide."""
        return self.width if self.width < _WIDEST else max(self.width, shutil.get_terminal_size((80, 24)).columns)

    def write(self, text: str) -> None:
        """Write at once: a person, or the next program, is waiting."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except BrokenPipeError:
            raise  # the reader has gone away, which is its right
        except OSError as error:
            name = getattr(self.stream, "name", "output")
            raise ResourceError(
                f"{name}: cannot be written ({error.strerror or error}); expected room for it"
            ) from error

    def write_json(self, value: object, indent: int | None = None) -> None:
        """Write a value as JSON; it escapes what the stream cannot encode, so that no character is lost."""
        text = json.dumps(value, ensure_ascii=False, indent=indent)
        try:
            text.encode(self.stream.encoding or "utf-8")
        except UnicodeEncodeError:
            text = json.dumps(value, indent=indent)
        self.write(text + "\n")

    def style(self, text: str, *names: str) -> str:
        """``text`` in colour, where there is colour."""
        if not self.has_color or not text:
            return text
        return f"\x1b[{';'.join(_STYLES[name] for name in names)}m{text}\x1b[0m"


def screen_of(stream: TextIO, color: Color, environ: Mapping[str, str] | None = None) -> Screen:
    """What ``stream`` can show, by its kind and the user's wish (--color, NO_COLOR, TERM)."""
    environ = os.environ if environ is None else environ
    is_terminal = stream.isatty()
    wants_color = is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    has_color = color is Color.ALWAYS or (color is Color.AUTO and wants_color)
    return Screen(stream, is_terminal, has_color, _columns())


def _columns() -> int:
    return max(_NARROWEST, min(shutil.get_terminal_size((80, 24)).columns - 1, _WIDEST))


def for_terminal(text: str) -> str:
    """``text`` without what could steer a terminal: control characters (but line break and tab), bidi overrides."""
    if text.isprintable():
        return text if _BIDI.isdisjoint(text) else "".join(character for character in text if character not in _BIDI)
    return "".join(
        character
        for character in text
        if character in "\n\t" or (character not in _BIDI and unicodedata.category(character) not in ("Cc", "Cs"))
    )


def make_tolerant() -> None:
    """Let a stream that cannot show a character show '?' in its place, and one that was closed swallow everything."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us: selfee ask … 2>&-
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
