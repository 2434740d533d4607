"""What an analysis looks at: a question's chain with every answer graded, and the separate attempts beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from selfee.chain.checkers import Checker
from selfee.chain.policy import RevisionPolicy
from selfee.chain.samples import choose_by_doubt
from selfee.chain.selectors import check_chain
from selfee.chain.shorter import shorten
from selfee.chain.types import Chain, Cost, Step
from selfee.chain.votes import Extractor

RIGHT, POINTS = "right", "points"


@dataclass(frozen=True)
class Case:
    """One question. Grades lie in ``Step.check`` of every chain."""

    id: str
    chain: Chain
    criticised: tuple[Chain, ...] = ()  # separate attempts, each with feedback; the chain's first answer is not among
    plain: tuple[Chain, ...] = ()  # further attempts without
    longer: Chain | None = None
    resampled: Chain | None = None  # what revising the second attempt gave, where the critic doubts it less
    scale: str = RIGHT  # what grades are: right (0 or 1) or points
    extractor: Extractor | None = None  # what an answer comes to, for votes; None = there is no vote

    def grade(self, step: Step) -> float | None:
        """The grade of an answer; None where nothing says it."""
        check = step.check
        if check is None or check.failed:
            return None
        if self.scale == POINTS:
            return check.score
        return None if check.passed is None else float(check.passed)

    def grade_at(self, chain: Chain, number: int | None) -> float | None:
        """The grade of what is delivered: nothing at all is wrong, where there is right and wrong."""
        if number is None:
            return 0.0 if self.scale == RIGHT and chain.steps else None
        return self.grade(chain.steps[number])

    def first_attempt(self) -> Chain:
        """The chain as it would have been without revisions: its first answer with feedback."""
        return without_revisions(self.chain)

    def resampled_from(self) -> Chain | None:
        """The better of the first two attempts by the critic, with the revisions of it; None where none were made."""
        is_second = bool(self.criticised) and is_second_better(self.chain, self.criticised[0])
        return self.resampled if is_second else self.chain


def graded(chain: Chain, checker: Checker) -> Chain:
    """The chain with every finished answer checked; equal texts are checked once."""
    known: dict[str, Step] = {}
    steps = []
    for step in chain.steps:
        if step.answer not in known and step.is_deliverable:
            known[step.answer] = check_chain(replace(chain, steps=(step,)), checker).steps[0]
        steps.append(replace(step, check=known[step.answer].check) if step.is_deliverable else step)
    return replace(chain, steps=tuple(steps))


def is_second_better(chain: Chain, second: Chain) -> bool:
    """Whether the critic doubts a second attempt less than the chain's own first answer."""
    return choose_by_doubt([without_revisions(chain), second]).attempt == 1


def without_revisions(chain: Chain) -> Chain:
    """The first answer with its feedback as the model wrote it."""
    return shorten(chain, RevisionPolicy(0, 0, always_criticise=True)) if _is_ours(chain) else _first_step(chain)


def _is_ours(chain: Chain) -> bool:
    return bool(chain.settings)


def _first_step(chain: Chain) -> Chain:
    return replace(chain, steps=chain.steps[:1], selected=None)


def mean(values: Sequence[float]) -> float | None:
    """The mean, or None of nothing."""
    return sum(values) / len(values) if values else None


def mean_known(values: Sequence[int | float | None]) -> float | None:
    """The mean where every value is known, else None: a mean of some would be of another set of questions."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def answer_tokens(step: Step) -> int | None:
    """Tokens generated for an answer."""
    return None if step.answer_cost is None else step.answer_cost.tokens


def tokens_through(chain: Chain, number: int, *, feedback: bool = False) -> int | None:
    """Tokens generated up to the end of answer ``number``, with the feedback on it if asked; None if not told."""
    costs: list[Cost | None] = []
    for index, step in enumerate(chain.steps[: number + 1]):
        costs.append(step.answer_cost)
        if step.feedback is not None and (index < number or feedback):
            costs.append(step.feedback_cost)
    return None if any(cost is None for cost in costs) else sum(cost.tokens for cost in costs if cost)


def prompt_through(chain: Chain, number: int, *, feedback: bool = False) -> int | None:
    """Tokens read by the requests up to the end of answer ``number``, cached ones included; None if nobody told."""
    return _through(chain, number, feedback, lambda cost: cost.prompt_tokens) or None


def _through(chain: Chain, number: int, feedback: bool, of: Callable[[Cost], int]) -> int | None:
    total = 0
    for index, step in enumerate(chain.steps[: number + 1]):
        costs = [step.answer_cost]
        if step.feedback is not None and (index < number or feedback):
            costs.append(step.feedback_cost)
        for cost in costs:
            if cost is None:
                return None
            total += of(cost)
    return total
