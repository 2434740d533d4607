"""Win rates as they would be if both answers were equally long.

Judges like long answers. A logistic regression of the outcome on the difference in length says what is left at
difference zero. It is fitted on the data at hand; AlpacaEval 2 fits its version, with a term for how hard each question
is, on its own leaderboard (Dubois et al. 2024, arXiv 2404.04475).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfee.eval.scoring.comparisons import Comparison
from selfee.eval.scoring.estimates import Array, Draws, Estimate, Resampling

PRIOR_SD = 2.0
"""Standard deviation of the normal prior of every slope: weak, it only keeps few or one-sided data from infinity."""

_STEPS = 60
_DRAWS_AT_A_TIME = 256  # of the resampled fits, so that memory stays small
_MOST_DRAWS = 1000  # each is a whole fit


@dataclass(frozen=True)
class LengthControl:
    """A length-controlled win rate and the fit it comes from."""

    win_rate: Estimate  # at equal lengths, 0 to 1
    slope: Estimate  # of tanh(difference / its standard deviation): above 0 = longer answers win
    spread: float  # standard deviation of the difference in length, in characters
    mean_model_length: float
    mean_baseline_length: float
    form: str = "length"  # or "length+difficulty"


def control_length(comparison: Comparison, resampling: Resampling) -> LengthControl | None:
    """Logistic regression of the outcome (a tie counts a half) on tanh(length difference / sd), read at zero.

    None where lengths are unknown or all equal. The interval comes from fitting again on resampled questions.
    """
    return _control(comparison, resampling, None)


def control_length_and_difficulty(
    comparison: Comparison, others: Sequence[Comparison], resampling: Resampling
) -> LengthControl | None:
    """AlpacaEval 2's form: a term more, how hard each question is for the other models against the same baseline.

    None with fewer than two other models that were judged on all questions. Unlike AlpacaEval's, difficulty is
    estimated from the data at hand: the other models' log-odds of winning on it, shrunk as by one tie each.
    """
    difficulty = _difficulty(comparison, others)
    return None if difficulty is None else _control(comparison, resampling, difficulty)


def _control(comparison: Comparison, resampling: Resampling, difficulty: Array | None) -> LengthControl | None:
    columns = comparison.columns
    difference = columns.length_difference
    if not difference.size or not np.isfinite(difference).all() or float(difference.std()) == 0.0:
        return None
    extra = None if difficulty is None else difficulty[columns.question]
    draws = Draws(len(comparison.questions), Resampling(min(resampling.draws, _MOST_DRAWS), resampling.seed))
    ones = np.ones((1, difference.size))
    rate, slope = fit(difference, columns.outcome, ones, extra)
    rates, slopes = [], []
    for start in range(0, draws.counts.shape[0], _DRAWS_AT_A_TIME):
        weights = draws.counts[start : start + _DRAWS_AT_A_TIME][:, columns.question]
        some_rates, some_slopes = fit(difference, columns.outcome, weights, extra)
        rates.append(some_rates)
        slopes.append(some_slopes)
    votes = comparison.votes
    return LengthControl(
        draws.estimate(float(rate[0]), np.concatenate(rates), len(votes)),
        draws.estimate(float(slope[0]), np.concatenate(slopes), len(votes)),
        float(difference.std()),
        float(np.mean([vote.model.length or 0 for vote in votes])),
        float(np.mean([vote.baseline.length or 0 for vote in votes])),
        "length" if extra is None else "length+difficulty",
    )


def fit(difference: Array, outcome: Array, weights: Array, extra: Array | None = None) -> tuple[Array, Array]:
    """Win rate at equal lengths and slope of the length term, for every row of ``weights``.

    Newton's method on all rows at once. The scale of the length term is each row's own standard deviation.
    """
    total = weights.sum(axis=1, keepdims=True)
    mean = (weights @ difference)[:, None] / total
    spread = np.sqrt((weights * (difference[None, :] - mean) ** 2).sum(axis=1, keepdims=True) / total)
    terms = [np.ones_like(weights), np.tanh(difference[None, :] / np.maximum(spread, 1e-12))]
    if extra is not None:
        terms.append(np.broadcast_to(extra[None, :], weights.shape))
    terms_dnp = np.stack(terms, axis=2)  # draws, votes, parameters
    prior = np.diag([0.0] + [1.0 / PRIOR_SD**2] * (len(terms) - 1))
    beta = np.zeros((weights.shape[0], len(terms)))
    for _ in range(_STEPS):
        chance = _sigmoid(np.einsum("dnp,dp->dn", terms_dnp, beta))
        gradient = np.einsum("dnp,dn->dp", terms_dnp, weights * (outcome[None, :] - chance)) - beta @ prior
        curvature = weights * chance * (1.0 - chance)
        hessian = np.einsum("dnp,dn,dnq->dpq", terms_dnp, curvature, terms_dnp, optimize=True) + prior
        hessian[:, 0, 0] += 1e-6  # a model that always wins has no finite intercept
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        step *= np.minimum(1.0, 4.0 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-12))
        beta += step
        if float(np.abs(step).max()) < 1e-9:
            break
    if extra is None:
        return _sigmoid(beta[:, 0]), beta[:, 1]
    at_zero = _sigmoid(beta[:, :1] + beta[:, 2:] * extra[None, :])
    return (weights * at_zero).sum(axis=1) / total[:, 0], beta[:, 1]


def _difficulty(comparison: Comparison, others: Sequence[Comparison]) -> Array | None:
    """For each question: how well the other models do on it against this baseline, centred; None if too few do."""
    wanted = set(comparison.questions)
    usable = [each for each in others if each.model != comparison.model and wanted <= set(each.questions)]
    if len({each.model for each in usable}) < 2:
        return None
    won = dict.fromkeys(comparison.questions, 0.0)
    seen = dict.fromkeys(comparison.questions, 0.0)
    for each in usable:
        for vote in each.votes:
            if vote.question_id in wanted:
                won[vote.question_id] += vote.outcome
                seen[vote.question_id] += 1.0
    rates = np.array([(won[question] + 0.5) / (seen[question] + 1.0) for question in comparison.questions])
    log_odds = np.log(rates / (1.0 - rates))
    centred: Array = log_odds - log_odds.mean()
    return centred


def _sigmoid(values: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-np.clip(values, -500.0, 500.0)))
