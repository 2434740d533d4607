"""Several texts through the model in one pass: the weights are read once for all of them.

Whoever writes a text stays in a thread of its own, and needs to know nothing of the others: what its ``evaluate`` asks
for is gathered with what the others ask for, one of the waiting threads takes all of it through the model, and each
gets its rows. A text's logits have the same bits alone and in company (``Model.forward_many``), so it is the same text.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from selfee.llama.drafting import Draft
from selfee.llama.model import Model, Session
from selfee.llama.pace import Pace

Logits = npt.NDArray[np.float32]

_PIECE = 64
"""Tokens of prompts in a pass that others wait for: so a long prompt delays them by little, again and again."""

_PIECE_ALONE = 256  # where nobody waits yet: as many as go through the layers together

_PATIENCE = 0.25  # of the last pass's time: how long a pass waits for texts that are about to ask
_LEAST_PATIENCE, _MOST_PATIENCE = 0.0005, 0.01  # seconds


@dataclass(eq=False)
class _Work:
    """What one text asks for."""

    member: Member
    session: Session
    pending: list[int]
    draft: Draft
    asleep: threading.Condition
    rows: Logits | None = None
    error: Exception | None = None
    taken: bool = False  # in the pass that is under way
    guesses: int = 0  # of the draft, in this pass

    @property
    def is_done(self) -> bool:
        return self.rows is not None or self.error is not None


@dataclass
class _Pass:
    """What goes through the model together."""

    parts: list[tuple[_Work, list[int]]] = field(default_factory=list)  # with the tokens of each
    needed: int = 0  # tokens without guesses


class Company:
    """Gathers the texts that are written at the same time on one model. Threads may come and go."""

    def __init__(self, model: Model, pace: Pace | None = None) -> None:
        self._model = model
        self._pace = pace or Pace()
        self._lock = threading.Lock()
        self._waiting: list[_Work] = []
        self._expected: set[Member] = set()  # got their rows in a pass just now, and will probably ask again soon
        self._is_busy = False
        self._gathering: _Work | None = None
        self._seconds = 0.0  # of the last pass

    @property
    def pace(self) -> Pace:
        """What passes cost."""
        return self._pace

    @contextmanager
    def join(self, session: Session) -> Iterator[Member]:
        """Take part with a session for the time of a ``with`` block; the others wait for nobody who has left."""
        member = Member(self, session)
        try:
            yield member
        finally:
            with self._lock:
                self._leave(member)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Nothing goes through the model for the time of a ``with`` block: sessions of others may be read."""
        quiet = threading.Condition(self._lock)
        with self._lock:
            while self._is_busy:
                quiet.wait(0.001)
            self._is_busy = True
        try:
            yield
        finally:
            with self._lock:
                self._is_busy = False
                self._wake_next()

    def _leave(self, member: Member) -> None:
        self._expected.discard(member)
        if self._gathering is not None:
            self._gathering.asleep.notify()

    def _ask(self, work: _Work) -> Logits:
        with self._lock:
            self._waiting.append(work)
            self._leave(work.member)
            try:
                while not work.is_done:
                    if self._is_busy or self._gathering is not None or self._waiting[0] is not work:
                        work.asleep.wait()
                    else:
                        self._lead(work)
            finally:
                while work.taken:  # interrupted while somebody else computes with this session
                    work.asleep.wait()
                if work in self._waiting:
                    self._waiting.remove(work)
                self._wake_next()
        if work.error is not None:
            raise work.error
        assert work.rows is not None, "the loop ended"
        return work.rows

    def _lead(self, own: _Work) -> None:
        """Take what everybody waits for through the model. Called and left with the lock held."""
        self._gather(own)
        todo = self._assemble()
        for work, _ in todo.parts:
            work.taken = True
        self._is_busy = True
        self._lock.release()
        started = time.perf_counter()
        failed: Exception | None = None
        rows: list[Logits] = []
        try:
            rows = self._forward(todo)
        except Exception as error:
            failed = error
        finally:
            self._seconds = time.perf_counter() - started
            self._lock.acquire()
            self._is_busy = False
            for work, _ in todo.parts:
                work.taken = False
        if failed is not None:
            self._fail(todo, failed)
        else:
            self._deliver(todo, rows)
        self._wake_next()

    def _gather(self, own: _Work) -> None:
        """Wait a little for texts that got their tokens in the last pass and are about to ask for the next."""
        patience = min(max(_PATIENCE * self._seconds, _LEAST_PATIENCE), _MOST_PATIENCE)
        until = time.perf_counter() + patience
        self._gathering = own
        try:
            while self._expected and (left := until - time.perf_counter()) > 0:
                own.asleep.wait(left)
        finally:
            self._gathering = None
            self._expected.clear()  # whoever has not come is not waited for again before it asks

    def _assemble(self) -> _Pass:
        todo = _Pass()
        room = _PIECE if len(self._waiting) > 1 else _PIECE_ALONE
        sizes = {}
        for work in self._waiting:
            sizes[work] = 1 if len(work.pending) == 1 else min(len(work.pending), room)
            room -= sizes[work] if len(work.pending) > 1 else 0
        ready = [work for work in self._waiting if sizes[work] == len(work.pending)]
        todo.needed = sum(sizes.values())
        lengths = self._pace.choose(todo.needed, [work.draft.chances for work in ready])
        for work, length in zip(ready, lengths, strict=True):
            work.guesses = length
        for work in self._waiting:
            if sizes[work] == 0:
                continue
            tokens = work.pending[: sizes[work]]
            if sizes[work] == len(work.pending):
                tokens = [*tokens, *work.draft.tokens[: work.guesses]]
            todo.parts.append((work, tokens))
        return todo

    def _forward(self, todo: _Pass) -> list[Logits]:
        if len(todo.parts) == 1:  # which a signal may interrupt, and which costs a little less
            work, tokens = todo.parts[0]
            return [work.session.forward(tokens, _rows(work, tokens))]
        return self._model.forward_many([(work.session, tokens, _rows(work, tokens)) for work, tokens in todo.parts])

    def _deliver(self, todo: _Pass, rows: Sequence[Logits]) -> None:
        for (work, tokens), own in zip(todo.parts, rows, strict=True):
            if _rows(work, tokens) == 0:
                del work.pending[: len(tokens)]
                continue
            work.rows = own
            if todo.needed == len(todo.parts):  # no prompts
                size = sum(len(tokens) for _, tokens in todo.parts)
                work.member._pass = (size, self._seconds, len(todo.parts))
            self._waiting.remove(work)
            self._expected.add(work.member)
            work.asleep.notify()

    def _fail(self, todo: _Pass, error: Exception) -> None:
        """A pass failed, and no session has changed: whose fault it was shows when each is tried alone."""
        if len(todo.parts) == 1:
            work = todo.parts[0][0]
            work.error = error
            self._waiting.remove(work)
            work.asleep.notify()
            return
        for work, tokens in todo.parts:
            try:
                rows = [work.session.forward(tokens, _rows(work, tokens))]
            except Exception as own:
                self._fail(_Pass([(work, tokens)]), own)
            else:
                self._deliver(_Pass([(work, tokens)]), rows)

    def _wake_next(self) -> None:
        if self._waiting and not self._is_busy and self._gathering is None:
            self._waiting[0].asleep.notify()


class Member:
    """One text's place in a company; implements ``selfee.llama.generate.Evaluator``."""

    def __init__(self, company: Company, session: Session) -> None:
        self._company = company
        self._session = session
        self._asleep = threading.Condition(company._lock)
        self._pass: tuple[int, float, int] | None = None  # of the last one: tokens, seconds, texts

    def evaluate(self, pending: Sequence[int], draft: Draft) -> Logits:
        """See ``Evaluator.evaluate``."""
        self._pass = None
        return self._company._ask(_Work(self, self._session, list(pending), draft, self._asleep))

    def report(self, tokens: int) -> None:
        """See ``Evaluator.report``."""
        if self._pass is not None:
            size, seconds, texts = self._pass
            self._company.pace.observe(size, seconds, tokens, 1 / texts)


def _rows(work: _Work, tokens: Sequence[int]) -> int:
    """Logits that a part's result needs: none before the last piece of a prompt."""
    return work.guesses + 1 if len(tokens) >= len(work.pending) else 0
