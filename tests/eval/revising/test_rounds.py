"""What each revision did is counted over the chains that have both answers, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.eval.revising.made import case, chain, step

from selfee.chain.types import ChainEnd, Check
from selfee.eval.revising.cases import POINTS, Case
from selfee.eval.revising.rounds import attempts_of, delivery_of, rounds_of
from selfee.eval.scoring.estimates import Resampling

DRAWS = Resampling(draws=200)

HELPED = chain(step("it is 1", False, needed=True), step("it is 2", True, needed=False))
HURT = chain(step("it is 2", True, needed=True), step("it is 3", False, needed=False))
STAYED = chain(step("it is 2", True, needed=False), step("it is 2", True, needed=False))
CUT = chain(step("it is 2", True, needed=True), step("it is", None, finished=False), end=ChainEnd.CUT_OFF)


def cases() -> list[Case]:
    return [case(one, name=str(number)) for number, one in enumerate((HELPED, HURT, STAYED, CUT))]


def test_a_round_counts_who_was_helped_hurt_and_left_alone() -> None:
    (only,) = rounds_of(cases(), DRAWS)
    assert (only.number, only.chains, only.graded) == (1, 3, 3)
    assert [(each.hits, each.count) for each in (only.helped, only.hurt, only.unchanged)] == [(1, 3)] * 3
    assert only.wrong_to_right is not None
    assert only.right_to_wrong is not None
    assert (only.wrong_to_right.hits, only.wrong_to_right.count) == (1, 1)
    assert (only.right_to_wrong.hits, only.right_to_wrong.count) == (1, 2)
    assert only.change.value == 0.0
    assert only.identical == 1
    assert only.copied.value == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert only.edited.value == pytest.approx((1 / 3 + 1 / 3 + 0) / 3)


def test_a_cut_revision_is_not_delivered_and_the_answer_before_it_counts() -> None:
    first, second = attempts_of(cases(), DRAWS)
    assert (first.written, second.written) == (4, 3)
    assert first.score.value == first.delivered_score.value == 0.75
    assert second.score.value == pytest.approx(2 / 3)
    assert second.delivered_score.value == 0.75  # HELPED, STAYED and what CUT falls back to


def test_an_answer_that_never_came_is_wrong_where_there_is_right_and_wrong() -> None:
    nothing = case(chain(step("it", None, finished=False), end=ChainEnd.CUT_OFF))
    (first,) = attempts_of([nothing], DRAWS)
    assert first.written == 0
    assert first.score.value is None
    assert first.delivered_score.value == 0.0
    points = replace(nothing, scale=POINTS)
    assert attempts_of([points], DRAWS)[0].delivered_score.value is None


def test_an_answer_whose_check_failed_is_in_no_figure() -> None:
    broken = replace(STAYED.steps[1], check=Check(None, failed=True))
    (only,) = rounds_of([case(replace(STAYED, steps=(STAYED.steps[0], broken)))], DRAWS)
    assert (only.chains, only.graded) == (1, 0)
    assert only.helped.value is None


def test_points_rise_and_fall_without_right_and_wrong() -> None:
    rising = Case("q", chain(step("a", None, points=7.0), step("b", None, points=8.5)), scale=POINTS)
    (only,) = rounds_of([rising], DRAWS)
    assert only.helped.hits == 1
    assert only.change.value == 1.5
    assert only.wrong_to_right is None


def test_delivery_counts_ends_cuts_and_tokens() -> None:
    found = delivery_of(cases())
    assert found.chains == 4
    assert found.revisions == {"1": 4}
    assert found.delivered == {"0": 1, "1": 3}
    assert found.ends == {"capped": 3, "cut_off": 1}
    assert found.cuts == {"length": 1}
    assert (found.well_formed, found.cut, found.fell_back) == (3, 1, 1)
    assert found.tokens == 3 * 30 + 25
    assert found.delivered_tokens == 40
    assert found.tokens_per_delivered == pytest.approx(115 / 40)


def test_tokens_that_nobody_told_are_unknown_and_not_zero() -> None:
    untold = replace(HELPED, steps=tuple(replace(each, answer_cost=None, feedback_cost=None) for each in HELPED.steps))
    found = delivery_of([case(untold)])
    assert found.tokens is found.delivered_tokens is found.tokens_per_delivered is found.seconds is None


def test_nothing_gives_no_figures() -> None:
    assert rounds_of([], DRAWS) == ()
    assert attempts_of([], DRAWS) == ()
    assert delivery_of([]).chains == 0
