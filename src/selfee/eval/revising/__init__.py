"""Does revising help? Chains graded answer by answer, beside other ways to spend the same tokens.

``analyse`` turns graded chains into an ``Analysis``, which is what ``analysis.json`` holds; ``read_analysis`` reads it
back. Never asks a judge and never draws a page: those are the rooms beside this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.eval.revising.result import Analysis as Analysis
    from selfee.eval.revising.result import Group as Group
    from selfee.eval.revising.result_file import read_analysis as read_analysis
    from selfee.eval.revising.result_file import write_analysis as write_analysis

__all__ = ["Analysis", "Group", "read_analysis", "write_analysis"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Analysis": "selfee.eval.revising.result",
        "Group": "selfee.eval.revising.result",
        "read_analysis": "selfee.eval.revising.result_file",
        "write_analysis": "selfee.eval.revising.result_file",
    },
)
