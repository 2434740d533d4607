"""How sure a figure is: intervals by resampling questions, intervals of shares, sign tests.

A question is what is drawn at random: both orders, all repeats and all revisions of one question stay together. All
figures of a report are made from the same draws, so that the difference of two figures has an interval of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from selfee.errors import UsageError

Array = npt.NDArray[np.float64]

Z_95 = 1.959963984540054
"""How many standard errors hold 95 % of a normal distribution, to each side."""


@dataclass(frozen=True)
class Resampling:
    """How intervals are made."""

    draws: int = 10_000  # of as many questions as there are, with replacement
    seed: int = 0  # the same seed gives the same intervals, to the last digit

    def __post_init__(self) -> None:
        if not 100 <= self.draws <= 1_000_000:
            raise UsageError(f"draws: {self.draws}; expected 100 to 1,000,000")


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval of 95 %."""

    value: float | None  # None = there is no case
    low: float | None = None  # of the interval; None = too few cases for one
    high: float | None = None
    count: int = 0  # cases that it rests on
    hits: int | None = None  # of a share: how many cases are so

    def contains(self, value: float) -> bool:
        """Whether the interval holds ``value``."""
        return self.low is not None and self.high is not None and self.low <= value <= self.high

    def scaled(self, factor: float) -> Estimate:
        """In other units: 100 makes percent of a share."""
        value, low, high = (None if each is None else each * factor for each in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.count, self.hits)


NO_ESTIMATE = Estimate(None)
"""A figure of which there is no case."""


@lru_cache(maxsize=4)
def _counts(num_questions: int, resampling: Resampling) -> Array:
    """The draws themselves, kept while one report asks for them again and again."""
    rng = np.random.default_rng(resampling.seed)
    shares = np.full(num_questions, 1.0 / num_questions)
    counts = rng.multinomial(num_questions, shares, size=resampling.draws).astype(np.float64)
    counts.flags.writeable = False
    return counts


class Draws:
    """Random draws of questions, the same for every figure about these questions."""

    def __init__(self, num_questions: int, resampling: Resampling) -> None:
        self.num_questions = num_questions
        self._resampling = resampling

    @property
    def counts(self) -> Array:
        """How often each question was drawn: one row a draw."""
        return _counts(self.num_questions, self._resampling)

    def ratio(self, above: Array, below: Array, count: int | None = None) -> Estimate:
        """Sum over sum, both given by question; ``count`` is what the figure rests on, if not questions."""
        total = float(below.sum())
        if total == 0.0:
            return Estimate(None)
        return self.estimate(float(above.sum()) / total, self.ratios(above, below), count)

    def ratios(self, above: Array, below: Array) -> Array:
        """Sum over sum of every draw; NaN where nothing was drawn that counts."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Array = np.divide(self.counts @ above, self.counts @ below)
        return np.where(np.isfinite(found), found, np.nan)

    def estimate(self, value: float, drawn: Array, count: int | None = None) -> Estimate:
        """A figure with the middle 95 % of what the draws gave for it."""
        known = drawn[np.isfinite(drawn)]
        if self.num_questions < 2 or known.size < 100:
            return Estimate(value, count=self.num_questions if count is None else count)
        low, high = np.percentile(known, (2.5, 97.5))
        return Estimate(value, float(low), float(high), self.num_questions if count is None else count)


def sums_by(where: npt.NDArray[np.int64], values: Array, num_questions: int) -> Array:
    """The sum of the values of each question; ``where`` is the number of the question that a value belongs to."""
    return np.bincount(where, weights=values, minlength=num_questions).astype(np.float64)


def share(hits: int, count: int) -> Estimate:
    """A share of independent cases, with Wilson's interval: right also for few cases and for none or all of them."""
    if count == 0:
        return Estimate(None, hits=0)
    observed, z = hits / count, Z_95
    middle = (observed + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(observed * (1 - observed) / count + z * z / (4 * count * count))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Estimate(observed, 0.0 if hits == 0 else low, 1.0 if hits == count else high, count, hits)


def sign_test(better: int, worse: int) -> float:
    """Probability of a split at least as uneven, if better and worse were equally likely (two-sided, exact)."""
    total, fewer = better + worse, min(better, worse)
    below = sum(math.comb(total, number) for number in range(fewer + 1))
    return min(1.0, 2 * below / (1 << total))  # whole numbers of any size: exact for any total


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for having looked at all of them (Holm's method), in the same order."""
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    corrected, highest = [1.0] * len(p_values), 0.0
    for rank, number in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[number]))
        corrected[number] = highest
    return corrected
