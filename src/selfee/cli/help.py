"""Help pages that fit the terminal: below sixty columns, what a flag means stands under it and not beside it."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

_NARROWEST, _WIDEST = 24, 110  # columns of text
_BESIDE = 60  # columns from which names and meanings stand side by side


def make_readable(command: Any) -> Any:
    """Give a command, and the commands in it, help that fits; returns it."""
    command.context_class = _context_class(command.context_class)
    for option in getattr(command, "params", ()):
        if option.param_type_name == "argument" and option.metavar is None:
            option.metavar = str(option.name).upper()
    for child in getattr(command, "commands", {}).values():
        child.short_help = " ".join(str(child.help or "").split("\n\n")[0].split())  # else it would be cut short
        make_readable(child)
    return command


def make_group_readable(group: type[Any]) -> None:
    """The same for a group whose commands are made readable when they are loaded."""
    group.context_class = _context_class(group.context_class)


def _context_class(base: Any) -> Any:
    formatter = type("_Formatter", (_Fitting, base.formatter_class), {})
    return type("_Context", (base,), {"formatter_class": formatter})


_KINDS = {"str": "TEXT", "int": "N", "float": "X", "path": "PATH"}


def _named(name: str) -> str:
    """A name with what follows it as people write it: Python's names of types mean nothing to them."""
    kind = re.search(r" <(?:list\[)?(str|int|float|path)\]?(?: range)?>$", name)
    if kind is None:
        return name
    if not name.startswith("-"):  # an argument's own name says enough
        return name[: kind.start()] + ("..." if "list[" in kind[0] else "")
    return f"{name[: kind.start()]} {_KINDS[kind[1]]}"


def _loosened(paragraph: str, room: int) -> str:
    """A paragraph that may be wrapped anew, unless it fits or holds commands (which are indented)."""
    first, _, rest = paragraph.partition("\n")
    lines = rest.splitlines()
    if first.strip() != "\b" or all(len(line) <= room for line in lines):
        return paragraph
    if all(map(_MEANING.fullmatch, lines)):
        return "\n".join(["\b", *(part for line in lines for part in _below(line, room))])
    return paragraph if any(line.startswith(" ") for line in lines) else rest


_MEANING = re.compile(r"  (\S+) {2,}(\S.*)")
"""A line of a list: a name, and in a column of its own what it means."""


def _below(line: str, room: int) -> list[str]:
    """A line of a list that is too wide: the name, and under it what it means."""
    found = _MEANING.fullmatch(line)
    assert found is not None, "asked of lines of a list only"
    name, meaning = found.groups()
    margin = " " * 6
    return [f"  {name}", *textwrap.wrap(meaning, room, initial_indent=margin, subsequent_indent=margin)]


if TYPE_CHECKING:

    class _Layout:
        """What typer's own way to lay out help has: it is a private class of typer's, found when a command is."""

        width: int
        current_indent: int

        def __init__(
            self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None
        ) -> None: ...

        def write_dl(self, rows: Sequence[tuple[str, str]], *layout: Any, **named: Any) -> None: ...

        def write_text(self, text: str) -> None: ...

        def write(self, string: str) -> None: ...

else:
    _Layout = object


class _Fitting(_Layout):
    """What differs from typer's own way; mixed into it."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        columns = shutil.get_terminal_size().columns - 1 if width is None else width
        fitting = max(_NARROWEST, min(columns, max_width or _WIDEST))
        super().__init__(indent_increment, fitting, max_width)

    def write_dl(self, rows: Sequence[tuple[str, str]], *layout: Any, **named: Any) -> None:
        """Names and what they mean."""
        rows = [(_named(name), meaning) for name, meaning in rows]
        if self.width >= _BESIDE:
            super().write_dl(rows, *layout, **named)
            return
        margin = " " * self.current_indent
        lines: list[str] = []
        for name, meaning in rows:
            lines += self._wrap(name, margin, margin + "    ")
            lines += self._wrap(" ".join(meaning.split()), margin + "    ", margin + "    ")
        self.write("".join(line + "\n" for line in lines))

    def write_text(self, text: str) -> None:
        """A text; lines that were laid out by hand are kept where they fit, and examples always."""
        room = self.width - self.current_indent
        super().write_text("\n\n".join(_loosened(part, room) for part in text.split("\n\n")))

    def _wrap(self, text: str, first: str, later: str) -> list[str]:
        return textwrap.wrap(
            text,
            self.width,
            initial_indent=first,
            subsequent_indent=later,
            break_long_words=False,
            break_on_hyphens=False,
        )
