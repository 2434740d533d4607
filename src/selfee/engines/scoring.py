"""How likely the tokens of given sequences are: what benchmarks ask of a model that is shown a text and writes none.

Each token is scored given those before it. What several sequences share at their beginning goes through the model once,
and the ends of several go through it together; a token's figures have the same bits alone and in company.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from selfee.engines.cancelling import Cancellation
from selfee.engines.growing import log_softmax
from selfee.engines.sessions import HeldSession, Session, SessionPool, count_shared
from selfee.errors import ContextOverflowError, EngineError, UsageError

MOST_TOP = 100
"""The largest number of alternatives that may be asked for; lists of the whole vocabulary would fill the memory."""

_PIECE = 128  # tokens whose logits are held at a time
_SHORT_END = 64  # tokens after a shared beginning: ends up to this length go through the model together
_REMEMBERED = 16_384  # tokens whose figures are kept for sequences that begin like them


@dataclass(frozen=True)
class ScoringRequest:
    """Score ``tokens`` as they are: no beginning-of-text token is added."""

    tokens: tuple[int, ...]
    since: int = 1  # the first position to score; the first token has nothing before it and no score
    top: int = 0  # so many most likely alternatives at each position
    cancellation: Cancellation | None = field(default=None, compare=False)  # gives it up, and with it the whole batch
    scope: str = field(default="", compare=False)  # requests of different scopes share nothing that was read

    def __post_init__(self) -> None:
        if not self.tokens:
            raise UsageError(
                "scoring: no tokens; expected at least one; a text begins with its beginning-of-text token"
            )
        if not 0 <= self.top <= MOST_TOP:
            raise UsageError(f"scoring: top is {self.top}; expected 0 to {MOST_TOP}")
        if self.since < 0:
            raise UsageError(f"scoring: since is {self.since}; expected a position from 0")


@dataclass(frozen=True)
class ScoredToken:
    """A token with its natural-log probability under the model's own distribution, given those before it."""

    token: int
    text: str  # the token alone; a piece of a character is U+FFFD
    logprob: float | None = None  # None = not scored: the first token, or before ``since``
    is_greedy: bool = False  # whether it is the most likely one (of equals, that with the smallest id)
    top: tuple[tuple[int, str, float], ...] = ()  # (id, text, logprob), most likely first


@dataclass(frozen=True)
class ScoredSequence:
    """Every token of a sequence with its score, and the token that the model finds most likely after it."""

    tokens: tuple[ScoredToken, ...]
    next: ScoredToken
    evaluated: int = 0  # tokens that went through the model for it; the others were known or in a cache

    def total(self, since: int) -> tuple[float, bool]:
        """Sum of the log-probabilities from a position on, and whether each of these tokens is the most likely.

        Raises UsageError if one of them was not scored.
        """
        tail = self.tokens[since:]
        known = [token.logprob for token in tail if token.logprob is not None]
        if len(known) != len(tail):
            raise UsageError(f"scoring: from position {since} not every token is scored; ask for an earlier 'since'")
        return float(sum(known)), all(token.is_greedy for token in tail)


@runtime_checkable
class TokenScoringEngine(Protocol):
    """Scores token sequences and says what tokens a text has (an optional ability of an engine)."""

    name: str
    context_length: int | None

    def encode_text(self, text: str, *, parse_special: bool = False) -> list[int]:
        """The tokens of a prompt, with the beginning-of-text token if the model wants one."""
        ...

    def score_tokens(self, requests: Sequence[ScoringRequest]) -> list[ScoredSequence]:
        """Score sequences, results in the order of the requests.

        Raises ContextOverflowError or UsageError before anything is computed, and EngineError soon after one of the
        requests is given up.
        """
        ...


def token_scoring_of(engine: object) -> TokenScoringEngine | None:
    """The engine as a TokenScoringEngine if it can score tokens, else None. Ask here instead of ``isinstance``."""
    return engine if isinstance(engine, TokenScoringEngine) else None


Logits = npt.NDArray[np.float32]


class ScoringRuntime(Protocol):
    """What a TokenScorer needs of a model and its tokenizer."""

    name: str
    context_length: int
    vocab_size: int

    def piece(self, token: int) -> str: ...

    def forward_many(self, parts: Sequence[tuple[Session, Sequence[int], int]]) -> list[Logits]:
        """Evaluate tokens in several sessions in one pass; logits of the last so many tokens of each part.

        Each session gets the bits that ``Session.forward`` alone would give it.
        """
        ...


