"""The length-controlled win rate: an independent regression as oracle, and planted preferences found again."""

from __future__ import annotations

import numpy as np
import pytest
from tests.eval.scoring.made import judged

from selfee.eval.scoring.comparisons import Comparison, compare_all
from selfee.eval.scoring.estimates import Resampling
from selfee.eval.scoring.length import PRIOR_SD, control_length, control_length_and_difficulty, fit


def test_the_fit_is_the_minimum_that_an_independent_optimiser_finds() -> None:
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed")
    rng = np.random.default_rng(2)
    difference = rng.normal(300.0, 500.0, 120)
    outcome = rng.choice([0.0, 0.5, 1.0], 120)
    hardness = rng.normal(0.0, 1.0, 120)
    terms = np.stack([np.ones(120), np.tanh(difference / difference.std()), hardness], axis=1)

    def loss(beta: np.ndarray) -> float:
        scores = terms @ beta
        prior = float((beta[1:] ** 2).sum()) / (2 * PRIOR_SD**2)
        return float((np.logaddexp(0.0, scores) - outcome * scores).sum()) + prior

    found = optimize.minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-8}).x
    rate, slope = fit(difference, outcome, np.ones((1, 120)), hardness)
    assert slope[0] == pytest.approx(found[1], abs=1e-4)
    assert rate[0] == pytest.approx(float((1 / (1 + np.exp(-(found[0] + found[2] * hardness)))).mean()), abs=1e-4)


def test_without_a_prior_to_speak_of_the_fit_is_the_regression_of_an_independent_library() -> None:
    api = pytest.importorskip("statsmodels.api", reason="statsmodels is not installed")
    rng = np.random.default_rng(4)
    difference = rng.normal(100.0, 400.0, 3000)
    chance = 1 / (1 + np.exp(-(0.4 + 0.8 * np.tanh(difference / difference.std()))))
    outcome = (rng.random(3000) < chance).astype(float)
    terms = api.add_constant(np.tanh(difference / difference.std()))
    beta = api.GLM(outcome, terms, family=api.families.Binomial()).fit().params
    rate, slope = fit(difference, outcome, np.ones((1, 3000)))
    assert rate[0] == pytest.approx(1 / (1 + np.exp(-beta[0])), abs=0.002)
    assert slope[0] == pytest.approx(beta[1], rel=0.01)


def comparison(gain: float, longer: float, seed: int = 0) -> Comparison:
    """A model that is as good as the baseline but longer, before a judge that goes by length and nothing else."""
    rng = np.random.default_rng(seed)
    extra = {f"q{number}": float(rng.normal(longer, 300.0)) for number in range(300)}

    def decide(question: str, first: str, second: str, repeat: int) -> tuple[float, float]:
        sign = 1.0 if first == "model" else -1.0
        chance = 1 / (1 + np.exp(-sign * gain * np.tanh(extra[question] / 300.0)))
        return (9.0, 3.0) if rng.random() < chance else (3.0, 9.0)

    def length(question: str, name: str) -> int:
        return 1000 + (round(extra[question]) if name == "model" else 0)

    return compare_all(list(judged(decide, questions=300, lengths=length)))[0]


def test_a_model_that_only_wins_by_length_is_worth_a_half_at_equal_lengths() -> None:
    made = comparison(gain=1.5, longer=250.0)
    control = control_length(made, Resampling(1000))
    assert control is not None
    assert made.columns.outcome.mean() > 0.62
    assert control.win_rate.contains(0.5)
    assert control.slope.contains(1.5)


def test_a_model_that_always_wins_gets_a_finite_figure() -> None:
    made = compare_all(
        list(
            judged(lambda q, a, b, r: (9.0, 1.0) if a == "model" else (1.0, 9.0), lengths=lambda q, n: len(q) * len(n))
        )
    )[0]
    control = control_length(made, Resampling(200))
    assert control is not None
    assert control.win_rate.value is not None
    assert 0.9 < control.win_rate.value <= 1.0


def test_unknown_or_equal_lengths_give_no_figure() -> None:
    decide = lambda q, a, b, r: (9.0, 8.0)  # noqa: E731
    unknown = compare_all(list(judged(decide)))[0]
    equal = compare_all(list(judged(decide, lengths=lambda question, name: 100)))[0]
    assert control_length(unknown, Resampling(200)) is None
    assert control_length(equal, Resampling(200)) is None


def test_difficulty_needs_two_other_models_on_the_same_questions() -> None:
    ones = [comparison(1.0, 200.0, seed) for seed in range(3)]
    others = [
        Comparison(f"model {number}", one.baseline, one.judge, one.form, one.votes) for number, one in enumerate(ones)
    ]
    assert control_length_and_difficulty(others[0], others[:2], Resampling(200)) is None
    found = control_length_and_difficulty(others[0], others, Resampling(200))
    assert found is not None
    assert found.form == "length+difficulty"
    assert found.win_rate.contains(0.5)
