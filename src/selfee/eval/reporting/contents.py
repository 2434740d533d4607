"""The order in which a report tells things, for every form in which it is written down."""

from __future__ import annotations

from dataclasses import dataclass

from selfee.eval.reporting.content import headlines, model_sections
from selfee.eval.reporting.report import Report
from selfee.eval.reporting.revising import revising_sections
from selfee.eval.reporting.sections import Section
from selfee.eval.reporting.trust import trust_sections


@dataclass(frozen=True)
class Contents:
    """Title, findings in sentences, and sections."""

    title: str
    headlines: tuple[str, ...]
    sections: tuple[Section, ...]


def contents_of(report: Report) -> Contents:
    """Everything that is told, in order."""
    sections = [*model_sections(report), *revising_sections(report.analysis), *trust_sections(report)]
    return Contents(report.title, headlines(report), tuple(sections))
