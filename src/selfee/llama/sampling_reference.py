"""What every step of the sampler chain means, in plain Python: the slow twin of ``native/sampling.cpp``.

Candidates are a dict from token id to logit, in the order of ids; all arithmetic is in double precision. Sums run in
that order, or from the best down where a step sorts (equal logits: lower id first).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from selfee.llama.sampling import SamplerConfig

Candidates = dict[int, float]

_GOLDEN, _WORD = 0x9E3779B97F4A7C15, (1 << 64) - 1


def uniform(seed: int, draw: int) -> float:
    """The number in [0, 1) that decides the ``draw``-th draw: splitmix64 of the seed and of the number of the draw."""
    start = _mix((seed + _GOLDEN) & _WORD)
    return (_mix((start + (draw + 1) * _GOLDEN) & _WORD) >> 11) * 2.0**-53


def _mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _WORD
    return z ^ (z >> 31)


class ReferenceSampler:
    """The same face as ``selfee.llama.sampling.Sampler``."""

    def __init__(self, config: SamplerConfig, newline: int | None = None) -> None:
        self.config = config
        self._exempt = None if config.penalize_newline else newline
        self.begin([])

    def begin(self, tokens: Sequence[int]) -> None:
        self._history = list(tokens)
        self._draws = 0
        self._mu = 2 * self.config.mirostat_tau

    def read(self, tokens: Sequence[int]) -> None:
        self._history += tokens

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        config = self.config
        candidates = {token: float(logit) + config.logit_bias.get(token, 0.0) for token, logit in enumerate(logits)}
        if config.temperature == 0 or config.mirostat:
            if "penalties" in config.samplers:
                candidates = self.penalties(candidates)
            if config.temperature == 0:
                return self._remember(max(candidates, key=lambda token: (candidates[token], -token)))
            return self._draw(self.cut_by_mirostat(self.temperature(candidates)))
        for name in config.samplers:
            candidates = getattr(self, name)(candidates)
        return self._draw(candidates)

    def penalties(self, candidates: Candidates) -> Candidates:
        """Make recent tokens less likely (Keskar et al. 2019; OpenAI's frequency and presence penalties)."""
        config, last_n = self.config, self.config.repeat_last_n
        window = self._history if last_n < 0 else self._history[len(self._history) - min(last_n, len(self._history)) :]
        for token, count in Counter(window).items():
            if token in candidates and token != self._exempt:
                logit = candidates[token]
                logit = logit / config.repeat_penalty if logit > 0 else logit * config.repeat_penalty
                candidates[token] = logit - (count * config.frequency_penalty + config.presence_penalty)
        return candidates

    def top_k(self, candidates: Candidates) -> Candidates:
        """Keep the k most likely."""
        return _keep(candidates, best_first(candidates)[: self.config.top_k or None])

    def tail_free(self, candidates: Candidates) -> Candidates:
        """Cut where the curvature of the sorted probabilities has been used up (Bricken 2019)."""
        if self.config.tail_free_z >= 1 or len(candidates) <= 2:
            return candidates
        p, order = softmax(candidates), best_first(candidates)
        sorted_p = [p[token] for token in order]
        curvature = [abs((a - b) - (b - c)) for a, b, c in zip(sorted_p, sorted_p[1:], sorted_p[2:])]
        total, used = _sum(curvature), 0.0
        for rank, value in enumerate(curvature):
            used += value / total if total > 1e-6 else 1 / len(curvature)
            if used > self.config.tail_free_z and rank >= 1:
                return _keep(candidates, order[:rank])
        return candidates

    def typical(self, candidates: Candidates) -> Candidates:
        """Keep the tokens whose surprise is closest to the expected surprise (Meister et al. 2022)."""
        if self.config.typical_p >= 1:
            return candidates
        p = softmax(candidates)
        entropy = 0.0
        for value in p.values():
            entropy -= value * math.log(value) if value > 0 else 0.0
        distance = {token: abs(-math.log(value) - entropy) if value > 0 else math.inf for token, value in p.items()}
        kept: list[int] = []
        total = 0.0
        for token in sorted(candidates, key=lambda token: (distance[token], token)):
            if total > self.config.typical_p:
                break
            kept.append(token)
            total += p[token]
        return _keep(candidates, kept)

    def top_p(self, candidates: Candidates) -> Candidates:
        """Keep the most likely until their probabilities reach p (Holtzman et al. 2020); the one that crosses stays."""
        if self.config.top_p >= 1:
            return candidates
        p, order, total = softmax(candidates), best_first(candidates), 0.0
        for rank, token in enumerate(order):
            total += p[token]
            if total >= self.config.top_p:
                return _keep(candidates, order[: rank + 1])
        return candidates

    def min_p(self, candidates: Candidates) -> Candidates:
        """Keep tokens at least this fraction as likely as the best."""
        if self.config.min_p <= 0:
            return candidates
        limit = max(candidates.values()) + math.log(self.config.min_p)
        return {token: logit for token, logit in candidates.items() if not logit < limit}

    def temperature(self, candidates: Candidates) -> Candidates:
        """Divide the logits: above 1 flattens, below 1 sharpens."""
        return {token: logit / self.config.temperature for token, logit in candidates.items()}

    def cut_by_mirostat(self, candidates: Candidates) -> Candidates:
        """Cut so that the surprise to expect is mu, which follows what was drawn (Basu et al. 2021; llama.cpp)."""
        p, order = softmax(candidates), best_first(candidates)
        if self.config.mirostat == 1:
            return _keep(candidates, order[: self._mirostat_count([p[token] for token in order], len(order))])
        kept = [token for token in order[1:] if p[token] > 0 and -math.log2(p[token]) <= self._mu]
        return _keep(candidates, [order[0], *kept])

    def _mirostat_count(self, p: Sequence[float], n: int) -> int:
        """Probabilities fall as rank^-s; s is estimated from the best hundred."""
        products = squares = 0.0
        for rank, (upper, lower) in enumerate(pairwise(p[:100]), start=1):
            if lower == 0:
                break
            t, b = math.log((rank + 1) / rank), math.log(upper / lower)
            products += t * b
            squares += t * t
        if squares == 0:
            return 1
        with np.errstate(all="ignore"):  # s = 1 exactly, or no slope at all: not a number, and one token is kept
            s = np.float64(products) / squares
            epsilon = s - 1
            tail = 1 - _power(float(n), -float(epsilon))
            inner = epsilon * _power(2.0, self._mu) / np.float64(tail)
            count = _power(float(inner), float(np.float64(1) / s))
        return int(min(count, n)) if count >= 1 else 1

    def _draw(self, candidates: Candidates) -> int:
        u, total, chosen = uniform(self.config.seed % (1 << 64), self._draws), 0.0, -1
        p = softmax(candidates)
        for token, value in p.items():
            if value > 0:
                chosen = token
                total += value
                if u < total:
                    break
        if self.config.mirostat:
            self._mu -= self.config.mirostat_eta * (-math.log2(p[chosen]) - self.config.mirostat_tau)
        return self._remember(chosen)

    def _remember(self, token: int) -> int:
        self._draws += 1
        self._history.append(token)
        return token


def best_first(candidates: Candidates) -> list[int]:
    """Token ids from the most likely down; equals by id."""
    return sorted(candidates, key=lambda token: (-candidates[token], token))


def softmax(candidates: Candidates) -> Candidates:
    """Probabilities of the candidates."""
    largest = max(candidates.values())
    exponentials = {token: math.exp(logit - largest) for token, logit in candidates.items()}
    total = _sum(exponentials.values())
    return {token: value / total for token, value in exponentials.items()}


def _keep(candidates: Candidates, tokens: Sequence[int]) -> Candidates:
    kept = set(tokens)
    return {token: logit for token, logit in candidates.items() if token in kept}


def _sum(values: Iterable[float]) -> float:
    total = 0.0
    for value in values:  # one after another: the built-in sum() compensates its rounding
        total += value
    return total


def _power(base: float, exponent: float) -> float:
    """C's pow: infinity and NaN instead of exceptions."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan if base < 0 else math.inf
