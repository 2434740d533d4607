"""When to stop and which answer to deliver, replayed over recorded chains: nothing is written anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfee.chain.checkers import Signal
from selfee.chain.selectors import Selector, highest_score, least_doubted
from selfee.chain.types import Chain, ChainEnd, Step
from selfee.chain.verdict import find_score
from selfee.eval.revising.cases import RIGHT, Case, mean, mean_known, tokens_through
from selfee.eval.revising.result import Selection, StopRule
from selfee.eval.revising.rounds import delivered_within, estimate_mean
from selfee.eval.revising.strategies import compare
from selfee.eval.scoring.estimates import Resampling

GOOD_ENOUGH = 9.0
"""SelFee's critic was told that a score of less than 9 asks for a revision."""


@dataclass(frozen=True)
class _Rule:
    name: str
    signal: Signal | None  # what it looks at; None = at nothing
    stops: Callable[[Case, Step, int], bool | None]  # whether to stop at an answer; None = nothing says it
    needs_feedback: bool  # whether it can only say so after the feedback on the answer


def stop_rules_of(cases: Sequence[Case], most: int, resampling: Resampling) -> tuple[StopRule, ...]:
    """Every rule over the same chains, which were made to revise ``most`` times."""
    base = [case.grade_at(case.chain, delivered_within(case.chain, 0)) for case in cases]
    return tuple(_replayed(rule, cases, most, base, resampling) for rule in _rules(cases, most))


def _rules(cases: Sequence[Case], most: int) -> list[_Rule]:
    def always(count: int) -> _Rule:
        name = f"always {count}" if count else "never revise"
        return _Rule(name, None, lambda case, step, number: number >= count, needs_feedback=False)

    rules = [always(count) for count in range(most + 1)]
    steps = [step for case in cases for step in case.chain.steps]
    if any(step.verdict is not None for step in steps):
        rules.append(_Rule("critic is content", Signal.SELF, _is_content, needs_feedback=True))
    if any(step.verdict is not None and step.verdict.probability is not None for step in steps):
        rules.append(_Rule("critic is content with 9 of 10", Signal.SELF, _is_surely_content, needs_feedback=True))
    if any(find_score(step.feedback or "") is not None for step in steps):
        rules.append(_Rule(f"critic's score ≥ {GOOD_ENOUGH:g}", Signal.SELF, _scores_well, needs_feedback=True))
    if cases and cases[0].scale == RIGHT:
        rules.append(_Rule("answer is right", Signal.GOLD, _is_right, needs_feedback=False))
    return rules


def _is_content(case: Case, step: Step, number: int) -> bool | None:
    return None if step.verdict is None else not step.verdict.needed


def _is_surely_content(case: Case, step: Step, number: int) -> bool | None:
    probability = None if step.verdict is None else step.verdict.probability
    return None if probability is None else probability <= 0.1


def _scores_well(case: Case, step: Step, number: int) -> bool | None:
    score = find_score(step.overruled or step.feedback or "")
    return None if score is None else score >= GOOD_ENOUGH


def _is_right(case: Case, step: Step, number: int) -> bool | None:
    grade = case.grade(step)
    return None if grade is None else grade == 1


@dataclass(frozen=True)
class _Stopped:
    number: int  # the answer it stopped at
    unknown: bool  # the chain ended before the rule said stop


def _stop(rule: _Rule, case: Case, most: int) -> _Stopped:
    steps = case.chain.steps
    for number, step in enumerate(steps):
        if number >= most:
            return _Stopped(number, unknown=False)
        if step.answer_finished and rule.stops(case, step, number):
            return _Stopped(number, unknown=False)
    repeats = case.chain.end in (ChainEnd.UNCHANGED, ChainEnd.REPEATED)  # more of the same is known to come
    return _Stopped(len(steps) - 1, unknown=not repeats)


def _replayed(
    rule: _Rule, cases: Sequence[Case], most: int, base: Sequence[float | None], resampling: Resampling
) -> StopRule:
    stopped = [_stop(rule, case, most) for case in cases]
    grades = [case.grade_at(case.chain, delivered_within(case.chain, at.number)) for case, at in zip(cases, stopped)]
    tokens = [
        tokens_through(case.chain, at.number, feedback=at.unknown or (rule.needs_feedback and at.number < most))
        for case, at in zip(cases, stopped)
    ]
    is_base = rule.name == "never revise"
    difference, p_value = (None, None) if is_base else compare(grades, base, resampling)
    return StopRule(
        rule.name,
        "nothing" if rule.signal is None else rule.signal.value,
        estimate_mean(grades, resampling),
        mean([float(at.number) for at in stopped]) or 0.0,
        mean_known(tokens),
        difference,
        p_value,
        sum(at.unknown for at in stopped),
        rule.signal is Signal.GOLD,
    )


def selections_of(cases: Sequence[Case], resampling: Resampling) -> tuple[Selection, ...]:
    """The last answer of each whole chain beside the first, the critic's favourite and the best there is."""
    choosers: list[tuple[str, Selector]] = [("last", _last), ("first", _first)]
    if any(highest_score(case.chain) is not None for case in cases):
        choosers.append(("critic's score", highest_score))
    if any(least_doubted(case.chain) is not None for case in cases):
        choosers.append(("critic's doubt", least_doubted))
    last = [case.grade_at(case.chain, _last(case.chain)) for case in cases]
    found = []
    for name, choose in choosers:
        grades = [case.grade_at(case.chain, _or_last(choose(case.chain), case.chain)) for case in cases]
        found.append(_selection(name, grades, last, resampling))
    best = [_best(case, own) for case, own in zip(cases, last, strict=True)]
    return (*found, _selection("best", best, last, resampling, is_oracle=True))


def _selection(
    name: str,
    grades: Sequence[float | None],
    last: Sequence[float | None],
    resampling: Resampling,
    is_oracle: bool = False,
) -> Selection:
    difference, p_value = (None, None) if name == "last" else compare(grades, last, resampling)
    return Selection(name, estimate_mean(grades, resampling), difference, p_value, is_oracle)


def _last(chain: Chain) -> int | None:
    return delivered_within(chain, len(chain.steps))


def _first(chain: Chain) -> int | None:
    return delivered_within(chain, 0)


def _or_last(number: int | None, chain: Chain) -> int | None:
    return _last(chain) if number is None else number


def _best(case: Case, last: float | None) -> float | None:
    grades = [case.grade(step) for step in case.chain.steps if step.is_deliverable]
    return max((grade for grade in grades if grade is not None), default=last)
