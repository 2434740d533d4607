"""Lends sessions to requests, and reuses what they already hold: the longest beginning that any of them shares.

What a session holds is a pure function of its tokens, so reuse changes the time a request takes and nothing else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from selfee.errors import UsageError

_WORTH_KEEPING = 16
"""Tokens after the shared beginning for which a session is left as it is, if there may be another one."""

_WORTH_COPYING = 16
"""Tokens more than a session shares itself for which it is given another's beginning, and everybody pauses."""


class Session(Protocol):
    """A key-value cache on a model: ``length`` tokens are evaluated."""

    @property
    def length(self) -> int: ...

    def truncate(self, length: int) -> None:
        """Keep this many tokens."""
        ...

    def forward(
        self, tokens: Sequence[int], logits_for: Literal["last", "all"] | int = "last"
    ) -> npt.NDArray[np.float32]:
        """Evaluate tokens after those held; raw logits [1, len(tokens) or the number given, vocabulary]."""
        ...

    def copy_from(self, other: Self, length: int) -> None:
        """Hold the first ``length`` tokens of another. Raises UsageError while that one is computing."""
        ...


S = TypeVar("S", bound=Session)


@dataclass(eq=False)
class HeldSession(Generic[S]):
    """A session and the tokens it holds (the first ``session.length`` of ``tokens``)."""

    session: S
    tokens: list[int] = field(default_factory=list)
    scope: str = ""  # of the request it was lent to last

    def align(self, tokens: Sequence[int], keep_at_most: int) -> int:
        """Drop everything after the longest beginning shared with ``tokens``; returns how many tokens are kept."""
        shared = min(self.shared(tokens), keep_at_most)
        self.session.truncate(shared)
        self.tokens = list(tokens)
        return shared

    def shared(self, tokens: Sequence[int]) -> int:
        """How many tokens at the beginning are the same."""
        return count_shared(self.tokens[: self.session.length], tokens)


class SessionPool(Generic[S]):
    """Lends a session to each of up to ``parallel`` requests; further ones wait, the first come first.

    Between requests up to ``2 * parallel`` sessions are kept (two conversations for each chain: the author's and the
    critic's), together no more than ``most_tokens``; the least recently used go first. ``quiet`` makes a context in
    which no session computes, so that one in use may be copied. A request made by a thread that is itself in the middle
    of another (two open streams, alternating) gets a session beyond the number, because waiting would never end.
    """

    def __init__(
        self,
        make: Callable[[], S],
        parallel: int = 1,
        most_tokens: int | None = None,
        quiet: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._make = make
        self._parallel = parallel
        self._most_tokens = most_tokens
        self._quiet = quiet
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._idle: list[HeldSession[S]] = []  # the least recently used first
        self._lent: dict[HeldSession[S], int] = {}  # with the thread that asked for it
        self._private: set[HeldSession[S]] = set()  # lent, and not to be copied
        self._latest: HeldSession[S] | None = None

    @contextmanager
    def borrow(self, tokens: Sequence[int] = (), *, copied: bool = True, scope: str = "") -> Iterator[HeldSession[S]]:
        """A session for the time of a ``with`` block, which may end in another thread.

        It holds as much of the beginning of ``tokens`` as any session here did; ``HeldSession.align`` drops the rest.
        ``copied`` False: others do not copy from it meanwhile; for whoever computes whether it is ``quiet`` or not.
        Nothing that a request of another ``scope`` left is used.
        """
        held, is_worth_copying = self._take(tokens, copied, scope)
        try:
            if is_worth_copying:
                self._copy(held, tokens)
            yield held
        finally:
            self._give_back(held)

    def adopt(self, held: HeldSession[S]) -> None:
        """Keep a session made elsewhere, as if it had been used last."""
        with self._changed:
            self._keep(held)

    @contextmanager
    def borrow_latest(self) -> Iterator[HeldSession[S] | None]:
        """The session used last, as it stands, for the time of a ``with`` block; None if there is none yet.

        Waits while it is lent, unless this very thread has it.
        """
        with self._changed:
            while (
                self._latest is not None
                and self._lent.get(self._latest, threading.get_ident()) != threading.get_ident()
            ):
                self._changed.wait()
            held = self._latest
            is_lent_anew = held is not None and held not in self._lent
            if held is not None and is_lent_anew:
                self._idle.remove(held)
                self._lent[held] = threading.get_ident()
                self._private.add(held)
        try:
            yield held
        finally:
            if held is not None and is_lent_anew:
                self._give_back(held)

    def _take(self, tokens: Sequence[int], copied: bool, scope: str) -> tuple[HeldSession[S], bool]:
        """A session, and whether another holds more of ``tokens``."""
        me, ticket = threading.get_ident(), object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while me not in self._lent.values() and (
                    self._queue[0] is not ticket or len(self._lent) >= self._parallel
                ):
                    self._changed.wait()
                held = self._choose(tokens, scope)
                if held.scope != scope:
                    held.tokens, held.scope = [], scope
                self._lent[held] = me
                if not copied:
                    self._private.add(held)
                self._latest = held
                source = self._source(held, tokens)
                return held, source is not None
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _choose(self, tokens: Sequence[int], scope: str) -> HeldSession[S]:
        own = [held for held in self._idle if held.scope == scope]
        best = max(own, key=lambda held: held.shared(tokens), default=None)
        shared = 0 if best is None else best.shared(tokens)
        if best is not None and best.session.length - shared < _WORTH_KEEPING:
            self._idle.remove(best)
            return best
        if not self._idle or len(self._idle) + len(self._lent) < 2 * self._parallel:
            return HeldSession(self._make(), scope=scope)
        return self._idle.pop(0)

    def _source(self, target: HeldSession[S], tokens: Sequence[int]) -> HeldSession[S] | None:
        """The session with the longest beginning of ``tokens``, if it is much longer than the target's own."""
        known = (*self._idle, *self._lent)
        others = [held for held in known if held is not target and held not in self._private]
        others = [held for held in others if held.scope == target.scope]
        source = max(others, key=lambda held: held.shared(tokens), default=None)
        if source is None or source.shared(tokens) - target.shared(tokens) < _WORTH_COPYING:
            return None
        return source

    def _copy(self, target: HeldSession[S], tokens: Sequence[int]) -> None:
        """Give a session that is lent the longest beginning of ``tokens`` that any has.

        It is waited for quiet first, and only then for the sessions: whoever computes may want to give one back.
        """
        with self._quiet(), self._changed:
            source = self._source(target, tokens)
            if source is None:
                return
            shared = source.shared(tokens)
            with suppress(UsageError):  # one that is being read is not copied
                target.session.copy_from(source.session, shared)
                target.tokens = list(tokens[:shared])

    def _give_back(self, held: HeldSession[S]) -> None:
        with self._changed:
            del self._lent[held]
            self._private.discard(held)
            self._keep(held)
            self._changed.notify_all()

    def _keep(self, held: HeldSession[S]) -> None:
        self._idle = [*(other for other in self._idle if other is not held), held]
        self._latest = held
        while len(self._idle) > 1 and self._is_too_much():
            self._idle.pop(0)

    def _is_too_much(self) -> bool:
        held = (*self._idle, *self._lent)
        tokens = sum(each.session.length for each in held)
        return len(held) > 2 * self._parallel or (self._most_tokens is not None and tokens > self._most_tokens)


def count_shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    for index, (one, other) in enumerate(zip(first, second)):
        if one != other:
            return index
    return min(len(first), len(second))
