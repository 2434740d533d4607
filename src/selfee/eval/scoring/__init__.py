"""Judgments and what follows from them: one judge's reply read, many replies summed up, with how sure we are.

``Judgment`` is one reply of one judge on one order of two answers (or on one answer alone); ``read_reply`` turns a
reply into scores or a label, or says why it cannot. Never asks a judge: that is the room beside this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.eval.scoring.judgment import Form as Form
    from selfee.eval.scoring.judgment import Judgment as Judgment
    from selfee.eval.scoring.judgment import Label as Label
    from selfee.eval.scoring.judgment import Shown as Shown
    from selfee.eval.scoring.reading import Reading as Reading
    from selfee.eval.scoring.reading import read_reply as read_reply

__all__ = ["Form", "Judgment", "Label", "Reading", "Shown", "read_reply"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Form": "selfee.eval.scoring.judgment",
        "Judgment": "selfee.eval.scoring.judgment",
        "Label": "selfee.eval.scoring.judgment",
        "Reading": "selfee.eval.scoring.reading",
        "Shown": "selfee.eval.scoring.judgment",
        "read_reply": "selfee.eval.scoring.reading",
    },
)
