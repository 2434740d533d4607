"""A plain table: columns aligned, nothing cut off, so that it can be copied and piped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from selfee.cli.output import Screen, for_terminal


@dataclass(frozen=True)
class Column:
    """A column's heading, and whether its cells stand at its right edge."""

    title: str
    is_number: bool = False


def render_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], screen: Screen) -> str:
    """The table as text, a heading line first; control characters in cells are left out."""
    safe = [[for_terminal(cell).replace("\n", " ").replace("\t", " ") for cell in row] for row in rows]
    titles = [column.title for column in columns]
    widths = [max(cell_len(line[number]) for line in (titles, *safe)) for number in range(len(columns))]
    lines = [_line(columns, widths, line) for line in (titles, *safe)]
    lines[0] = screen.style(lines[0], "dim")
    return "".join(line + "\n" for line in lines)


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    parts = []
    for column, width, cell in zip(columns, widths, cells, strict=True):
        space = " " * (width - cell_len(cell))
        parts.append(space + cell if column.is_number else cell + space)
    return "  ".join(parts).rstrip()
