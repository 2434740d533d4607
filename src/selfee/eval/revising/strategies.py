"""Revising beside other ways to spend the same tokens, question by question.

The rule: a baseline is given, for each question, exactly the tokens that revising k times generated for it. Of its
attempts it takes as many as these tokens pay for; what is left pays for a share of one attempt more, and counts with
that share, so that both sides spend the same to the token. Nothing is written for this: recorded attempts are replayed.
The chain's own first answer is always the first of them; the others know no order, so each result is the mean over each
of them coming next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from selfee.chain.samples import Chooser, choose_by_doubt, choose_by_score, choose_by_vote
from selfee.chain.types import Chain, ChainEnd
from selfee.eval.revising.cases import (
    Case,
    answer_tokens,
    mean,
    mean_known,
    prompt_through,
    tokens_through,
)
from selfee.eval.revising.result import Strategy
from selfee.eval.revising.rounds import delivered_within, estimate_mean
from selfee.eval.scoring.estimates import Estimate, Resampling, sign_test

MATCHING = (
    "Each baseline is given, for each question, the tokens that revising generated for it: answers, feedback and "
    "revisions up to the last one, cut ones included; prompts are told apart and not matched. It takes as many "
    "recorded attempts as these pay for; the rest pays for a share of one more, which counts with that share. A lone "
    "attempt needs no feedback; a best-of-N attempt costs its answer and its feedback, a vote's its answer. The "
    "chain's own first answer is the first attempt; results are means over each of the others coming next. Resample, "
    "then revise criticises two attempts and revises the less doubted as often as the rest pays for. A longer answer "
    "may use the same tokens; what it used is told."
)


@dataclass(frozen=True)
class Spent:
    """What one strategy did on one question."""

    grade: float | None
    tokens: float | None  # generated
    prompt_tokens: float | None = None
    attempts: float = 1.0
    is_short: bool = False  # too few attempts were recorded


@dataclass(frozen=True)
class Way:
    """A baseline: which attempts it takes, how it chooses, what an attempt costs."""

    name: str
    family: str
    attempts: Callable[[Case], Sequence[Chain]]
    choose: Callable[[Case, Sequence[Chain]], float | None]  # the grade of what it delivers
    criticises: bool  # whether attempts cost their feedback too
    is_oracle: bool = False


def strategies_of(cases: Sequence[Case], most: int, resampling: Resampling) -> tuple[Strategy, ...]:
    """Revising 0 to ``most`` times, and beside each what its tokens would have bought otherwise."""
    if not cases:
        return ()
    found: list[Strategy] = []
    for number in range(most + 1):
        name = f"revise {number}" if number else "single answer"
        revised = [_revise(case, number) for case in cases]
        found.append(_strategy(name, "revise" if number else "single", revised, resampling))
        if number:
            found += _matched(cases, revised, name, resampling)
            if number > 1:  # one revision costs less than a second attempt with its feedback
                found += _resampled(cases, revised, name, resampling)
        if number == most:
            found += _longer(cases, revised, name, resampling)
            found.append(_best_of_chain(cases, revised, name, resampling))
    return tuple(found)


def _revise(case: Case, number: int) -> Spent:
    chain = case.chain
    last = min(number, len(chain.steps) - 1)
    ended_early = last < number  # then also what was said about the last answer was spent
    return Spent(
        case.grade_at(chain, delivered_within(chain, number)),
        tokens_through(chain, last, feedback=ended_early),
        prompt_through(chain, last, feedback=ended_early),
    )


def _matched(cases: Sequence[Case], revised: Sequence[Spent], name: str, resampling: Resampling) -> Iterator[Strategy]:
    for way in _ways(cases):
        if all(budget.tokens is not None for budget in revised):
            spent = [_spend(way, case, budget.tokens or 0.0) for case, budget in zip(cases, revised, strict=True)]
            yield _strategy(f"{way.name} = {name}", way.family, spent, resampling, revised, name, way.is_oracle)


def _ways(cases: Sequence[Case]) -> Iterator[Way]:
    if any(case.criticised for case in cases):
        if any(_has_probability(case) for case in cases):
            yield Way("best of N by doubt", "best-of", _with_feedback, _by(choose_by_doubt), criticises=True)
        yield Way("best of N by score", "best-of", _with_feedback, _by(choose_by_score), criticises=True)
    if any(case.criticised or case.plain for case in cases):
        if any(case.extractor is not None for case in cases):
            yield Way("vote", "vote", _all_attempts, _vote, criticises=False)
        yield Way("any of N", "oracle", _all_attempts, _any, criticises=False, is_oracle=True)


def _has_probability(case: Case) -> bool:
    return any(
        step.verdict is not None and step.verdict.probability is not None
        for chain in case.criticised
        for step in chain.steps
    )


def _with_feedback(case: Case) -> list[Chain]:
    return [case.first_attempt(), *case.criticised]


def _all_attempts(case: Case) -> list[Chain]:
    return [case.first_attempt(), *case.criticised, *case.plain]


def _by(chooser: Chooser) -> Callable[[Case, Sequence[Chain]], float | None]:
    def choose(case: Case, attempts: Sequence[Chain]) -> float | None:
        number = chooser(attempts).attempt if len(attempts) > 1 else None
        return _delivered(case, attempts, number)

    return choose


def _vote(case: Case, attempts: Sequence[Chain]) -> float | None:
    number = None if case.extractor is None else choose_by_vote(case.extractor)(attempts).attempt
    return _delivered(case, attempts, number)


def _any(case: Case, attempts: Sequence[Chain]) -> float | None:
    grades = [case.grade_at(attempt, attempt.delivered) for attempt in attempts]
    return max((grade for grade in grades if grade is not None), default=None)


def _delivered(case: Case, attempts: Sequence[Chain], number: int | None) -> float | None:
    """The grade of an attempt; where none was chosen, of the first that is finished, as ``Samples`` delivers it."""
    if number is None:
        number = next((index for index, attempt in enumerate(attempts) if attempt.delivered is not None), 0)
    return case.grade_at(attempts[number], attempts[number].delivered)


def _spend(way: Way, case: Case, budget: float) -> Spent:
    """What a baseline does with a question's tokens: the mean over each further attempt coming next."""
    own, *others = way.attempts(case)
    turns = [
        _spend_in_order(way, case, [own, *others[first:], *others[:first]], budget)
        for first in range(max(1, len(others)))
    ]
    return Spent(
        mean_known([turn.grade for turn in turns]),
        mean_known([turn.tokens for turn in turns]),
        mean_known([turn.prompt_tokens for turn in turns]),
        mean([turn.attempts for turn in turns]) or 0.0,
        any(turn.is_short for turn in turns),
    )


