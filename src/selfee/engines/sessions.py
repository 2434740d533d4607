"""Lends the one kept session to one request at a time, and reuses what it already holds.

What a session holds is a pure function of its tokens, so reuse changes the time a request takes and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt


class Session(Protocol):
    """A key-value cache on a model: ``length`` tokens are evaluated."""

    @property
    def length(self) -> int: ...

    def truncate(self, length: int) -> None:
        """Keep this many tokens."""
        ...

    def forward(self, tokens: Sequence[int], logits_for: Literal["last", "all"] = "last") -> npt.NDArray[np.float32]:
        """Evaluate tokens after those held; raw logits [1 or len(tokens), vocabulary]."""
        ...


S = TypeVar("S", bound=Session)


@dataclass
class HeldSession(Generic[S]):
    """A session and the tokens it holds (the first ``session.length`` of ``tokens``)."""

    session: S
    tokens: list[int] = field(default_factory=list)

    def align(self, tokens: Sequence[int], keep_at_most: int) -> int:
        """Drop everything after the longest beginning shared with ``tokens``; returns how many tokens are kept."""
        held = self.tokens[: self.session.length]
        shared = min(count_shared(held, tokens), keep_at_most)
        self.session.truncate(shared)
        self.tokens = list(tokens)
        return shared


class SessionKeeper(Generic[S]):
    """Keeps one session between requests. Requests of other threads wait until the one in work has ended.

    A request made by the thread that is itself in the middle of another (two open streams, alternating) gets a session
    of its own for its time, because waiting would never end.
    """

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._kept: HeldSession[S] | None = None
        self._owner: int | None = None

    @contextmanager
    def borrow(self) -> Iterator[HeldSession[S]]:
        """The kept session for the time of a ``with`` block, which may end in another thread."""
        if self._owner == threading.get_ident():  # only this thread can have set that
            yield HeldSession(self._make())
            return
        with self._lock:
            self._owner = threading.get_ident()
            try:
                if self._kept is None:
                    self._kept = HeldSession(self._make())
                yield self._kept
            finally:
                self._owner = None

    @contextmanager
    def borrow_latest(self) -> Iterator[HeldSession[S] | None]:
        """The session used last, as it stands, for the time of a ``with`` block; None if there is none yet."""
        if self._owner == threading.get_ident():  # in the middle of a request, between two of its steps
            yield self._kept
            return
        with self._lock:
            yield self._kept

    def adopt(self, held: HeldSession[S]) -> None:
        """Keep a session made elsewhere, as if it had been used last. A request in work ends on its own."""
        if self._owner == threading.get_ident():
            self._kept = held
            return
        with self._lock:
            self._kept = held


def count_shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    for index, (one, other) in enumerate(zip(first, second)):
        if one != other:
            return index
    return min(len(first), len(second))
