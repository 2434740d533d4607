"""The critic's verdicts against the truth: what it lets pass, what it rejects, and what its probabilities are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfee.chain.types import Step, VerdictSource
from selfee.eval.revising.cases import RIGHT, Case
from selfee.eval.revising.result import Bin, Critic
from selfee.eval.scoring.estimates import share

_BINS = 5  # of equal width, from 0 to 1


@dataclass(frozen=True)
class Judged:
    """One verdict on one answer."""

    rejected: bool
    wrong: bool | None  # None = nothing says it
    probability: float | None  # that a revision is needed


def critic_of(cases: Sequence[Case]) -> Critic | None:
    """The critic of chains and attempts together; None where grades are not right or wrong, or no feedback is there.

    A verdict that was found by asking once more counts as the critic's own; one that a person gave, or that was only
    concluded from a header or from silence, does not.
    """
    if not cases or cases[0].scale != RIGHT:
        return None
    steps = [(case, step) for case in cases for step in _criticised(case)]
    if not steps:
        return None
    judged = [
        Judged(step.verdict.needed, _wrong(case, step), step.verdict.probability)
        for case, step in steps
        if step.verdict and _is_said(step)
    ]
    known = [each for each in judged if each.wrong is not None]
    cells = {
        (rejected, wrong): sum(each.rejected is rejected and each.wrong is wrong for each in known)
        for rejected in (False, True)
        for wrong in (False, True)
    }
    accepted_right, accepted_wrong = cells[False, False], cells[False, True]
    rejected_right, rejected_wrong = cells[True, False], cells[True, True]
    scored = [each for each in known if each.probability is not None]
    bins = _bins(scored)
    return Critic(
        verdicts=len(judged),
        without_verdict=sum(step.feedback_finished and not _is_said(step) for _, step in steps),
        accepted_right=accepted_right,
        accepted_wrong=accepted_wrong,
        rejected_right=rejected_right,
        rejected_wrong=rejected_wrong,
        ungraded=len(judged) - len(known),
        wrong_if_accepted=share(accepted_wrong, accepted_right + accepted_wrong),
        right_if_rejected=share(rejected_right, rejected_right + rejected_wrong),
        wrong_found=share(rejected_wrong, accepted_wrong + rejected_wrong),
        balanced_accuracy=_balanced(accepted_right, accepted_wrong, rejected_right, rejected_wrong),
        repeated=sum(_repeats(case) for case in cases),
        scored=len(scored),
        brier=_brier(scored, None),
        brier_of_base_rate=_brier(scored, _rate(scored)),
        calibration_error=sum(each.count * abs(each.probability - (each.wrong.value or 0.0)) for each in bins)
        / len(scored)
        if scored
        else None,
        auc=_auc(scored),
        bins=bins,
    )


def _criticised(case: Case) -> Iterator[Step]:
    for chain in (case.chain, *case.criticised):
        yield from (step for step in chain.steps if step.feedback is not None and step.is_deliverable)


def _is_said(step: Step) -> bool:
    return step.verdict is not None and step.verdict.source in (
        VerdictSource.PHRASE,
        VerdictSource.CHOICE,
        VerdictSource.ASKED,
    )


def _wrong(case: Case, step: Step) -> bool | None:
    grade = case.grade(step)
    return None if grade is None else grade == 0


def _repeats(case: Case) -> int:
    """Feedback that equals an earlier one of its chain."""
    seen: set[str] = set()
    repeated = 0
    for step in case.chain.steps:
        words = " ".join((step.overruled or step.feedback or "").split())
        repeated += words in seen
        if words:
            seen.add(words)
    return repeated


def _balanced(accepted_right: int, accepted_wrong: int, rejected_right: int, rejected_wrong: int) -> float | None:
    right, wrong = accepted_right + rejected_right, accepted_wrong + rejected_wrong
    return (accepted_right / right + rejected_wrong / wrong) / 2 if right and wrong else None


def _rate(scored: Sequence[Judged]) -> float:
    return sum(bool(each.wrong) for each in scored) / len(scored) if scored else 0.0


def _brier(scored: Sequence[Judged], always: float | None) -> float | None:
    """Mean squared distance of the probabilities from the truth, or of ``always`` in their place."""
    if not scored:
        return None
    said = [each.probability if always is None else always for each in scored]
    return sum(((value or 0.0) - bool(each.wrong)) ** 2 for value, each in zip(said, scored, strict=True)) / len(scored)


def _auc(scored: Sequence[Judged]) -> float | None:
    """Share of pairs of a wrong and a right answer of which the wrong one has the higher probability; ties a half."""
    wrong = [each.probability or 0.0 for each in scored if each.wrong]
    right = [each.probability or 0.0 for each in scored if not each.wrong]
    if not wrong or not right:
        return None
    won = sum((one > other) + (one == other) / 2 for one in wrong for other in right)
    return won / (len(wrong) * len(right))


def _bins(scored: Sequence[Judged]) -> tuple[Bin, ...]:
    found = []
    for number in range(_BINS):
        low, high = number / _BINS, (number + 1) / _BINS
        inside = [each for each in scored if min(_BINS - 1, int((each.probability or 0.0) * _BINS)) == number]
        if inside:
            mean = sum(each.probability or 0.0 for each in inside) / len(inside)
            wrong = share(sum(bool(each.wrong) for each in inside), len(inside))
            found.append(Bin(low, high, len(inside), mean, wrong))
    return tuple(found)
