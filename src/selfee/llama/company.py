"""Several texts through the model in one pass: the weights are read once for all of them.

Whoever writes a text stays in a thread of its own, and needs to know nothing of the others: what its ``evaluate`` asks
for is gathered with what the others ask for, one of the waiting threads takes all of it through the model, and each
gets its rows. A text's logits have the same bits alone and in company (``Model.forward_many``), so it is the same text.

Nobody sleeps for ever, because each of these holds. Whoever waits may go on once its own work is done, or once nothing
is under way (no pass, no gathering, no pause, none wanted) and it is the first of those who wait. Its work is done by a
pass, which then wakes it. Every other step after which something may have become possible ends with ``_wake_next``: a
pass, a pause, and whoever stops waiting, for whatever reason. It wakes the first who wants a pause, else the first who
waits, else nobody is there. A thread that is woken looks anew, and one that was woken and leaves instead (an interrupt)
wakes the next; and what a thread that leaves has asked for leaves with it, so that the first who waits is always alive.
"""

from __future__ import annotations

import threading
import time
from collections import deque
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

_PASS_SECONDS = 0.5
"""About how long a piece of a prompt may take at most, so that whoever gives up, or comes next, need not wait long."""

_LEAST_PIECE = 32  # tokens; below that, reading the weights takes as long as computing

_PATIENCE = 0.25  # of the last pass's time: how long a pass waits for texts that are about to ask
_LEAST_PATIENCE, _MOST_PATIENCE = 0.0005, 0.01  # seconds


class GivenUpError(Exception):
    """Whoever asked does not want its rows any more."""


@dataclass(eq=False)
class _Work:
    """What one text asks for."""

    member: Member
    session: Session
    pending: Sequence[int]
    draft: Draft
    asleep: threading.Condition
    start: int  # tokens that the session held before
    rows: Logits | None = None
    error: Exception | None = None
    taken: bool = False  # in the pass that is under way
    left: bool = False  # whoever asked does not wait any more
    guesses: int = 0  # of the draft, in this pass

    @property
    def is_done(self) -> bool:
        return self.rows is not None or self.error is not None

    def remaining(self) -> Sequence[int]:
        """The pending tokens that are not evaluated yet, at least the last.

        The session is asked, and not a count of our own: an interrupt after a pass may leave it with tokens whose
        logits nobody got. The last of those asked for, and guesses after it, are then evaluated again.
        """
        most = self.start + len(self.pending) - 1
        if self.session.length > most:
            self.session.truncate(most)
        return self.pending[self.session.length - self.start :]


@dataclass
class _Pass:
    """What goes through the model together."""

    parts: list[tuple[_Work, list[int], int]] = field(default_factory=list)  # with tokens, and logits wanted, of each
    needed: int = 0  # tokens without guesses


