"""How fast and how many at a time: requests and tokens a minute, and concurrency that finds its own height."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from selfee.errors import UsageError

_REQUEST_BURST = 0.25  # seconds of the rate that may go out at once after a quiet time
_TOKEN_BURST = 1.0
_NOTHING = 1e-6  # of a request or token: what is missing by rounding alone


@dataclass(frozen=True)
class RateLimits:
    """What one key may ask in a minute. None = no limit known."""

    requests: float | None = None
    tokens: float | None = None

    def __post_init__(self) -> None:
        for name in ("requests", "tokens"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} a minute: {value}; expected more than 0, or nothing for no limit")


class Bucket:
    """Refills steadily; what is taken may exceed what is there once, and is then owed."""

    def __init__(self, per_minute: float, burst_seconds: float, smallest: float, now: float) -> None:
        self._rate = per_minute / 60.0
        self._capacity = max(smallest, self._rate * burst_seconds)
        self._level = self._capacity
        self._at = now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much may be taken."""
        self._refill(now)
        missing = min(amount, self._capacity) - self._level
        return missing / self._rate if missing > _NOTHING else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take, or give back what is negative."""
        self._refill(now)
        self._level -= amount

    def _refill(self, now: float) -> None:
        grown = self._level + (now - self._at) * self._rate
        # What was given back stays although it exceeds the capacity: it was taken before.
        self._level = max(self._level, min(self._capacity, grown))
        self._at = now


class KeyPace:
    """One key's buckets and pauses."""

    def __init__(self, limits: RateLimits, now: float) -> None:
        self._requests = None
        self._tokens = None
        if limits.requests is not None:
            self._requests = Bucket(limits.requests, _REQUEST_BURST, 1.0, now)
        if limits.tokens is not None:
            self._tokens = Bucket(limits.tokens, _TOKEN_BURST, 1.0, now)
        self.paused_until = 0.0
        self.is_out = False  # the server refuses this key for good

    def wait(self, tokens: float, now: float) -> float:
        """Seconds until a request of so many tokens may go out."""
        waits = [self.paused_until - now, 0.0]
        if self._requests is not None:
            waits.append(self._requests.wait(1.0, now))
        if self._tokens is not None:
            waits.append(self._tokens.wait(tokens, now))
        return max(waits)

    def take(self, tokens: float, now: float) -> None:
        """A request goes out."""
        if self._requests is not None:
            self._requests.take(1.0, now)
        self.settle(tokens, now)

    def settle(self, tokens: float, now: float) -> None:
        """A request took so many more tokens than was thought (fewer if negative)."""
        if self._tokens is not None:
            self._tokens.take(tokens, now)

    def pause(self, seconds: float, now: float) -> None:
        """Send nothing for so long."""
        self.paused_until = max(self.paused_until, now + seconds)


class Concurrency:
    """How many requests are under way at most: more while all goes well, half as many when the server is overloaded.

    Doubles with every round until the first trouble, afterwards grows by one a round (AIMD, as TCP does).
    """

    def __init__(self, most: int, start: int = 8) -> None:
        if most < 1:
            raise UsageError(f"concurrency: {most}; expected 1 or more")
        self.most = most
        self._limit = float(min(start, most))
        self._is_starting = True
        self._cut_at = -math.inf

    @property
    def limit(self) -> int:
        """How many are allowed now."""
        return max(1, int(self._limit))

    def succeeded(self, in_flight: int) -> None:
        """A request came back well, while so many were under way: a limit that was not reached proves nothing."""
        if in_flight + 1 >= self.limit:
            self._limit = min(float(self.most), self._limit + (1.0 if self._is_starting else 1.0 / self._limit))

    def overloaded(self, started: float, now: float) -> None:
        """A request begun at ``started`` was turned away; those begun before the last cut tell nothing new."""
        self._is_starting = False
        if started >= self._cut_at:
            self._limit = max(1.0, self._limit / 2.0)
            self._cut_at = now


def exhausted_for(headers: Mapping[str, str]) -> float | None:
    """Seconds until a spent allowance is filled again, as ``x-ratelimit-*`` headers tell; None if some is left.

    Durations look like ``1s``, ``6m0s``, ``20ms``, or are plain seconds.
    """
    waits = []
    for kind in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{kind}", "").strip() == "0":
            wait = parse_duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
            if wait is not None:
                waits.append(wait)
    return max(waits, default=None)


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_LONGEST = 7 * 86400.0


def parse_duration(text: str) -> float | None:
    """Seconds of ``1h2m3.5s``, ``20ms`` or ``12``; None for anything else, or for more than a week."""
    text = text.strip().lower()
    if text[-1:].isdecimal():
        text += "s"
    if not text or _PART.sub("", text):
        return None
    total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    return total if total <= _LONGEST else None
