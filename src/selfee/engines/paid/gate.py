"""The one door that every paid request goes through: rate limits, concurrency, budget, breaker, several keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from selfee.engines.paid.breaker import Breaker, BreakerRules
from selfee.engines.paid.faults import Fault
from selfee.engines.paid.limits import Concurrency, KeyPace, RateLimits, exhausted_for
from selfee.errors import StoppedError, UsageError

_LOOK_AGAIN = 0.5  # seconds; nothing waits longer without looking around


@dataclass(frozen=True)
class GateRules:
    """What goes through the door."""

    rates: RateLimits = field(default_factory=RateLimits)  # of each key
    concurrency: int = 64  # requests under way at most
    start_concurrency: int = 8  # with which to begin; it finds its own height from there
    breaker: BreakerRules = field(default_factory=BreakerRules)
    max_cost: float | None = None  # US dollars, what was spent before included; None = no limit

    def __post_init__(self) -> None:
        for name in ("concurrency", "start_concurrency"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: {getattr(self, name)}; expected 1 or more")
        if self.max_cost is not None and not self.max_cost >= 0:  # also false for NaN
            raise UsageError(f"max_cost: {self.max_cost}; expected 0 or more")


@dataclass(frozen=True)
class Pass:
    """The right to send one request."""

    key: int  # which of the keys to use
    tokens: float  # that it was thought to take
    cost: float  # that it was thought to have
    started: float
    is_trial: bool  # after a pause of the breaker


class Gate:
    """Lets requests through one by one. ``spent`` is what the journal says was spent before."""

    def __init__(
        self,
        rules: GateRules,
        keys: Sequence[str] = ("",),
        *,
        spent: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        now = clock()
        self._rules = rules
        self._clock = clock
        self._names = tuple(keys)
        self._keys = [KeyPace(rules.rates, now) for _ in keys]
        self._concurrency = Concurrency(rules.concurrency, rules.start_concurrency)
        self._breaker = Breaker(rules.breaker)
        self._turnstile = threading.Lock()  # one waits in front, the others behind: no herd wakes at each reply
        self._changed = threading.Condition()
        self._stopped: str | None = None
        self._in_flight = 0
        self._expected = 0.0  # cost of what is in flight
        self._next_key = 0
        self.spent = spent
        self.waits_for = ""  # what holds the next request up, in a word

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._in_flight

    @property
    def limit(self) -> int:
        """Requests allowed at a time now."""
        return self._concurrency.limit

    @property
    def keys_left(self) -> int:
        """Keys that still work."""
        return sum(not key.is_out for key in self._keys)

    @property
    def stopped(self) -> str | None:
        """Why nothing more goes through; None = it does."""
        return self._stopped

    def stop(self, why: str) -> None:
        """Let nothing more through; what is under way may end."""
        with self._changed:
            self._stopped = self._stopped or why
            self._changed.notify_all()

    def enter(self, tokens: float, cost: float = 0.0) -> Pass:
        """Wait until a request of about so many tokens and dollars may go out. Raises StoppedError."""
        with self._turnstile, self._changed:
            while True:
                if self._stopped is not None:
                    raise StoppedError(self._stopped)
                now = self._clock()
                wait, key = self._hindrance(tokens, cost, now)
                if wait == 0.0:
                    break
                self._changed.wait(_LOOK_AGAIN if wait is None else min(wait, _LOOK_AGAIN))
            self.waits_for = ""
            self._keys[key].take(tokens, now)
            self._in_flight += 1
            self._expected += cost
            self._next_key = key + 1
            return Pass(key, tokens, cost, now, self._breaker.begin())

    def succeeded(self, entry: Pass, tokens: float, cost: float, headers: Mapping[str, str]) -> None:
        """A request brought a reply that took so many tokens and dollars."""
        with self._leave(entry, tokens):
            self.spent += cost
            self._breaker.succeeded()
            self._concurrency.succeeded(self._in_flight)
            self._heed(entry.key, exhausted_for(headers))

    def failed(self, entry: Pass, fault: Fault, headers: Mapping[str, str]) -> None:
        """A request brought none."""
        with self._leave(entry, entry.tokens if fault.is_uncertain else 0.0):
            now = self._clock()
            if fault.counts:
                self._breaker.failed(fault.kind, now, tried=entry.is_trial)
            else:
                self._breaker.turned_back(tried=entry.is_trial)
            if fault.is_overload:
                self._concurrency.overloaded(entry.started, now)
            self._heed(entry.key, fault.retry_after or exhausted_for(headers))
            if fault.spoils_key:
                self._keys[entry.key].is_out = True
            if self._breaker.given_up:
                self._stopped = self._stopped or f"stopped: {self._breaker.given_up}"
            elif not self.keys_left:
                self._stopped = self._stopped or f"stopped: no key is left that the server accepts: {fault.message}"

    def left(self, entry: Pass) -> None:
        """A request was given up by our own side."""
        with self._leave(entry, entry.tokens):
            self._breaker.turned_back(tried=entry.is_trial)

    def sleep(self, seconds: float) -> None:
        """Wait before another attempt. Raises StoppedError if everything is stopped meanwhile."""
        until = self._clock() + seconds
        with self._changed:
            while self._stopped is None and (left := until - self._clock()) > 0:
                self._changed.wait(min(left, _LOOK_AGAIN))
            if self._stopped is not None:
                raise StoppedError(self._stopped)

    def _leave(self, entry: Pass, tokens: float) -> _Leaving:
        return _Leaving(self, entry, tokens)

    def _heed(self, key: int, seconds: float | None) -> None:
        if seconds:
            self._keys[key].pause(seconds, self._clock())

    def _hindrance(self, tokens: float, cost: float, now: float) -> tuple[float | None, int]:
        """Seconds to wait (None: until something changes), and the key to use if there is nothing to wait for."""
        most = self._rules.max_cost
        if most is not None and self.spent + self._expected + cost > most:
            if not self._in_flight:
                self._stopped = (
                    f"stopped: ${self.spent:.4f} of --max-cost ${most:.4f} are spent, and the next request would cost "
                    f"about ${cost:.4f}"
                )
                return 0.001, 0
            self.waits_for = "budget"
            return None, 0
        if self._in_flight >= self._concurrency.limit:
            self.waits_for = "replies"
            return None, 0
        pause = self._breaker.wait(now)
        if pause is None or pause > 0:
            self.waits_for = "server to recover"
            return pause, 0
        waits = [(pace.wait(tokens, now), number) for number, pace in enumerate(self._keys) if not pace.is_out]
        wait, number = min(waits, key=lambda entry: (entry[0], (entry[1] - self._next_key) % len(self._keys)))
        if wait > 0:
            self.waits_for = "rate limit"
        return wait, number


class _Leaving:
    """Takes the lock, notes that a request is over, and wakes who waits in front."""

    def __init__(self, gate: Gate, entry: Pass, tokens: float) -> None:
        self._gate, self._entry, self._tokens = gate, entry, tokens

    def __enter__(self) -> None:
        gate, entry = self._gate, self._entry
        gate._changed.acquire()
        gate._in_flight -= 1
        gate._expected = max(0.0, gate._expected - entry.cost) if gate._in_flight else 0.0
        gate._keys[entry.key].settle(self._tokens - entry.tokens, gate._clock())

    def __exit__(self, *_: object) -> None:
        self._gate._changed.notify_all()
        self._gate._changed.release()
