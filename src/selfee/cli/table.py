"""A plain table: columns aligned, nothing cut off, so that it can be copied and piped.

Where a terminal is too narrow for it, headings are broken first, then columns that can be spared are left out, and at
last each row becomes a block of its own. What goes to a file or a program is always the whole table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from selfee.cli.output import Screen, for_terminal
from selfee.cli.wrapping import WrappingText

_GAP = "  "


@dataclass(frozen=True)
class Column:
    """A column's heading, and whether its cells stand at its right edge."""

    title: str
    is_number: bool = False
    is_spare: bool = False  # left out where there is no room for all


def render_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], screen: Screen) -> str:
    """The table as text, a heading line first; control characters in cells are left out."""
    safe = [[for_terminal(cell).replace("\n", " ").replace("\t", " ") for cell in row] for row in rows]
    titles = [[column.title] for column in columns]
    if not screen.is_terminal or _width(titles, safe) <= screen.room:
        return _aligned(columns, titles, safe, screen)
    kept = [number for number, column in enumerate(columns) if not column.is_spare]
    for numbers in (range(len(columns)), kept):
        some, cells = [columns[number] for number in numbers], [[row[number] for number in numbers] for row in safe]
        broken = [_broken(column.title, [row[place] for row in cells]) for place, column in enumerate(some)]
        if _width(broken, cells) <= screen.room:
            return _aligned(some, broken, cells, screen)
    head = screen.style(columns[0].title, "dim") + "\n"  # it often says what the table is about
    return head + "".join(_block(columns, row, screen) for row in safe)


def _widths(titles: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> list[int]:
    return [
        max(cell_len(text) for text in (*title, *(row[number] for row in rows))) for number, title in enumerate(titles)
    ]


def _width(titles: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> int:
    return sum(_widths(titles, rows)) + len(_GAP) * (len(titles) - 1)


def _broken(title: str, cells: Sequence[str]) -> list[str]:
    """A heading in lines, none wider than the column must be for its cells and the heading's longest word."""
    words = title.split() or [""]
    room = max(map(cell_len, (*words, *cells)))
    lines = [words[0]]
    for word in words[1:]:
        if cell_len(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _aligned(
    columns: Sequence[Column], titles: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], screen: Screen
) -> str:
    widths = _widths(titles, rows)
    height = max(map(len, titles))
    padded = [[""] * (height - len(title)) + list(title) for title in titles]
    heads = [_line(columns, widths, line) for line in zip(*padded, strict=True)]
    lines = [*(screen.style(head, "dim") for head in heads), *(_line(columns, widths, row) for row in rows)]
    return "".join(line + "\n" for line in lines)


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    parts = []
    for column, width, cell in zip(columns, widths, cells, strict=True):
        space = " " * (width - cell_len(cell))
        parts.append(space + cell if column.is_number else cell + space)
    return _GAP.join(parts).rstrip()


def _block(columns: Sequence[Column], row: Sequence[str], screen: Screen) -> str:
    """A row as lines: the first cell, then what each other column says of it."""
    titles = [column.title for column in columns[1:]] if len(columns) > 2 else [""]  # one value needs no name
    width = max(map(cell_len, titles), default=0)
    lines = [screen.style(row[0], "bold")]
    for title, cell in zip(titles, row[1:], strict=True):
        label = _GAP + title + " " * (width - cell_len(title)) + _GAP
        lines.append(screen.style(label, "dim") + _wrapped(cell, cell_len(label), screen.room))
    return "".join(line + "\n" for line in lines)


def _wrapped(cell: str, indent: int, width: int) -> str:
    """A cell in lines; a single word, such as a path, is left whole to be copied: the terminal breaks it."""
    if " " not in cell:
        return cell
    wrapper = WrappingText(width, indent, after_label=True)
    return wrapper.feed(cell) + wrapper.finish()
