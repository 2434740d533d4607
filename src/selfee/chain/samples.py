"""Several first answers to the same question, and which of them is delivered."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selfee.chain.types import Chain, Cost, Event, Instruction, VerdictSource, total_cost
from selfee.chain.verdict import find_score
from selfee.chain.votes import Extractor, Vote, count_votes, try_extract


class SamplesEnd(enum.Enum):
    """Why no further attempt was made."""

    COMPLETE = "complete"  # as many as were asked for
    SPENT = "spent"  # the allowance is spent
    PASSED = "passed"  # an attempt passed the checker, which was to end it
    CUT_OFF = "cut_off"  # the engine failed or the caller gave up


@dataclass(frozen=True)
class Samples:
    """Attempts at one instruction, each a Chain without revisions, and all that is needed to make them again."""

    instruction: Instruction
    attempts: tuple[Chain, ...]
    end: SamplesEnd
    status: str = ""  # one sentence for people: what was made, which is delivered and why
    chosen: int | None = None  # the attempt to deliver, from 0; None = nothing speaks for any of them
    votes: tuple[Vote, ...] = ()  # most votes first, where they decided
    seed: int | None = None  # from which every attempt's seed is derived
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def delivered(self) -> int | None:
        """The attempt whose answer is delivered: the chosen, else the first finished one that says anything."""
        if self.chosen is not None:
            return self.chosen
        return next((number for number, attempt in enumerate(self.attempts) if _is_able(attempt)), None)

    @property
    def final(self) -> str:
        """The answer to deliver. Only if none was finished, the beginning of the first."""
        if self.delivered is not None:
            return self.attempts[self.delivered].final
        return self.attempts[0].final if self.attempts else ""

    @property
    def cost(self) -> Cost:
        """What all attempts cost together, with their feedback if they were criticised."""
        return total_cost(attempt.cost for attempt in self.attempts)

    @property
    def check_cost(self) -> Cost:
        """What checking cost, which is not part of ``cost``."""
        return total_cost(attempt.check_cost for attempt in self.attempts)


@dataclass(frozen=True)
class Sampled:
    """An event of one attempt, counted from 0; its ChainFinished ends it."""

    attempt: int
    event: Event


@dataclass(frozen=True)
class SamplesFinished:
    """The last event: everything."""

    samples: Samples


@dataclass(frozen=True)
class Choice:
    """The attempt to deliver and why; None = nothing speaks for any."""

    attempt: int | None
    reason: str = ""
    votes: tuple[Vote, ...] = ()


Chooser = Callable[[Sequence[Chain]], Choice]
"""Given the attempts, which to deliver. Attempts know no order: of equals, the first is taken."""


def choose_first(attempts: Sequence[Chain]) -> Choice:
    """The first finished one: what a single answer would have been."""
    return Choice(next((number for number, attempt in enumerate(attempts) if _is_able(attempt)), None))


def choose_by_score(attempts: Sequence[Chain]) -> Choice:
    """The one to which the critic gave the highest score in words."""
    scores = {number: find_score(attempt.steps[0].feedback or "") for number, attempt in _able(attempts)}
    best = _highest({number: score for number, score in scores.items() if score is not None})
    return Choice(best, "" if best is None else f"its critic gave it {scores[best]:g} of 10")


def choose_by_doubt(attempts: Sequence[Chain]) -> Choice:
    """The one that most likely needs no revision, by its verdict's probability (0 or 1 if it has none)."""
    doubts: dict[int, float] = {}
    for number, attempt in _able(attempts):
        verdict = attempt.steps[0].verdict
        if verdict is not None and verdict.source is not VerdictSource.SILENCE:
            doubts[number] = float(verdict.needed) if verdict.probability is None else verdict.probability
    best = _highest({number: -doubt for number, doubt in doubts.items()})
    return Choice(best, "" if best is None else f"its critic asks for a revision with probability {doubts[best]:.2f}")


def choose_by_check(attempts: Sequence[Chain]) -> Choice:
    """The one that passed its check, with the highest score; where none passed, the highest score."""
    checks = {number: check for number, attempt in _able(attempts) if (check := attempt.steps[0].check) is not None}
    best = _highest(
        {
            number: (check.passed is True, -math.inf if check.score is None else check.score)
            for number, check in checks.items()
            if check.passed or check.score is not None
        }
    )
    if best is None:
        return Choice(None, "no attempt passed the check" if checks else "")
    score = "" if checks[best].score is None else f" with a score of {checks[best].score:g}"
    return Choice(best, f"it {'passed' if checks[best].passed else 'did not pass'} the check{score}")


def choose_by_vote(extractor: Extractor) -> Chooser:
    """The first of those that most attempts agree with, by what ``extractor`` finds in them.

    An extractor that raises costs the attempt its vote and nothing else.
    """

    def choose(attempts: Sequence[Chain]) -> Choice:
        answers: list[str | None] = [None] * len(attempts)
        for number, attempt in _able(attempts):
            answers[number] = try_extract(extractor, attempt.final)
        votes = count_votes(answers)
        if not votes:
            return Choice(None, "no attempt came to an answer that can be counted")
        shown = votes[0].answer if len(votes[0].answer) <= 40 else votes[0].answer[:39] + "…"
        reason = f"{len(votes[0].attempts)} of {len(attempts)} attempts came to {shown!r}"
        return Choice(votes[0].attempts[0], reason, votes)

    return choose


def _is_able(attempt: Chain) -> bool:
    return attempt.delivered is not None


def _able(attempts: Sequence[Chain]) -> list[tuple[int, Chain]]:
    return [(number, attempt) for number, attempt in enumerate(attempts) if _is_able(attempt)]


def _highest(ranks: Mapping[int, Any]) -> int | None:
    """The number with the highest rank; of equals the first."""
    return max(ranks, key=lambda number: (ranks[number], -number), default=None)
