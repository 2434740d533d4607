"""How many guesses are verified: as many as win more than they cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.llama.pace import MOST_GUESSES, Pace

CHANCES = st.lists(st.floats(0, 1), max_size=80).map(lambda chances: sorted(chances, reverse=True))


def measured(costs: dict[int, float], won: int = 1) -> Pace:
    """A pace that knows these costs, and lately got ``won`` tokens from each pass of the first size."""
    pace = Pace()
    for _ in range(30):
        for tokens, seconds in costs.items():
            pace.observe(tokens, seconds, won)
    first, seconds = next(iter(costs.items()))
    for _ in range(100):
        pace.observe(first, seconds, won)
    return pace


def test_where_a_pass_costs_the_same_whatever_its_size_all_likely_guesses_are_verified() -> None:
    pace = measured({1: 0.1, 4: 0.1, 64: 0.1})
    assert pace.choose(1, [[0.9, 0.5, 0.2, 0.05]]) == [4]


def test_where_every_token_costs_a_pass_none_is() -> None:
    pace = measured({1: 0.1, 2: 0.2, 64: 6.4})
    assert pace.choose(1, [[0.8, 0.7, 0.6]]) == [0]


def test_between_the_two_the_likely_ones_are() -> None:
    pace = measured({1: 0.1, 2: 0.13, 64: 2.0})  # a guess costs about 0.3 of a token
    assert pace.choose(1, [[0.9, 0.6, 0.2, 0.1]]) == [2]


def test_a_step_in_the_cost_is_climbed_for_much_and_not_for_little() -> None:
    costs = dict.fromkeys(range(1, 9), 0.1) | dict.fromkeys(range(9, 17), 0.2)
    pace = measured(costs)
    assert pace.choose(1, [[0.9] * 7 + [0.1] * 9]) == [7]
    assert pace.choose(1, [[0.9] * 15]) == [15]


@given(st.lists(CHANCES, max_size=5), st.integers(0, 300))
def test_no_text_gets_more_guesses_than_it_has(chances: list[list[float]], needed: int) -> None:
    lengths = measured({1: 0.1, 8: 0.11, 400: 0.9}).choose(needed, chances)
    assert len(lengths) == len(chances)
    for length, own in zip(lengths, chances, strict=True):
        assert 0 <= length <= min(len(own), MOST_GUESSES)


def test_texts_share_a_pass_by_what_is_likeliest() -> None:
    pace = measured({1: 0.1, 2: 0.13, 64: 2.0}, won=2)
    sure, unsure = pace.choose(2, [[0.99, 0.98, 0.97], [0.3, 0.2, 0.1]])
    assert (sure, unsure) == (3, 0)
    unsure, sure = pace.choose(2, [[0.3, 0.2, 0.1], [0.99, 0.98, 0.97]])
    assert (sure, unsure) == (3, 0)


def test_a_pass_that_several_texts_share_counts_once() -> None:
    together, one = measured({1: 0.1, 4: 0.12}), measured({1: 0.1, 4: 0.12})
    for _ in range(50):
        one.observe(4, 0.3, 8)
        for _ in range(4):
            together.observe(4, 0.3, 2, 1 / 4)
    assert together._won / together._spent == pytest.approx(one._won / one._spent, rel=0.03)
    assert together._spent == pytest.approx(one._spent, rel=0.03)


def test_no_text_ever_gets_more_than_the_most() -> None:
    pace = measured({1: 0.1, 400: 0.1})
    assert pace.choose(2, [[1.0] * 200, [0.9] * 70]) == [MOST_GUESSES, MOST_GUESSES]


def test_one_disturbed_pass_is_not_believed() -> None:
    pace = measured({1: 0.1, 4: 0.12, 64: 1.0})
    before = pace.choose(1, [[0.8, 0.7, 0.6]])
    pace.observe(4, 30.0, 1)
    assert pace.cost(4) < 0.2
    assert pace.choose(1, [[0.8, 0.7, 0.6]]) == before


def test_one_disturbed_pass_of_several_texts_is_not_believed_either() -> None:
    """Each of them reports it."""
    pace = measured({1: 0.1, 8: 0.12, 64: 1.0})
    before = pace.choose(8, [[0.8, 0.7, 0.6]] * 8), pace.cost(8), pace.cost(5)
    for _ in range(8):
        pace.observe(8, 30.0, 1, 1 / 8)
    assert pace.cost(8) == pytest.approx(before[1])
    assert pace.cost(5) == pytest.approx(before[2], rel=0.2)
    for _ in range(20 * 8):
        pace.observe(8, 0.2, 1, 1 / 8)
    assert pace.cost(8) == pytest.approx(0.2), "but what lasts is"


def test_nothing_measured_yet_is_no_reason_to_fail() -> None:
    pace = Pace()
    assert pace.cost(1) > 0
    assert pace.choose(1, [[0.99, 0.98]]) == [2]
    assert pace.choose(0, []) == []
