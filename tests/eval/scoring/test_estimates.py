"""Intervals and tests of significance: laws, and an independent library as oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.errors import UsageError
from selfee.eval.scoring.estimates import Draws, Estimate, Resampling, holm, share, sign_test


def test_the_interval_of_a_ratio_is_the_percentile_bootstrap_of_an_independent_library() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    rng = np.random.default_rng(5)
    above, below = rng.normal(17, 2, 80), rng.normal(16, 2, 80)
    mine = Draws(80, Resampling(20_000, 1)).ratio(above, below)
    theirs = stats.bootstrap(
        (above, below),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=rng,
    ).confidence_interval
    width = theirs.high - theirs.low
    assert mine.value == pytest.approx(above.sum() / below.sum())
    assert mine.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert mine.high == pytest.approx(theirs.high, abs=0.03 * width)


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_share_and_its_sign_test_are_those_of_an_independent_library(hits: int, misses: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    if hits + misses == 0:
        assert share(0, 0).value is None
        return
    test = stats.binomtest(hits, hits + misses, 0.5)
    expected = test.proportion_ci(0.95, method="wilson")
    found = share(hits, hits + misses)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert sign_test(hits, misses) == pytest.approx(test.pvalue, abs=1e-12)


def test_a_sign_test_of_thousands_is_still_exact() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    assert sign_test(2600, 2400) == pytest.approx(stats.binomtest(2600, 5000, 0.5).pvalue, rel=1e-9)


def test_the_same_seed_gives_the_same_interval_to_the_last_digit_and_another_seed_another() -> None:
    above, below = np.arange(1.0, 31.0), np.full(30, 10.0)
    one, again = (Draws(30, Resampling(500, 3)).ratio(above, below) for _ in range(2))
    assert one == again
    assert one != Draws(30, Resampling(500, 4)).ratio(above, below)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    hits = 0
    for trial in range(150):
        above, below = rng.gamma(4.0, 2.0, 60), rng.gamma(5.0, 2.0, 60)
        hits += Draws(60, Resampling(400, trial)).ratio(above, below).contains(4.0 / 5.0)
    assert 132 <= hits <= 149  # 142 are expected; the bootstrap of 60 cases falls a little short


def test_one_question_has_no_interval() -> None:
    assert Draws(1, Resampling()).ratio(np.array([9.0]), np.array([8.0])) == Estimate(9 / 8, count=1)


def test_nothing_to_divide_by_is_no_figure() -> None:
    assert Draws(3, Resampling()).ratio(np.ones(3), np.zeros(3)).value is None


@pytest.mark.parametrize("draws", [99, 1_000_001])
def test_too_few_or_too_many_draws_are_refused(draws: int) -> None:
    with pytest.raises(UsageError, match="draws"):
        Resampling(draws)


def test_holms_correction_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_corrected_p_values_never_fall_and_keep_their_order(values: list[float]) -> None:
    corrected = holm(values)
    assert all(after >= before for before, after in zip(values, corrected, strict=True))
    by_value = sorted(range(len(values)), key=lambda number: values[number])
    assert [corrected[number] for number in by_value] == sorted(corrected)
