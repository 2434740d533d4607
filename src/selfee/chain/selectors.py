"""Which attempt to deliver. Without a selector it is the last finished one; the last is not always the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from selfee.chain.checkers.base import Checker, run_check
from selfee.chain.types import Chain
from selfee.chain.verdict import find_score
from selfee.chain.votes import Extractor, count_votes, short_answer, try_extract
from selfee.errors import UsageError

Selector = Callable[[Chain], int | None]
"""Given an ended chain, the number of the step to deliver; None = the last finished one."""


def last_finished(chain: Chain) -> int | None:
    """The last finished answer."""
    return None


def highest_score(chain: Chain) -> int | None:
    """The finished answer to which the critic gave the highest score (of several, the latest); None if it gave none.

    The score is read from the feedback ("8/10"). A model's scores of its own text are biased: measure before trusting.
    """
    scores = {
        number: score
        for number, step in enumerate(chain.steps)
        if step.is_deliverable and (score := find_score(step.overruled or step.feedback or "")) is not None
    }
    return max(scores, key=lambda number: (scores[number], number), default=None)


def least_doubted(chain: Chain) -> int | None:
    """The finished answer that most likely needs no revision, by the verdicts' probabilities, if any.

    With this selector, verdicts in words are scored too when the chain has ended, if the engine can score.
    """
    doubts = {
        number: step.verdict.probability
        for number, step in enumerate(chain.steps)
        if step.is_deliverable and step.verdict is not None and step.verdict.probability is not None
    }
    return min(doubts, key=lambda number: (doubts[number], -number), default=None)


def most_agreed(extractor: Extractor = short_answer) -> Selector:
    """The selector for the finished answer that most of the chain's answers agree with; of equals the latest.

    Revisions copy from each other, so their votes are worth less than those of separate attempts (``run_samples``).
    """

    def choose(chain: Chain) -> int | None:
        votes = count_votes(
            [try_extract(extractor, step.answer) if step.is_deliverable else None for step in chain.steps]
        )
        return max((len(vote.attempts), vote.attempts[-1]) for vote in votes)[1] if votes else None

    choose.__name__ = f"most agreed by {getattr(extractor, '__name__', extractor)}"
    return choose


def best_checked(chain: Chain) -> int | None:
    """The finished answer that passed its check, with the highest score; of equals the latest.

    Where none passed, the one with the highest score: seven of ten tests are more than two. None where no check says
    anything, because there was no checker or it failed itself.
    """
    ranks = {
        number: (check.passed is True, -math.inf if check.score is None else check.score)
        for number, step in enumerate(chain.steps)
        if step.is_deliverable and (check := step.check) is not None and (check.passed or check.score is not None)
    }
    return max(ranks, key=lambda number: (ranks[number], number), default=None)


def best_by(checker: Checker) -> Selector:
    """The selector ``best_checked`` for chains whose answers this checker has still to see."""

    def best(chain: Chain) -> int | None:
        return best_checked(check_chain(chain, checker))

    best.__name__ = f"best by {checker.name}"
    return best


def check_chain(chain: Chain, checker: Checker) -> Chain:
    """The chain with a check of every answer that can be delivered and has none yet."""
    steps = [
        replace(step, check=run_check(checker, chain.instruction, step.answer))
        if step.is_deliverable and step.check is None
        else step
        for step in chain.steps
    ]
    return replace(chain, steps=tuple(steps))


def select(chain: Chain, selector: Selector) -> int | None:
    """Ask a selector and check its choice. Raises UsageError if it names no finished answer."""
    number = selector(chain)
    if number is not None and not (0 <= number < len(chain.steps) and chain.steps[number].is_deliverable):
        raise UsageError(
            f"selector: chose answer {number} of {len(chain.steps)}; expected that of a finished one with words"
        )
    return number


SELECTORS: dict[str, Selector] = {
    "last": last_finished,
    "score": highest_score,
    "doubt": least_doubted,
    "check": best_checked,
    "vote": most_agreed(),
}
