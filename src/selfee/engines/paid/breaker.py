"""A circuit breaker: where a server mostly fails, asking it stops for a while, and for good if that does not help."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from selfee.errors import UsageError


@dataclass(frozen=True)
class BreakerRules:
    """When to stop asking."""

    window: int = 40  # attempts looked back on
    share: float = 0.5  # of these that failed, from which on asking stops
    fewest: int = 10  # attempts before anything is judged
    pause: float = 5.0  # seconds; doubled with every pause that did not help
    pauses: int = 4  # after so many in a row, the run is stopped

    def __post_init__(self) -> None:
        if not 1 <= self.fewest <= self.window:
            raise UsageError(f"breaker: fewest is {self.fewest}; expected 1 to the window of {self.window}")
        if not 0 < self.share <= 1:
            raise UsageError(f"breaker: share is {self.share}; expected more than 0, at most 1")
        if self.pause < 0 or self.pauses < 0:
            raise UsageError(f"breaker: pause {self.pause}, pauses {self.pauses}; expected 0 or more")


class Breaker:
    """Closed (asking goes on), paused, trying with one request, or given up. Not for threads: its owner locks."""

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._recent: deque[str] = deque(maxlen=rules.window)  # kinds of failure, "" = it went well
        self._paused_until = 0.0
        self._pauses = 0  # in a row
        self._is_trying = False
        self.given_up: str | None = None  # why

    def wait(self, now: float) -> float | None:
        """Seconds until a request may go out; None: one is under way to try, wait for it."""
        if self._pauses == 0:
            return 0.0
        return None if self._is_trying else max(0.0, self._paused_until - now)

    def begin(self) -> bool:
        """A request goes out; whether it is the one that tries after a pause."""
        self._is_trying = self._pauses > 0
        return self._is_trying

    def succeeded(self) -> None:
        """A request came back well."""
        if self._pauses:  # also one that was under way before the pause
            self._recent.clear()
        self._pauses, self._is_trying = 0, False
        self._recent.append("")

    def failed(self, kind: str, now: float, *, tried: bool = False) -> None:
        """A request failed in a way that may be the server's fault; ``tried`` is what ``begin`` said of it."""
        self._recent.append(kind)
        failed = sum(1 for kind in self._recent if kind)
        if self._pauses:
            if tried:
                self._is_trying = False
                self._pause(now)
        elif failed >= max(self._rules.fewest, self._rules.share * len(self._recent)):
            self._pause(now)

    def turned_back(self, *, tried: bool = False) -> None:
        """A request ended without telling anything about the server."""
        if tried:
            self._is_trying = False

    def _pause(self, now: float) -> None:
        if self._pauses >= self._rules.pauses:
            kinds = Counter(kind for kind in self._recent if kind)
            told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            failed = sum(kinds.values())
            self.given_up = f"{failed} of the last {len(self._recent)} attempts failed ({told})"
            return
        self._paused_until = now + self._rules.pause * 2.0**self._pauses
        self._pauses += 1
