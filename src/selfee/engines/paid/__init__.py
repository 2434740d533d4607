"""Replies that cost money: none is lost, none is paid for twice, none comes faster or dearer than allowed.

``journal_local`` and ``open_paid`` put a journal before any engine. Never knows what an answer or feedback is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.engines.paid.gate import GateRules as GateRules
    from selfee.engines.paid.journalled import JournalledEngine as JournalledEngine
    from selfee.engines.paid.journalled import journal_local as journal_local
    from selfee.engines.paid.limits import RateLimits as RateLimits
    from selfee.engines.paid.opening import PaidServer as PaidServer
    from selfee.engines.paid.opening import open_paid as open_paid
    from selfee.engines.paid.prices import Price as Price

__all__ = ["GateRules", "JournalledEngine", "PaidServer", "Price", "RateLimits", "journal_local", "open_paid"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "GateRules": "selfee.engines.paid.gate",
        "JournalledEngine": "selfee.engines.paid.journalled",
        "PaidServer": "selfee.engines.paid.opening",
        "Price": "selfee.engines.paid.prices",
        "RateLimits": "selfee.engines.paid.limits",
        "journal_local": "selfee.engines.paid.journalled",
        "open_paid": "selfee.engines.paid.opening",
    },
)
