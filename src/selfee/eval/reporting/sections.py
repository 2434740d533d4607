"""What stands on the page, section by section: words, tables and pictures, for HTML and Markdown alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """A table of texts. All columns but those named in ``words`` hold numbers and stand at the right edge."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset({0})


@dataclass(frozen=True)
class Picture:
    """A drawing: SVG of our own making, and what it shows in words."""

    title: str
    svg: str
    words: str


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    id: str  # of the HTML element, and what links name
    title: str
    paragraphs: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing to say."""
        return not (self.paragraphs or self.pictures or self.tables or self.warnings)


@dataclass
class Rows:
    """A table in the making: columns are left out where no row has anything to say in them."""

    caption: str
    columns: Sequence[str]
    words: Iterable[int] = (0,)
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """A row; "" = nothing to say."""
        assert len(cells) == len(self.columns), (cells, self.columns)
        self.rows.append(cells)

    def table(self) -> Table:
        """Without its empty columns."""
        used = [number for number in range(len(self.columns)) if any(row[number] for row in self.rows)]

        def pick(row: Sequence[str]) -> tuple[str, ...]:
            return tuple(row[number] or "–" for number in used)

        words = frozenset(used.index(number) for number in self.words if number in used)
        return Table(self.caption, pick(self.columns), tuple(pick(row) for row in self.rows), words)

    def tables(self) -> tuple[Table, ...]:
        """The table, if it has rows."""
        return (self.table(),) if self.rows else ()
