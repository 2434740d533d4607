"""Figures made readable: one page, one Markdown file, one JSON file of everything that a folder of judgments says.

``read_folder`` finds what a folder holds (a run of ``selfee judge``, or review files of 2023), ``make_report`` sums it
up, ``render_page`` and ``render_markdown`` write it down. Never asks a model and never judges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.eval.reporting.folder import Material as Material
    from selfee.eval.reporting.folder import read_folder as read_folder
    from selfee.eval.reporting.markdown import render_markdown as render_markdown
    from selfee.eval.reporting.page import render_page as render_page
    from selfee.eval.reporting.report import Report as Report
    from selfee.eval.reporting.report import make_report as make_report

__all__ = ["Material", "Report", "make_report", "read_folder", "render_markdown", "render_page"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Material": "selfee.eval.reporting.folder",
        "Report": "selfee.eval.reporting.report",
        "make_report": "selfee.eval.reporting.report",
        "read_folder": "selfee.eval.reporting.folder",
        "render_markdown": "selfee.eval.reporting.markdown",
        "render_page": "selfee.eval.reporting.page",
    },
)