def _shares(asked: Sequence[int], room: int) -> list[int]:
    """How many of its tokens each text gets into a pass; ``room`` bounds those of prompts, which ask for several.

    The prompt that came first has half of the room for sure, so that none is put off for ever; the rest goes to the
    shortest, so that nobody waits behind a book for a line.
    """
    shares = [1 if count == 1 else 0 for count in asked]
    prompts = [index for index, count in enumerate(asked) if count > 1]
    if prompts:
        first, *others = prompts
        shares[first] = min(asked[first], room // 2 if others else room)
        left = room - shares[first]
        for index in sorted(others, key=lambda each: asked[each]):
            shares[index] = min(asked[index], left)
            left -= shares[index]
        shares[first] += min(asked[first] - shares[first], left)
    return shares


class Company:
    """Gathers the texts that are written at the same time on one model. Threads may come and go."""

    def __init__(self, model: Model, pace: Pace | None = None) -> None:
        self._model = model
        self._pace = pace or Pace()
        # A forgotten stream is closed wherever Python collects it, also in a thread that holds the lock.
        self._lock = threading.RLock()
        self._waiting: list[_Work] = []
        self._expected: set[Member] = set()  # got their rows in a pass just now, and will probably ask again soon
        self._pauses: deque[threading.Condition] = deque()  # wanted or begun, the first come first
        self._is_busy = False  # a pass is under way, or a pause
        self._gathering: _Work | None = None
        self._is_late = False  # somebody who got tokens in the last pass has not asked for the next yet
        self._seconds = 0.0  # of the last pass
        self._seconds_per_token = 0.0  # of the last pass with a piece of a prompt

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
        began = False
        try:
            with self._lock:
                self._pauses.append(quiet)
                while self._is_busy or self._pauses[0] is not quiet:
                    quiet.wait()
                self._is_busy = began = True
            yield
        finally:
            with self._lock:
                if began:
                    self._is_busy = False
                if quiet in self._pauses:
                    self._pauses.remove(quiet)
                self._wake_next()

    def _observe(self, tokens: int, seconds: float, won: int, share: float) -> None:
        with self._lock:
            self._pace.observe(tokens, seconds, won, share)

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
                    if work.member.is_given_up:
                        raise GivenUpError
                    if self._is_quiet() and self._waiting[0] is work:
                        self._lead(work)
                    else:
                        work.asleep.wait()
            finally:
                work.left = True
                try:
                    while work.taken:  # interrupted while somebody else computes with this session
                        work.asleep.wait()
                finally:
                    self._forget(work)
                    self._wake_next()
        if work.error is not None:
            raise work.error
        assert work.rows is not None, "the loop ended"
        return work.rows

    def _is_quiet(self) -> bool:
        return not self._is_busy and self._gathering is None and not self._pauses

    def _lead(self, own: _Work) -> None:
        """Take what everybody waits for through the model. Called and left with the lock held."""
        self._gather(own)
        if not self._is_quiet():
            return  # a pause was wanted meanwhile; whoever ends it wakes the first who waits
        todo = self._assemble()
        failed: Exception | None = None
        rows: list[Logits] = []
        started = time.perf_counter()
        try:
            self._is_busy = True
            for work, _, _ in todo.parts:
                work.taken = True
            rows = self._unlocked_forward(todo)
        except Exception as error:
            failed = error
        finally:
            self._seconds = time.perf_counter() - started
            self._is_busy = False
            for work, _, _ in todo.parts:
                work.taken = False
                if work.left:
                    work.asleep.notify()
        if failed is not None:
            self._fail(todo, failed)
        else:
            if todo.needed >= _LEAST_PIECE:
                self._seconds_per_token = self._seconds / todo.needed
            self._deliver(todo, rows)
        self._wake_next()

    def _unlocked_forward(self, todo: _Pass) -> list[Logits]:
        try:
            self._lock.release()
            return self._forward(todo)
        finally:
            self._lock.acquire()

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
            self._is_late = bool(self._expected)
            self._expected.clear()  # whoever has not come is not waited for again before it asks

    def _assemble(self) -> _Pass:
        waiting = [work for work in self._waiting if not work.left]
        asked = [work.remaining() for work in waiting]
        room = _PIECE if len(waiting) > 1 or self._is_late else _PIECE_ALONE
        if self._seconds_per_token:
            room = min(room, max(_LEAST_PIECE, int(_PASS_SECONDS / self._seconds_per_token)))
        pieces: list[tuple[_Work, Sequence[int], bool]] = []
        for work, tokens, size in zip(waiting, asked, _shares([len(tokens) for tokens in asked], room), strict=True):
            if size > 0:
                pieces.append((work, tokens[:size], size == len(tokens)))
        needed = sum(len(piece) for _, piece, _ in pieces)
        ready = [work for work, _, is_last in pieces if is_last]
        lengths = self._pace.choose(needed, [work.draft.chances for work in ready])
        for work, length in zip(ready, lengths, strict=True):
            work.guesses = length
        todo = _Pass(needed=needed)
        for work, piece, is_last in pieces:
            guesses = work.draft.tokens[: work.guesses] if is_last else ()
            todo.parts.append((work, [*piece, *guesses], work.guesses + 1 if is_last else 0))
        return todo

    def _forward(self, todo: _Pass) -> list[Logits]:
        if len(todo.parts) == 1:  # which a signal may interrupt, and which costs a little less
            work, tokens, wanted = todo.parts[0]
            return [work.session.forward(tokens, wanted)]
        return self._model.forward_many([(work.session, tokens, wanted) for work, tokens, wanted in todo.parts])

    def _deliver(self, todo: _Pass, rows: Sequence[Logits]) -> None:
        for (work, _, wanted), own in zip(todo.parts, rows, strict=True):
            if wanted == 0:  # a piece of a prompt; the session knows how far it is
                continue
            work.rows = own
            if todo.needed == len(todo.parts):  # no prompts
                size = sum(len(tokens) for _, tokens, _ in todo.parts)
                work.member._pass = (size, self._seconds, len(todo.parts))
            self._forget(work)
            if not work.left:
                self._expected.add(work.member)
            work.asleep.notify()

    def _fail(self, todo: _Pass, error: Exception) -> None:
        """A pass failed, and no session has changed: whose fault it was shows when each is tried alone."""
        if len(todo.parts) == 1:
            work = todo.parts[0][0]
            work.error = error
            self._forget(work)
            work.asleep.notify()
            return
        for work, tokens, wanted in todo.parts:
            try:
                rows = [work.session.forward(tokens, wanted)]
            except Exception as own:
                self._fail(_Pass([(work, tokens, wanted)]), own)
            else:
                self._deliver(_Pass([(work, tokens, wanted)]), rows)

    def _forget(self, work: _Work) -> None:
        if work in self._waiting:
            self._waiting.remove(work)

    def _wake_next(self) -> None:
        if self._is_busy:
            return
        if self._pauses:
            self._pauses[0].notify()
        elif self._waiting and self._gathering is None:
            self._waiting[0].asleep.notify()


class Member:
    """One text's place in a company; implements ``selfee.llama.generate.Evaluator``."""

    def __init__(self, company: Company, session: Session) -> None:
        self._company = company
        self._session = session
        self._asleep = threading.Condition(company._lock)
        self._pass: tuple[int, float, int] | None = None  # of the last one: tokens, seconds, texts
        self.is_given_up = False

    def give_up(self) -> None:
        """Have ``evaluate`` raise GivenUpError, also one that waits: after the pass under way. From any thread."""
        with self._company._lock:
            self.is_given_up = True
            self._asleep.notify()

    def evaluate(self, pending: Sequence[int], draft: Draft) -> Logits:
        """See ``Evaluator.evaluate``. Raises GivenUpError once ``give_up`` was called."""
        self._pass = None
        return self._company._ask(_Work(self, self._session, pending, draft, self._asleep, self._session.length))

    def report(self, tokens: int) -> None:
        """See ``Evaluator.report``."""
        if self._pass is not None:
            size, seconds, texts = self._pass
            self._company._observe(size, seconds, tokens, 1 / texts)