def _spend_in_order(way: Way, case: Case, attempts: Sequence[Chain], budget: float) -> Spent:
    def bought(count: int) -> Callable[[], float | None]:
        return lambda: way.choose(case, attempts[:count])

    offers = [
        Offer(
            _cost(attempts[:count], way.criticises),
            _prompt_cost(attempts[:count], way.criticises),
            count,
            bought(count),
        )
        for count in range(1, len(attempts) + 1)
    ]
    return _buy(offers, budget)


@dataclass(frozen=True)
class Offer:
    """What may be had for so many tokens."""

    tokens: float
    prompt_tokens: float
    attempts: int
    grade: Callable[[], float | None]


def _buy(offers: Sequence[Offer], budget: float) -> Spent:
    """The dearest offer that can be paid, and a share of the next for what is left; offers become dearer."""
    paid = max((index for index, offer in enumerate(offers) if offer.tokens <= budget), default=0)
    own = offers[paid]
    grade = own.grade()
    if paid + 1 == len(offers) or offers[0].tokens > budget:
        return Spent(grade, own.tokens, own.prompt_tokens, own.attempts, is_short=own.tokens < budget)
    following = offers[paid + 1]
    more = (budget - own.tokens) / (following.tokens - own.tokens)
    if more > 0:
        later = following.grade()
        grade = None if grade is None or later is None else (1 - more) * grade + more * later
    prompt = (1 - more) * own.prompt_tokens + more * following.prompt_tokens
    return Spent(grade, budget, prompt, (1 - more) * own.attempts + more * following.attempts)


def _cost(attempts: Sequence[Chain], criticises: bool) -> float:
    """Tokens of attempts together; a lone one needs no feedback. Never 0, or a budget would pay for any number."""
    if criticises and len(attempts) > 1:
        return float(sum(max(1, attempt.cost.tokens) for attempt in attempts))
    return float(sum(max(1, answer_tokens(attempt.steps[0]) or 0) for attempt in attempts))


def _prompt_cost(attempts: Sequence[Chain], criticises: bool) -> float:
    with_feedback = criticises and len(attempts) > 1
    return float(sum(prompt_through(attempt, 0, feedback=with_feedback) or 0 for attempt in attempts))


