"""The report as Markdown: the same words and tables as the page, without pictures and without the browser."""

from __future__ import annotations

import re

from selfee.eval.reporting.contents import contents_of
from selfee.eval.reporting.report import Report
from selfee.eval.reporting.sections import Section, Table


def render_markdown(report: Report) -> str:
    """The whole report."""
    contents = contents_of(report)
    parts = [
        "<!-- selfee report -->",
        f"# {_text(contents.title)}",
        "\n".join(f"- {_text(line)}" for line in contents.headlines),
    ]
    parts += [_section(section) for section in contents.sections]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section) -> str:
    parts = [f"## {_text(section.title)}"]
    parts += [f"> **Note.** {_text(warning)}" for warning in section.warnings]
    parts += [_text(paragraph) for paragraph in section.paragraphs]
    parts += [_table(table) for table in section.tables]
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    rule = " | ".join("---" if number in table.words else "---:" for number in range(len(table.columns)))
    lines = [_text(table.caption), "", _row(table.columns), f"| {rule} |"]
    return "\n".join([*lines, *(_row(row) for row in table.rows)])


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(_text(cell) for cell in cells)} |"


_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def _text(text: str) -> str:
    """Words as they are: nothing in a name may become markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
