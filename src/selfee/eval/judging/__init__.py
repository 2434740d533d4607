"""Let models judge answers: both orders, in any form, with templates old and new; no reply is paid for twice.

``plan_pairs`` says what is to be asked, ``judge_items`` asks it. Never sums anything up: that is the room beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.eval.judging.asking import AskRules as AskRules
    from selfee.eval.judging.items import Item as Item
    from selfee.eval.judging.run import judge_items as judge_items
    from selfee.eval.judging.templates import Template as Template

__all__ = ["AskRules", "Item", "Template", "judge_items"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AskRules": "selfee.eval.judging.asking",
        "Item": "selfee.eval.judging.items",
        "Template": "selfee.eval.judging.templates",
        "judge_items": "selfee.eval.judging.run",
    },
)
