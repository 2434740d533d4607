"""The sampler of llama.cpp's ``main`` of June 2023 (2d43387), with what was wrong in it, for ``--compat 2023``.

The same steps in the same order as ``sampling.py``, but: top-p drops the token that crosses p; the newline is penalised
whatever was asked; the penalties look at a window that begins full of token 0; numbers are float32; draws come from a
Mersenne twister by way of C++'s ``discrete_distribution`` (spec: ggml-formats §7). The most likely token is then chosen
as there; a drawn one may differ where a sum of float32 rounds otherwise than a compiler of that time made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError
from selfee.llama.sampling import SamplerConfig

Floats = npt.NDArray[np.float32]

_MOST_FITTED = 100  # mirostat 1 estimates the slope from so many


class _Candidates(NamedTuple):
    """Tokens from the most likely down, and their logits."""

    ids: npt.NDArray[np.int64]
    logits: Floats

    def first(self, count: int) -> _Candidates:
        return _Candidates(self.ids[:count], self.logits[:count])

    def p(self) -> Floats:
        grown: Floats = np.exp(self.logits - self.logits[0])
        shares: Floats = grown / np.cumsum(grown, dtype=np.float32)[-1]
        return shares


class Sampler2023:
    """The same face as ``selfee.llama.sampling.Sampler``.

    ``window`` is the number of tokens remembered, the context's length. Of the configuration ``min_p``, ``samplers``
    and ``penalize_newline`` have no effect: there was nothing of the kind, or it did nothing.
    """

    def __init__(self, config: SamplerConfig, window: int) -> None:
        self.config = config
        self._window = window
        self.begin([])

    def begin(self, tokens: Sequence[int]) -> None:
        """Forget everything; ``tokens`` are those before the first draw."""
        self._recent = ([0] * self._window + list(tokens))[-self._window :]
        self._random = np.random.RandomState(self.config.seed % (1 << 32))  # seeded as std::mt19937 is
        self._mu = np.float32(2 * self.config.mirostat_tau)

    def read(self, tokens: Sequence[int]) -> None:
        """Go on after these, which somebody else wrote."""
        self._recent = (self._recent + list(tokens))[-self._window :]

    def sample(self, logits: Floats) -> int:
        """Draw the token that follows raw logits [vocabulary]. Raises BadFileError if one is not a number."""
        values = np.array(logits, dtype=np.float32)
        for token, bias in self.config.logit_bias.items():
            if token < values.size:
                values[token] += np.float32(bias)
        if np.isnan(values).any() or not np.isfinite(values).any() or np.isposinf(values).any():
            raise BadFileError(
                "sampling: no logit to choose from is a finite number; expected finite ones; the model file is "
                "damaged, or logit_bias bans every token"
            )
        self._penalise(values)
        token = int(values.argmax()) if self.config.temperature <= 0 else self._chosen(values)
        self.read([token])
        return token

    def _penalise(self, values: Floats) -> None:
        """Once for each token of the window; the frequency counts."""
        config = self.config
        count = min(self._window if config.repeat_last_n < 0 else config.repeat_last_n, self._window)
        tokens, counts = np.unique(np.asarray(self._recent[self._window - count :], np.int64), return_counts=True)
        if not tokens.size:
            return
        found = values[tokens]
        penalty = np.float32(config.repeat_penalty)
        found = np.where(found <= 0, found * penalty, found / penalty)
        frequency, presence = np.float32(config.frequency_penalty), np.float32(config.presence_penalty)
        values[tokens] = found - (counts.astype(np.float32) * frequency + presence)

    def _chosen(self, values: Floats) -> int:
        config = self.config
        if config.mirostat:
            warm = values / np.float32(config.temperature)
            return self._by_mirostat(_sorted(warm))
        candidates = _sorted(values)
        candidates = candidates.first(max(config.top_k, 1) if config.top_k > 0 else values.size)
        for step in (self._tail_free, self._typical, self._top_p):
            candidates = step(candidates)
        warm_logits = candidates.logits / np.float32(config.temperature)
        return self._draw(_Candidates(candidates.ids, warm_logits))

    def _tail_free(self, candidates: _Candidates) -> _Candidates:
        if self.config.tail_free_z >= 1 or len(candidates.ids) <= 2:
            return candidates
        curvature = np.abs(np.diff(candidates.p(), n=2))
        total = np.cumsum(curvature, dtype=np.float32)[-1]
        # Where all is flat, every place counts the same.
        shares = curvature / total if total > 1e-6 else np.full_like(curvature, 1 / curvature.size)
        over = np.flatnonzero(np.cumsum(shares, dtype=np.float32) > np.float32(self.config.tail_free_z))
        over = over[over >= 1]
        return candidates.first(int(over[0])) if over.size else candidates

    def _typical(self, candidates: _Candidates) -> _Candidates:
        if self.config.typical_p >= 1:
            return candidates
        p = candidates.p()
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = -np.log(p)
            entropy = np.float32(np.nansum(p * surprise, dtype=np.float32))
        order = np.argsort(np.abs(surprise - entropy), kind="stable")
        over = np.flatnonzero(np.cumsum(p[order], dtype=np.float32) > np.float32(self.config.typical_p))
        kept = order[: int(over[0]) + 1] if over.size else order
        best = kept[np.argsort(-candidates.logits[kept], kind="stable")]
        return _Candidates(candidates.ids[best], candidates.logits[best])

    def _top_p(self, candidates: _Candidates) -> _Candidates:
        """Without the token that crosses p, but never without any."""
        if self.config.top_p >= 1:
            return candidates
        over = np.flatnonzero(np.cumsum(candidates.p(), dtype=np.float32) > np.float32(self.config.top_p))
        return candidates.first(max(1, int(over[0]))) if over.size else candidates

    def _by_mirostat(self, candidates: _Candidates) -> int:
        config = self.config
        p = candidates.p()
        with np.errstate(all="ignore"):
            if config.mirostat == 1:
                kept = self._fitted(p)
            else:
                over = np.flatnonzero(-np.log2(p) > self._mu)
                kept = max(1, int(over[0])) if over.size else p.size
        rest = candidates.first(kept)
        token = self._draw(rest)
        drawn = rest.p()[int(np.flatnonzero(rest.ids == token)[0])]
        surprise = -np.log2(drawn)
        self._mu = np.float32(self._mu - np.float32(config.mirostat_eta) * (surprise - np.float32(config.mirostat_tau)))
        return token

    def _fitted(self, p: Floats) -> int:
        """How many tokens to keep, where probabilities fall as rank^-s."""
        ranks = np.arange(1, min(_MOST_FITTED, p.size), dtype=np.float32)
        t = np.log((ranks + 1) / ranks)
        b = np.log(p[: ranks.size] / p[1 : ranks.size + 1])
        s = np.float32((t * b).sum() / (t * t).sum())
        epsilon = s - np.float32(1)
        count = ((epsilon * np.exp2(self._mu)) / (1 - np.float32(p.size) ** -epsilon)) ** (1 / s)
        return int(min(count, p.size)) if count >= 1 else 1

    def _draw(self, candidates: _Candidates) -> int:
        """As libstdc++ draws: two numbers of 32 bits make one in [0, 1), which is looked up in the partial sums."""
        low, high = (int(number) for number in self._random.randint(0, 1 << 32, size=2, dtype=np.uint32))
        u = min((low + high * 2.0**32) * 2.0**-64, 1 - 2.0**-53)
        p = candidates.p().astype(np.float64)
        sums = np.cumsum(p / p.sum())
        sums[-1] = 1.0
        return int(candidates.ids[int(np.searchsorted(sums, u))])


def _sorted(values: Floats) -> _Candidates:
    order = np.argsort(-values, kind="stable").astype(np.int64)
    return _Candidates(order, values[order])
