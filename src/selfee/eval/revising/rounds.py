"""What each revision did: the score after each number of revisions, helped and hurt, copying, cuts and costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from selfee.chain.types import Chain, ChainEnd, Step
from selfee.eval.revising.cases import RIGHT, Case, answer_tokens
from selfee.eval.revising.result import Attempt, Delivery, Round
from selfee.eval.revising.texts import copied_share, edit_share
from selfee.eval.scoring.estimates import NO_ESTIMATE, Draws, Estimate, Resampling, share


def estimate_mean(values: Sequence[float | None], resampling: Resampling) -> Estimate:
    """The mean of what is known, with its interval from drawing questions anew."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if known.size == 0:
        return NO_ESTIMATE
    return Draws(int(known.size), resampling).ratio(known, np.ones_like(known), int(known.size))


def delivered_within(chain: Chain, most: int) -> int | None:
    """The answer that is delivered if at most so many revisions are made: the last finished one."""
    return max((number for number, step in enumerate(chain.steps[: most + 1]) if step.is_deliverable), default=None)


def attempts_of(cases: Sequence[Case], resampling: Resampling) -> tuple[Attempt, ...]:
    """The score of every answer by its number, and of what is delivered up to it."""
    attempts = []
    for number in range(1 + max((case.chain.num_revisions for case in cases), default=-1)):
        own = [case.grade(step) for case in cases for step in case.chain.steps[number : number + 1] if _is_done(step)]
        delivered = [case.grade_at(case.chain, delivered_within(case.chain, number)) for case in cases]
        attempts.append(Attempt(number, len(own), estimate_mean(own, resampling), estimate_mean(delivered, resampling)))
    return tuple(attempts)


def rounds_of(cases: Sequence[Case], resampling: Resampling) -> tuple[Round, ...]:
    """What each revision did to the answer before it."""
    longest = max((case.chain.num_revisions for case in cases), default=0)
    return tuple(_round(cases, number, resampling) for number in range(1, longest + 1))


def _round(cases: Sequence[Case], number: int, resampling: Resampling) -> Round:
    pairs = [
        (case, case.chain.steps[number - 1], case.chain.steps[number])
        for case in cases
        if number < len(case.chain.steps)
        and _is_done(case.chain.steps[number - 1])
        and _is_done(case.chain.steps[number])
    ]
    grades = [(case.grade(before), case.grade(after)) for case, before, after in pairs]
    changes = [after - before for before, after in grades if before is not None and after is not None]
    is_right = bool(cases) and cases[0].scale == RIGHT
    wrong = [after for before, after in grades if before == 0 and after is not None]
    right = [after for before, after in grades if before == 1 and after is not None]
    return Round(
        number,
        len(pairs),
        len(changes),
        share(sum(change > 0 for change in changes), len(changes)),
        share(sum(change < 0 for change in changes), len(changes)),
        share(sum(change == 0 for change in changes), len(changes)),
        share(sum(after == 1 for after in wrong), len(wrong)) if is_right else None,
        share(sum(after == 0 for after in right), len(right)) if is_right else None,
        estimate_mean(changes, resampling),
        estimate_mean([copied_share(before.answer, after.answer) for _, before, after in pairs], resampling),
        estimate_mean([edit_share(before.answer, after.answer) for _, before, after in pairs], resampling),
        sum(before.answer == after.answer for _, before, after in pairs),
        sum(before.overruled is not None or _was_forced(before) for _, before, _ in pairs),
    )


def delivery_of(cases: Sequence[Case]) -> Delivery:
    """What the chains look like and what they cost."""
    chains = [case.chain for case in cases]
    tokens = _sum(answer_tokens(step) for chain in chains for step in chain.steps)
    feedback = _sum(
        None if step.feedback_cost is None else step.feedback_cost.tokens
        for chain in chains
        for step in chain.steps
        if step.feedback is not None
    )
    delivered = _sum(0 if chain.delivered is None else answer_tokens(chain.steps[chain.delivered]) for chain in chains)
    generated = None if tokens is None or feedback is None else tokens + feedback
    is_told = generated is not None and bool(chains)
    costs = [chain.cost for chain in chains]
    return Delivery(
        chains=len(chains),
        revisions=_counted(chain.num_revisions for chain in chains),
        delivered=_counted("none" if chain.delivered is None else chain.delivered for chain in chains),
        ends=_counted(chain.end.value for chain in chains),
        cuts=_counted(chain.cut.value for chain in chains if chain.cut is not None),
        well_formed=sum(_is_well_formed(chain) for chain in chains),
        cut=sum(bool(chain.steps) and not chain.steps[-1].answer_finished for chain in chains),
        fell_back=sum(
            chain.delivered is not None and chain.delivered < len(chain.steps) - 1 and chain.selected is None
            for chain in chains
        ),
        tokens=generated,
        delivered_tokens=delivered,
        tokens_per_delivered=generated / delivered if generated is not None and delivered else None,
        prompt_tokens=sum(cost.prompt_tokens for cost in costs) if is_told else None,
        cached_tokens=sum(cost.cached_tokens for cost in costs) if is_told else None,
        seconds=sum(cost.seconds for cost in costs) if is_told else None,
    )


def _is_well_formed(chain: Chain) -> bool:
    finished = all(step.answer_finished and step.feedback_finished for step in chain.steps)
    return bool(chain.steps) and chain.end is not ChainEnd.CUT_OFF and finished


def _is_done(step: Step) -> bool:
    return step.is_deliverable


def _was_forced(step: Step) -> bool:
    return step.verdict is not None and step.verdict.forced


def _counted(values: Iterable[Any]) -> dict[str, int]:
    counts = Counter(values)
    return {str(value): counts[value] for value in sorted(counts, key=lambda value: (isinstance(value, str), value))}


def _sum(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total
