"""How far a model's predictions are from those of the model it was made of: llama.cpp's statistics.

At every scored position the two distributions over the next token are compared: KL divergence (in nats: the sum of
p_base * (ln p_base - ln p)), Δp (the probability of the token that came, minus the base's), and whether both find the
same token likeliest. Errors are standard errors of means; the two perplexities are measured on the same tokens, and
their covariance is taken into account.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from selfee.errors import UsageError
from selfee.eval.base import Base, LogProbabilities
from selfee.eval.chunks import Chunks, Tokens
from selfee.eval.perplexity import Doubles, Estimate, Evaluator, blocks, log_softmax

_KLD_PERCENTILES = ("99.9", "99", "95", "90", "50", "10", "5", "1", "0.1")
_DP_PERCENTILES = ("99.9", "99", "95", "90", "75", "50", "25", "10", "5", "1", "0.1")


@dataclass(frozen=True)
class Spread:
    """How values are distributed over positions; ``percentiles`` by name, "50" is the median."""

    mean: Estimate
    max: float
    min: float
    percentiles: dict[str, float]

    @classmethod
    def of(cls, values: Doubles, names: tuple[str, ...]) -> Spread:
        """Of one value a position; percentiles lie between neighbours in proportion."""
        found = np.percentile(values, [float(name) for name in names])
        percentiles = dict(zip(names, found.tolist(), strict=True))
        return cls(Estimate.of_mean(values), float(values.max()), float(values.min()), percentiles)


@dataclass(frozen=True)
class Divergence:
    """A model compared with its base."""

    positions: int
    ppl: Estimate
    base_ppl: Estimate
    ppl_difference: Estimate  # ppl - base_ppl
    ln_ratio: Estimate  # ln(ppl / base_ppl)
    correlation: float  # of the surprises, -1 to 1
    kld: Spread
    dp: Spread
    dp_rms: Estimate
    same_top: Estimate  # share of positions


def compare(
    evaluator: Evaluator, base: Base, chunks: Chunks, on_chunk: Callable[[int, float], None] | None = None
) -> Divergence:
    """Measure a model against its base on the same text.

    ``on_chunk`` is told how many chunks are done and the mean divergence so far. Raises BadFileError where a model
    computes no numbers, UsageError where the vocabularies differ in size.
    """
    values = np.empty((_Row.COUNT, len(chunks), chunks.scored))
    for index in range(len(chunks)):
        at = 0
        base_rows = _Portions(base.slices(chunks, index))
        for logits, targets in evaluator.slices(chunks, index):
            if logits.shape[1] != base.vocabulary:
                raise UsageError(
                    f"the model has {logits.shape[1]} tokens in its vocabulary and the base {base.vocabulary}; "
                    "expected as many; name the model that this one was made of"
                )
            for part in blocks(*logits.shape):
                rows = log_softmax(logits[part])
                values[:, index, at : at + len(rows)] = _compare_rows(rows, base_rows.take(len(rows)), targets[part])
                at += len(rows)
        if on_chunk is not None:
            on_chunk(index + 1, float(values[_Row.KLD, : index + 1].mean()))
    return _statistics(values.reshape(_Row.COUNT, -1))


class _Row:
    """What is kept of each position."""

    SURPRISE, BASE_SURPRISE, KLD, SAME_TOP, COUNT = range(5)


class _Portions:
    """Rows of a stream of portions, in portions of another size."""

    def __init__(self, portions: Iterator[LogProbabilities]) -> None:
        self._portions = portions
        self._left: LogProbabilities | None = None

    def take(self, count: int) -> LogProbabilities:
        taken: list[LogProbabilities] = []
        while count:
            rows = next(self._portions) if self._left is None else self._left
            taken.append(rows[:count])
            self._left = rows[count:] if len(rows) > count else None
            count -= len(taken[-1])
        return taken[0] if len(taken) == 1 else np.concatenate(taken)


def _compare_rows(rows: Doubles, base: LogProbabilities, targets: Tokens) -> Doubles:
    """What is kept of each of some positions, [_Row.COUNT, rows]."""
    each = np.arange(len(rows))
    weights = np.exp(base.astype(np.float64))
    if base.dtype == np.float32:  # from a file, where smaller ones have no value of their own
        weights[base <= -16] = 0
    kept = np.empty((_Row.COUNT, len(rows)))
    kept[_Row.SURPRISE] = -rows[each, targets]
    kept[_Row.BASE_SURPRISE] = -base[each, targets]
    kept[_Row.SAME_TOP] = rows.argmax(axis=1) == base.argmax(axis=1)
    kept[_Row.KLD] = np.einsum("rv,rv->r", weights, base - rows)
    return kept


def _statistics(values: Doubles) -> Divergence:
    surprise, base_surprise = values[_Row.SURPRISE], values[_Row.BASE_SURPRISE]
    count = surprise.size
    ln_ppl, ln_base = Estimate.of_mean(surprise), Estimate.of_mean(base_surprise)
    ppl, base_ppl = ln_ppl.exponential(), ln_base.exponential()
    dp = np.exp(-surprise) - np.exp(-base_surprise)
    squared = Estimate.of_mean(np.square(dp))
    rms = math.sqrt(squared.value)
    same = float(values[_Row.SAME_TOP].mean())
    return Divergence(
        positions=count,
        ppl=ppl,
        base_ppl=base_ppl,
        ppl_difference=_difference(ppl, base_ppl, surprise, base_surprise),
        # Both are means over the same positions: the error of their difference is that of the mean difference.
        ln_ratio=Estimate.of_mean(surprise - base_surprise),
        correlation=_correlation(surprise, base_surprise),
        kld=Spread.of(values[_Row.KLD], _KLD_PERCENTILES),
        dp=Spread.of(dp, _DP_PERCENTILES),
        dp_rms=Estimate(rms, 0.5 / rms * squared.error if rms else 0.0),
        same_top=Estimate(same, math.sqrt(same * (1 - same) / (count - 1)) if count > 1 else 0.0),
    )


def _difference(ppl: Estimate, base_ppl: Estimate, surprise: Doubles, base_surprise: Doubles) -> Estimate:
    """Of the perplexities; its error by their slopes, which are the perplexities themselves."""
    if not math.isfinite(ppl.value) or not math.isfinite(base_ppl.value):
        return Estimate(math.inf, math.inf)
    spread = Estimate.of_mean(ppl.value * surprise - base_ppl.value * base_surprise)
    return Estimate(ppl.value - base_ppl.value, spread.error)


def _correlation(one: Doubles, other: Doubles) -> float:
    """How far two vary together, -1 to 1; 1 where either does not vary."""
    product = float(one.std() * other.std())
    return float(((one - one.mean()) * (other - other.mean())).mean()) / product if product else 1.0