class TokenScorer:
    """Scores sequences on a runtime's sessions. One batch at a time; further threads wait.

    ``parallel`` ends of sequences go through the model together. ``reuse=False`` forgets everything between sequences:
    the same figures, slower.
    """

    def __init__(
        self, runtime: ScoringRuntime, sessions: SessionPool[Session], *, parallel: int = 1, reuse: bool = True
    ) -> None:
        self._runtime = runtime
        self._sessions = sessions
        self._parallel = parallel
        self._reuse = reuse
        self._memory = _Memory()
        self._lock = threading.Lock()

    def score(self, requests: Sequence[ScoringRequest]) -> list[ScoredSequence]:
        """See ``TokenScoringEngine.score_tokens``."""
        for request in requests:
            self._check(request)
        results: list[ScoredSequence | None] = [None] * len(requests)
        with self._lock:
            for group in self._groups(requests):
                tasks = [_Task(self._runtime.piece, requests[index]) for index in group]
                self._score_group(tasks)
                for index, task in zip(group, tasks, strict=True):
                    results[index] = task.result()
        return [result for result in results if result is not None]

    def _check(self, request: ScoringRequest) -> None:
        tokens, room, vocabulary = request.tokens, self._runtime.context_length, self._runtime.vocab_size
        if len(tokens) > room:
            raise ContextOverflowError(
                f"{self._runtime.name}: {len(tokens)} tokens to score; the context window holds {room}; shorten the "
                "text or open the model with a larger context_length"
            )
        wrong = next((token for token in tokens if not 0 <= token < vocabulary), None)
        if wrong is not None:
            raise UsageError(
                f"scoring: token {wrong} does not exist; {self._runtime.name} has 0 to {vocabulary - 1}; were the "
                "tokens made by another model's tokenizer?"
            )

    def _groups(self, requests: Sequence[ScoringRequest]) -> Iterator[list[int]]:
        """Requests so that neighbours share their beginnings; a group's first has what its others end differently."""
        group: list[int] = []
        for index in sorted(range(len(requests)), key=lambda index: requests[index].tokens):
            tokens = requests[index].tokens
            is_other = bool(group) and requests[group[0]].scope != requests[index].scope
            if group and (is_other or not self._has_short_end(requests[group[0]].tokens, tokens)):
                yield group
                group = []
            group.append(index)
        if group:
            yield group

    def _has_short_end(self, leader: Sequence[int], tokens: Sequence[int]) -> bool:
        return self._reuse and len(tokens) - count_shared(leader, tokens) <= _SHORT_END

    def _score_group(self, tasks: Sequence[_Task]) -> None:
        leader = tasks[0]
        begin = leader.tokens if self._reuse else ()
        with self._sessions.borrow(begin, copied=False, scope=leader.scope) as main:
            self._score_alone(main, leader)
            rest = tasks[1:]
            for start in range(0, len(rest), self._parallel):
                self._score_together(main, rest[start : start + self._parallel])

    def _score_alone(self, held: HeldSession[Session], task: _Task) -> None:
        self._recall(task)
        while (start := task.start) is not None:
            task.go_on()
            cached = held.align(task.tokens, start if self._reuse or task.evaluated else 0)
            if cached < start:
                held.session.forward(task.tokens[cached:start])
            piece = task.tokens[start : start + _PIECE]
            task.take(held.session.forward(piece, logits_for="all"), start + len(piece) - cached)
        self._memory.keep(task)

    def _score_together(self, main: HeldSession[Session], tasks: Sequence[_Task]) -> None:
        """Ends of several sequences in one pass, each in a session that begins like the main one."""
        for task in tasks:
            task.go_on()
            self._recall(task)
        open_tasks = [task for task in tasks if 0 < task.missing <= _PIECE]
        together = open_tasks if len(open_tasks) > 1 else []
        for task in tasks:
            if task not in together:
                self._score_alone(main, task)
        if not together:
            return
        with ExitStack() as lent:
            parts: list[tuple[_Task, HeldSession[Session], int]] = []
            for task in together:
                is_last = task is together[-1]
                session = self._sessions.borrow((), copied=False, scope=task.scope)
                held = main if is_last else lent.enter_context(session)
                parts.append((task, held, self._begin(main, held, task)))
            rows = self._runtime.forward_many(
                [(held.session, task.tokens[cached:], task.missing) for task, held, cached in parts]
            )
            for (task, _, cached), own in zip(parts, rows, strict=True):
                task.take(own, len(task.tokens) - cached)
                self._memory.keep(task)

    def _begin(self, main: HeldSession[Session], held: HeldSession[Session], task: _Task) -> int:
        """Make a session hold what the main one has of a sequence's beginning; returns how many tokens."""
        assert task.start is not None, "asked of open tasks only"
        shared = min(main.shared(task.tokens), task.start)
        if held is not main:
            held.session.copy_from(main.session, shared)
            held.tokens = list(task.tokens)
            return shared
        return held.align(task.tokens, shared)

    def _recall(self, task: _Task) -> None:
        if self._reuse:
            self._memory.recall(task)