def _resampled(
    cases: Sequence[Case], revised: Sequence[Spent], name: str, resampling: Resampling
) -> Iterator[Strategy]:
    """Two attempts with feedback, the less doubted of them revised for what is left."""
    chains = [case.resampled_from() for case in cases]
    if not any(case.criticised for case in cases) or None in chains or any(each.tokens is None for each in revised):
        return
    spent = [
        _resample(case, chain, budget.tokens or 0.0)
        for case, chain, budget in zip(cases, chains, revised, strict=True)
        if chain is not None
    ]
    yield _strategy(f"resample, then revise = {name}", "resample-then-revise", spent, resampling, revised, name)


def _resample(case: Case, chain: Chain, budget: float) -> Spent:
    """The first answer; the less doubted of two; that with a revision, with two: what the budget pays for."""
    first, pair = case.first_attempt(), [case.first_attempt(), *case.criticised[:1]]

    def offer(attempts: Sequence[Chain], delivered: Chain, number: int) -> Offer:
        return Offer(
            _cost(attempts, criticises=True) + _after_feedback(tokens_through, delivered, number),
            _prompt_cost(attempts, criticises=True) + _after_feedback(prompt_through, delivered, number),
            len(attempts),
            lambda: case.grade_at(delivered, delivered_within(delivered, number)),
        )

    offers = [offer([first], first, 0)]
    if len(pair) > 1:
        offers += [offer(pair, chain, number) for number in range(len(chain.steps))]
    spent = _buy(offers, budget)
    return replace(spent, is_short=spent.is_short and chain.end is ChainEnd.CAPPED)


def _after_feedback(through: Callable[..., int | None], chain: Chain, number: int) -> int:
    """What revising up to ``number`` took, once the first answer had its feedback."""
    return (through(chain, number) or 0) - (through(chain, 0, feedback=True) or 0) if number else 0


def _longer(cases: Sequence[Case], revised: Sequence[Spent], name: str, resampling: Resampling) -> Iterator[Strategy]:
    if not all(case.longer is not None for case in cases):
        return
    spent = [
        Spent(
            case.grade_at(case.longer, case.longer.delivered), case.longer.cost.tokens, case.longer.cost.prompt_tokens
        )
        for case in cases
        if case.longer is not None
    ]
    found = _strategy(f"longer answer ≤ {name}", "longer", spent, resampling, revised, name)
    yield replace(found, note="may use all tokens of the chain, also those of the feedback on its last answer")


def _best_of_chain(cases: Sequence[Case], revised: Sequence[Spent], name: str, resampling: Resampling) -> Strategy:
    """The best answer of each chain: what choosing among its answers could reach at most."""
    best = []
    for case, own in zip(cases, revised, strict=True):
        grades = [case.grade(step) for step in case.chain.steps if step.is_deliverable]
        known = [grade for grade in grades if grade is not None]
        best.append(Spent(max(known, default=own.grade), own.tokens, own.prompt_tokens))
    return _strategy(f"best answer of {name}", "oracle", best, resampling, revised, name, is_oracle=True)


def _strategy(
    name: str,
    family: str,
    spent: Sequence[Spent],
    resampling: Resampling,
    budget: Sequence[Spent] | None = None,
    matched_to: str | None = None,
    is_oracle: bool = False,
) -> Strategy:
    difference, p_value = (
        (None, None)
        if budget is None
        else compare([each.grade for each in spent], [each.grade for each in budget], resampling)
    )
    return Strategy(
        name=name,
        family=family,
        score=estimate_mean([each.grade for each in spent], resampling),
        tokens=mean_known([each.tokens for each in spent]),
        prompt_tokens=mean_known([each.prompt_tokens for each in spent]),
        attempts=mean([each.attempts for each in spent]) or 0.0,
        matched_to=matched_to,
        budget=None if budget is None else mean_known([each.tokens for each in budget]),
        difference=difference,
        p_value=p_value,
        is_oracle=is_oracle,
        short=sum(each.is_short for each in spent),
    )


def compare(
    scores: Sequence[float | None], others: Sequence[float | None], resampling: Resampling
) -> tuple[Estimate, float | None]:
    """Mean difference question by question with its interval, and the sign test of it; None where nothing differs."""
    differences = [
        one - other for one, other in zip(scores, others, strict=True) if one is not None and other is not None
    ]
    better, worse = sum(each > 1e-12 for each in differences), sum(each < -1e-12 for each in differences)
    return estimate_mean(differences, resampling), sign_test(better, worse) if better + worse else None
