"""Who computes now, who waits, who is told to come again: so many jobs at a time as go through the model together."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType

from selfee.serve.protocol.errors import ApiError

_SMOOTHING = 0.2
_MOST_SECONDS = 120

OnPosition = Callable[[int], None]
"""Told the position in line when it is taken up: 1 = next."""


class Admission:
    """Places to compute, and a line before them: the first come are the first served.

    Whoever is in line and gives up leaves it at once. A job's length is learned from those before it, for Retry-After.
    """

    def __init__(self, parallel: int, queue: int, per_key: int) -> None:
        self._parallel = parallel
        self._most_waiting = queue
        self._per_key = per_key
        self._running = 0
        self._waiting: deque[Ticket] = deque()
        self._of_key: Counter[str] = Counter()
        self._seconds = 1.0  # that a job takes, about
        self.is_closed = False

    @property
    def running(self) -> int:
        """Jobs that have a place."""
        return self._running

    @property
    def waiting(self) -> int:
        """Jobs in line."""
        return len(self._waiting)

    def tickets(self, key: str, count: int = 1) -> list[Ticket]:
        """Places, or places in line, for ``count`` jobs of this key, all or none. Release each, also if never entered.

        Raises ApiError (429, 503) if they cannot be taken on.
        """
        if self.is_closed:
            raise ApiError.stopping()
        if self._of_key[key] + count > self._per_key:
            raise ApiError.busy(
                f"{self._of_key[key]} requests of this client are under way, and {self._per_key} are allowed at a time",
                self.retry_after(),
            )
        free = 0 if self._waiting else self._parallel - self._running
        if count - free > self._most_waiting - len(self._waiting):
            found = f"{len(self._waiting)} requests wait already, and there is room for {self._most_waiting}"
            raise ApiError.busy(found, self.retry_after())
        self._of_key[key] += count
        return [self._take(key) for _ in range(count)]

    def retry_after(self) -> int:
        """Seconds after which there will probably be room."""
        rounds = (len(self._waiting) + 1) / self._parallel
        return max(1, min(_MOST_SECONDS, math.ceil(rounds * self._seconds)))

    def _take(self, key: str) -> Ticket:
        ticket = Ticket(self, key, asyncio.get_running_loop().create_future())
        if self._running < self._parallel and not self._waiting:
            self._running += 1
            ticket.turn.set_result(None)
        else:
            self._waiting.append(ticket)
        return ticket

    def position(self, ticket: Ticket) -> int:
        """0 = it has a place, 1 = it is next in line."""
        return 0 if ticket.turn.done() else self._waiting.index(ticket) + 1

    def release(self, ticket: Ticket, seconds: float | None) -> None:
        """Give a place back, or leave the line; ``seconds`` is how long the job took."""
        self._of_key[ticket.key] -= 1
        if not self._of_key[ticket.key]:
            del self._of_key[ticket.key]
        if seconds is not None:
            self._seconds += _SMOOTHING * (seconds - self._seconds)
        if ticket in self._waiting:
            self._waiting.remove(ticket)
            return
        while self._waiting:
            following = self._waiting.popleft()
            if not following.turn.done():
                following.turn.set_result(None)
                return
        self._running -= 1


class Ticket:
    """One job's place, or place in line. ``async with`` waits for the turn and releases it."""

    def __init__(self, admission: Admission, key: str, turn: asyncio.Future[None]) -> None:
        self.key = key
        self.turn = turn
        self._admission = admission
        self._is_released = False
        self._began: float | None = None

    @property
    def position(self) -> int:
        """0 = its turn has come, 1 = it is next."""
        return self._admission.position(self)

    def release(self) -> None:
        """Give it back; once is enough."""
        if not self._is_released:
            self._is_released = True
            self._admission.release(self, None if self._began is None else time.monotonic() - self._began)

    async def __aenter__(self) -> None:
        try:
            await asyncio.shield(self.turn)
        except BaseException:
            self.release()
            raise
        self._began = time.monotonic()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
