"""What a run has done so far, in numbers: for screens and logs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from selfee.engines.paid.faults import Fault
from selfee.engines.paid.reply import Reply


@dataclass(frozen=True)
class Reading:
    """The numbers at one moment."""

    paid: int = 0  # replies that a call brought
    replayed: int = 0  # replies that the journal had
    in_flight: int = 0
    prompt_tokens: int = 0  # of replies that a call brought
    completion_tokens: int = 0
    cost: float = 0.0  # US dollars of this run
    spent: float = 0.0  # US dollars of all runs with this journal
    faults: dict[str, int] = field(default_factory=dict)  # attempts without a reply, by kind
    orphaned: int = 0  # calls asked again because a process was killed while it waited for the reply
    limit: int = 0  # requests allowed at a time
    waits_for: str = ""
    last_fault: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))


class Meter:
    """Counts, from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._cost = 0.0
        self._last_fault = ""
        self.started = time.monotonic()

    def paid(self, reply: Reply) -> None:
        """A call brought a reply."""
        with self._lock:
            self._numbers["paid"] += 1
            self._cost += reply.cost or 0.0
            if reply.usage is not None:
                self._numbers["prompt_tokens"] += reply.usage.prompt_tokens
                self._numbers["completion_tokens"] += reply.usage.completion_tokens

    def replayed(self) -> None:
        """The journal had the reply."""
        with self._lock:
            self._numbers["replayed"] += 1

    def orphaned(self) -> None:
        """A call is asked again that a killed process may have paid for."""
        with self._lock:
            self._numbers["orphaned"] += 1

    def failed(self, fault: Fault) -> None:
        """An attempt brought no reply."""
        with self._lock:
            self._faults[fault.kind] += 1
            self._last_fault = f"{fault.kind}: {fault.message}"

    def read(self, *, in_flight: int = 0, limit: int = 0, waits_for: str = "", spent: float = 0.0) -> Reading:
        """The numbers now."""
        with self._lock:
            return Reading(
                **{name: self._numbers[name] for name in ("paid", "replayed", "orphaned")},
                **{name: self._numbers[name] for name in ("prompt_tokens", "completion_tokens")},
                cost=self._cost,
                spent=spent,
                faults=dict(sorted(self._faults.items())),
                in_flight=in_flight,
                limit=limit,
                waits_for=waits_for,
                last_fault=self._last_fault,
            )
