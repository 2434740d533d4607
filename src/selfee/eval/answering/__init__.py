"""Any engine × a set of questions → answers with their whole chains, for every number of revisions in one run.

``answer_questions`` does it; what was made is in a journal, so a run that was killed goes on. Never judges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.eval.answering.plan import Plan as Plan
    from selfee.eval.answering.run import Progress as Progress
    from selfee.eval.answering.run import answer_questions as answer_questions

__all__ = ["Plan", "Progress", "answer_questions"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Plan": "selfee.eval.answering.plan",
        "Progress": "selfee.eval.answering.run",
        "answer_questions": "selfee.eval.answering.run",
    },
)