class _Task:
    """A sequence while it is scored. ``scores[p]`` is that of position p; ``len(tokens)`` is that of the next token."""

    def __init__(self, piece: Callable[[int], str], request: ScoringRequest) -> None:
        self.tokens = request.tokens
        self.top = request.top
        self.since = max(1, request.since)
        self.scores: dict[int, ScoredToken] = {}
        self.evaluated = 0
        self._piece = piece
        self.scope = request.scope
        self._cancellation = request.cancellation

    def go_on(self) -> None:
        """Raise EngineError if nobody wants the scores any more."""
        if self._cancellation is not None and self._cancellation.is_set:
            raise EngineError("scoring: given up before its end; expected somebody to wait for it; ask again")

    @property
    def start(self) -> int | None:
        """The first token whose logits are still needed; None = there is none."""
        last = len(self.tokens)
        first = min(self.since, last) + len(self.scores)
        return first - 1 if first <= last else None

    @property
    def missing(self) -> int:
        """Of how many last tokens the logits are still needed."""
        return 0 if self.start is None else len(self.tokens) - self.start

    def take(self, rows: Logits, evaluated: int) -> None:
        """Logits of the next tokens whose logits were needed."""
        self.evaluated += evaluated
        for row in rows:
            assert self.start is not None, "no more rows than were asked for"
            position = self.start + 1
            self.scores[position] = self._score(row, self.tokens[position] if position < len(self.tokens) else None)

    def result(self) -> ScoredSequence:
        """All tokens with their scores."""
        unscored = (ScoredToken(token, self._piece(token)) for token in self.tokens)
        tokens = tuple(self.scores.get(position, plain) for position, plain in enumerate(unscored))
        return ScoredSequence(tokens, self.scores[len(self.tokens)], self.evaluated)

    def _score(self, row: Logits, token: int | None) -> ScoredToken:
        best = int(row.argmax())
        logprobs = log_softmax(row)
        chosen = best if token is None else token
        top = tuple((one, self._piece(one), float(logprobs[one])) for one in _most_likely(row, self.top))
        return ScoredToken(chosen, self._piece(chosen), float(logprobs[chosen]), chosen == best, top)


def _most_likely(row: Logits, count: int) -> list[int]:
    """The ids with the highest logits, highest first, of equals the smallest id first."""
    count = min(count, row.size)
    if count == 0:
        return []
    least = np.partition(row, row.size - count)[row.size - count]
    candidates = np.flatnonzero(row >= least)
    return [int(one) for one in candidates[np.lexsort((candidates, -row[candidates]))][:count]]


class _Memory:
    """The scores of the sequences scored last: one that begins like them need not be read again."""

    def __init__(self) -> None:
        self._kept: deque[_Task] = deque()
        self._size = 0

    def keep(self, task: _Task) -> None:
        """Remember a finished sequence, the oldest go first."""
        self._kept.append(task)
        self._size += len(task.tokens)
        while self._size > _REMEMBERED and len(self._kept) > 1:
            self._size -= len(self._kept.popleft().tokens)

    def recall(self, task: _Task) -> None:
        """Fill in what is known of a sequence's beginning."""
        fitting = [known for known in self._kept if known.top >= task.top and known.since <= task.since]
        fitting = [known for known in fitting if known.scope == task.scope]
        known = max(fitting, key=lambda each: count_shared(each.tokens, task.tokens), default=None)
        if known is None or task.scores:
            return
        shared = count_shared(known.tokens, task.tokens)
        is_same = shared == len(known.tokens) == len(task.tokens)
        for position in range(min(task.since, len(task.tokens)), shared + is_same):
            if position not in known.scores:
                break
            score = known.scores[position]
            task.scores[position] = replace(score, top=score.top[: task.top])
