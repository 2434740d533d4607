"""Who computes now, who waits, and who is told to come again: as many jobs at a time as go through the model together."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from selfee.serve.protocol.errors import ApiError

_SMOOTHING = 0.2
_MOST_SECONDS = 120


class Admission:
    """Places to compute, and a line before them: the first come are the first served.

    Whoever is in line and gives up leaves it at once. A job's length is learned from those before it, for Retry-After.
    """

    def __init__(self, parallel: int, queue: int, per_key: int) -> None:
        self._parallel = parallel
        self._most_waiting = queue
        self._per_key = per_key
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._of_key: Counter[str] = Counter()
        self._seconds = 1.0  # that a job takes, about
        self.is_closed = False

    @property
    def running(self) -> int:
        """Jobs that compute."""
        return self._running

    @property
    def waiting(self) -> int:
        """Jobs in line."""
        return len(self._waiting)

    def check(self, key: str, count: int = 1) -> None:
        """Raise ApiError (429, 503) if ``count`` more jobs of this key cannot be taken on."""
        if self.is_closed:
            raise ApiError.stopping()
        if self._of_key[key] + count > self._per_key:
            raise ApiError.busy(
                f"{self._of_key[key]} requests of this client are under way, and {self._per_key} are allowed at a time",
                self.retry_after(),
            )
        free = self._parallel - self._running if not self._waiting else 0
        if count - max(free, 0) > self._most_waiting - len(self._waiting):
            raise ApiError.busy(
                f"{len(self._waiting)} requests wait already, which is all there is room for", self.retry_after()
            )

    def retry_after(self) -> int:
        """Seconds after which there will probably be room."""
        rounds = (len(self._waiting) + 1) / self._parallel
        return max(1, min(_MOST_SECONDS, math.ceil(rounds * self._seconds)))

    @asynccontextmanager
    async def place(self, key: str, on_position: Callable[[int], None] | None = None) -> AsyncIterator[None]:
        """A place to compute for the time of a ``with`` block; raises ApiError where there is not even one in line."""
        self.check(key)
        self._of_key[key] += 1
        try:
            await self._enter(on_position)
            started = time.monotonic()
            try:
                yield
            finally:
                seconds = time.monotonic() - started
                self._seconds += _SMOOTHING * (seconds - self._seconds)
                self._leave()
        finally:
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]

    async def _enter(self, on_position: Callable[[int], None] | None) -> None:
        if self._running < self._parallel and not self._waiting:
            self._running += 1
            if on_position is not None:
                on_position(0)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if on_position is not None:
            on_position(len(self._waiting))
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # the place came at the same moment
                self._leave()
            with suppress(ValueError):
                self._waiting.remove(turn)
            raise

    def _leave(self) -> None:
        """Hand the place to the next in line."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1
