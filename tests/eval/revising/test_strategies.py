"""Baselines get the tokens that revising spent, to the token, and nothing of them is written for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.eval.revising.made import attempt, case, chain, step

from selfee.chain.types import Chain, ChainEnd, Cost, Step
from selfee.eval.revising.cases import Case
from selfee.eval.revising.result import Strategy
from selfee.eval.revising.strategies import strategies_of
from selfee.eval.scoring.estimates import Resampling

DRAWS = Resampling(draws=200)

# 10 + 5 + 10 tokens for one revision
REVISED = chain(
    step("it is 1", False, needed=True, probability=0.9), step("it is 2", True, needed=False, probability=0.2)
)


def ways(cases: Sequence[Case], most: int = 1) -> dict[str, Strategy]:
    return {each.name: each for each in strategies_of(cases, most, DRAWS)}


def test_revising_costs_its_answers_and_the_feedback_between_them() -> None:
    found = ways([case(REVISED)])
    assert found["single answer"].tokens == 10
    assert found["revise 1"].tokens == 25
    assert found["revise 1"].prompt_tokens == 250
    assert (found["single answer"].score.value, found["revise 1"].score.value) == (0.0, 1.0)


def test_a_vote_takes_as_many_attempts_as_the_tokens_pay_for_and_a_share_of_one_more() -> None:
    right = [attempt("it is 2", True, needed=False) for _ in range(5)]
    vote = ways([case(REVISED, criticised=right)])["vote = revise 1"]
    assert vote.tokens == 25
    assert vote.attempts == pytest.approx(2.5)
    # The chain's own wrong answer comes first and wins a tie of two; with a third attempt, half of one, right wins.
    assert vote.score.value == pytest.approx(0.5)
    assert vote.matched_to == "revise 1"
    assert vote.difference is not None
    assert vote.difference.value == pytest.approx(-0.5)


def test_best_of_n_pays_for_its_critic_unless_there_is_only_one() -> None:
    attempts = [attempt("it is 2", True, needed=False, probability=0.1) for _ in range(3)]
    best = ways([case(REVISED, criticised=attempts)])["best of N by doubt = revise 1"]
    # one attempt costs 10, two cost 30 with their feedback: 25 tokens pay for 1 + 15/20
    assert best.attempts == pytest.approx(1.75)
    assert best.tokens == 25
    # a quarter of the wrong one alone, three quarters of the critic's choice of two, which is right
    assert best.score.value == pytest.approx(0.75)


def test_the_ceilings_are_marked_and_no_baseline_is_better() -> None:
    mixed = [attempt(f"it is {number}", number == 2, needed=number != 2, probability=0.5) for number in (3, 2, 4, 5)]
    found = ways([case(REVISED, criticised=mixed)])
    assert found["any of N = revise 1"].is_oracle
    assert found["best answer of revise 1"].is_oracle
    assert not found["vote = revise 1"].is_oracle
    ceiling = found["any of N = revise 1"].score.value or 0.0
    assert ceiling >= (found["vote = revise 1"].score.value or 0.0)


def doubted(answer: str, right: bool, doubt: float) -> Step:
    return step(answer, right, needed=doubt > 0.5, probability=doubt)


TWICE = chain(doubted("it is 1", False, 0.9), doubted("it is 3", False, 0.9), doubted("it is 4", False, 0.2))
# revising twice costs 10 + 5 + 10 + 5 + 10 = 40; two attempts with feedback 30, and a revision of one of them 10 more


def test_the_less_doubted_of_two_attempts_is_revised_for_what_is_left() -> None:
    second = chain(doubted("it is 5", False, 0.3))
    revised = chain(doubted("it is 5", False, 0.3), doubted("it is 2", True, 0.1), doubted("it is 6", False, 0.1))
    one = replace(case(TWICE, criticised=[second]), resampled=revised)
    found = ways([one], 2)["resample, then revise = revise 2"]
    assert (found.tokens, found.attempts, found.score.value, found.short) == (40, 2, 1.0, 0)
    assert found.prompt_tokens == 2 * 150 + 100
    assert "resample, then revise = revise 1" not in ways([one], 2)


def test_where_the_first_attempt_is_doubted_less_its_own_chain_is_revised() -> None:
    second = chain(doubted("it is 2", True, 0.95))
    found = ways([case(TWICE, criticised=[second])], 2)["resample, then revise = revise 2"]
    assert (found.tokens, found.score.value) == (40, 0.0)


def test_a_revision_that_can_be_paid_in_part_counts_in_part() -> None:
    second = chain(replace(doubted("it is 5", False, 0.3), answer_cost=Cost(12)))
    revised = chain(*second.steps, doubted("it is 2", True, 0.1))
    found = ways([replace(case(TWICE, criticised=[second]), resampled=revised)], 2)["resample, then revise = revise 2"]
    assert found.tokens == 40  # the pair costs 32, so that 8 of the revision's 10 are paid
    assert found.score.value == pytest.approx(0.8)


def test_without_a_second_attempt_everywhere_there_is_nothing_to_resample_from() -> None:
    second = chain(doubted("it is 5", False, 0.3))
    assert "resample, then revise = revise 2" not in ways([case(TWICE)], 2)
    assert "resample, then revise = revise 2" not in ways([case(TWICE, criticised=[second])], 2)  # not revised


def test_too_few_attempts_for_the_budget_are_told() -> None:
    vote = ways([case(REVISED, criticised=[attempt("it is 2", True, needed=False)])])["vote = revise 1"]
    assert vote.short == 1
    assert vote.tokens == 20


def test_a_chain_that_was_cut_spends_what_it_spent_and_delivers_what_it_had() -> None:
    cut = chain(step("it is 2", True, needed=True), step("it", None, finished=False, tokens=99), end=ChainEnd.CUT_OFF)
    found = ways([case(cut)])
    assert found["revise 1"].tokens == 10 + 5 + 99
    assert found["revise 1"].score.value == 1.0


def test_a_longer_answer_is_told_with_what_it_really_used() -> None:
    with_longer = Case("q", REVISED, longer=attempt("it is 2", True, tokens=18))
    longer = ways([with_longer])["longer answer ≤ revise 1"]
    assert (longer.tokens, longer.budget, longer.score.value) == (18, 25, 1.0)


def test_without_told_tokens_nothing_is_matched() -> None:
    steps = tuple(replace(each, answer_cost=None, feedback_cost=None) for each in REVISED.steps)
    bare = [Case("q", replace(REVISED, steps=steps), (attempt("it is 2", True, needed=False),))]
    found = strategies_of(bare, 1, DRAWS)
    assert {each.family for each in found} == {"single", "revise", "oracle"}
    assert {each.tokens for each in found} == {None}
    assert strategies_of([], 1, DRAWS) == ()


ATTEMPTS = st.lists(
    st.builds(
        lambda right, tokens, needed, probability: attempt(
            f"it is {2 if right else 3}", right, tokens=tokens, needed=needed, probability=probability
        ),
        st.booleans(),
        st.integers(1, 40),
        st.booleans(),
        st.floats(0, 1),
    ),
    max_size=6,
)


@given(ATTEMPTS, ATTEMPTS, st.integers(1, 200))
def test_no_baseline_ever_spends_more_than_it_was_given(
    criticised: list[Chain], plain: list[Chain], tokens: int
) -> None:
    own = chain(step("it is 1", False, needed=True), step("it is 2", True, tokens=tokens))
    matched = [
        each for each in strategies_of([case(own, criticised, plain)], 1, DRAWS) if each.name.endswith("= revise 1")
    ]
    assert bool(matched) == bool(criticised or plain)
    for each in matched:
        assert each.tokens is not None
        assert each.budget == 15 + tokens
        assert each.tokens <= each.budget + 1e-9
        assert each.short or each.tokens >= each.budget - 1e-9
        assert each.score.value is not None
        assert 0.0 <= each.score.value <= 1.0
