"""When to ask a server again, and how long to wait before."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from selfee.errors import EngineError, SelfeeError

T = TypeVar("T")

RETRYABLE_STATUSES = frozenset({408, 409, 429, 529}) | frozenset(range(500, 600)) - {501, 505}
"""HTTP statuses after which the same request may succeed; 529 is load shedding (serving.md §2)."""


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential back-off with jitter, bounded in number and time. Seconds throughout."""

    attempts: int = 4  # the first one included
    first_delay: float = 0.5
    max_delay: float = 30.0
    deadline: float = 120.0  # no wait goes beyond this, counted from the first attempt

    def delay(self, failures: int, retry_after: float | None, uniform: Callable[[float, float], float]) -> float:
        """How long to wait after that many failures: what the server asks for, else a doubling delay; plus jitter."""
        if retry_after is not None:
            return retry_after + uniform(0.0, 0.1 * min(retry_after, 1.0))
        longest = min(self.max_delay, self.first_delay * 2.0 ** (failures - 1))
        return uniform(0.5 * longest, longest)


class RefusedError(Exception):
    """One attempt failed with ``error``; ``again`` says whether another may be made, ``retry_after`` when."""

    def __init__(self, error: SelfeeError, *, again: bool, retry_after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.again = again
        self.retry_after = retry_after


def call_with_retries(
    policy: RetryPolicy,
    attempt: Callable[[], T],
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    uniform: Callable[[float, float], float] = random.uniform,
) -> T:
    """Call ``attempt`` until it does not raise RefusedError; raises the last one's error when giving up."""
    started = clock()
    for failures in range(1, policy.attempts + 1):
        try:
            return attempt()
        except RefusedError as refused:
            if not refused.again or policy.attempts == 1:  # of a single attempt nobody gave up
                raise refused.error from refused.__cause__
            delay = policy.delay(failures, refused.retry_after, uniform)
            waited = clock() - started
            if failures == policy.attempts:
                why = f"gave up after {failures} attempts in {waited:.1f} s"
            elif waited + delay > policy.deadline:
                why = f"the next attempt would have to wait {delay:.0f} s; allowed are {policy.deadline:.0f} s in all"
            else:
                sleep(delay)
                continue
            raise EngineError(f"{refused.error}; {why}", retryable=True) from refused.error
    raise AssertionError("a policy makes at least one attempt")


def parse_retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds the server asks to wait: ``retry-after-ms``, or ``retry-after`` as seconds or an HTTP date.

    RFC 9110 §10.2.3. None if absent or unreadable; never negative. ``headers`` must be keyed in lower case or
    case-insensitive.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if value.replace(".", "", 1).isdecimal() and value.isascii():
            return float(value) * scale
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now())
    except (ValueError, OverflowError):
        return None
