"""From logits to the next token: the chain of samplers, its order and its random numbers.

A draw is a pure function of the logits, the settings, the tokens before it, the seed and its own number: no generator
is carried along, so a text that is cut and grown again is the same text. What each step means is
``sampling_reference.py``; the native sampler chooses the same tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError, UsageError
from selfee.weights.quantize import native

if TYPE_CHECKING:
    from selfee import _native as native_types

_ALL = (1 << 31) - 1  # more tokens than any vocabulary or text has

STEPS = ("penalties", "top_k", "tail_free", "typical", "top_p", "min_p", "temperature")
"""The samplers in their usual order: that of llama.cpp of June 2023, with min-p (newer) before the temperature."""


@dataclass(frozen=True)
class SamplerConfig:
    """How the next token is drawn; the fields of ``selfee.engines.base.SamplingParams``, with the seed decided."""

    temperature: float = 0.7  # 0 = always the most likely token (of equals the one with the lowest id)
    top_k: int = 40  # keep the k most likely tokens; 0 = all
    top_p: float = 0.95  # keep the smallest set with at least this total probability; 1 = all
    min_p: float = 0.0  # keep tokens at least this fraction as likely as the best; 0 = all
    typical_p: float = 1.0  # locally typical sampling; 1 = off
    tail_free_z: float = 1.0  # tail-free sampling; 1 = off
    repeat_penalty: float = 1.0  # divide (multiply) positive (negative) logits of recent tokens; 1 = off
    repeat_last_n: int = 64  # how many recent tokens, the prompt's included, the penalties look at; -1 = all
    frequency_penalty: float = 0.0  # subtract this for each recent occurrence
    presence_penalty: float = 0.0  # subtract this once if the token occurred recently
    penalize_newline: bool = True  # whether the newline token may be penalised
    mirostat: int = 0  # 0 = off, 1 or 2; replaces all steps but penalties and temperature
    mirostat_tau: float = 5.0  # target surprise in bits
    mirostat_eta: float = 0.1  # learning rate
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # token id -> added to its logit; -inf bans it
    seed: int = 0
    samplers: Sequence[str] = STEPS

    def __post_init__(self) -> None:
        unknown = [name for name in self.samplers if name not in STEPS]
        if unknown:
            raise UsageError(f"samplers: unknown '{unknown[0]}'; expected names from {', '.join(STEPS)}")
        if not (self.temperature >= 0 and self.repeat_penalty > 0 and self.mirostat in (0, 1, 2)):
            raise UsageError(
                f"temperature {self.temperature}, repeat_penalty {self.repeat_penalty}, mirostat {self.mirostat}; "
                "expected at least 0, above 0, and one of 0, 1, 2"
            )
        for name in ("top_p", "min_p", "typical_p", "tail_free_z"):
            if not 0 <= getattr(self, name) <= 1:  # also for NaN; outside, a step would keep no token at all
                raise UsageError(f"{name}: {getattr(self, name)} is out of range; expected 0 to 1")
        for token, bias in self.logit_bias.items():
            if math.isnan(bias) or bias == math.inf:
                raise UsageError(f"logit_bias: {bias} for token {token}; expected a number or -inf")


class Sampler:
    """Draws one token after another for one request. ``newline`` is the token that ``penalize_newline`` speaks of."""

    def __init__(self, config: SamplerConfig, newline: int | None = None) -> None:
        self.config = config
        exempt = -1 if config.penalize_newline or newline is None else newline
        self._native = _make(config, exempt)

    def begin(self, tokens: Sequence[int]) -> None:
        """Start a request: forget earlier draws; ``tokens`` is the prompt, which the penalties look at."""
        self._native.begin(np.asarray(tokens, dtype=np.int32))

    def read(self, tokens: Sequence[int]) -> None:
        """Go on after these, which somebody else wrote: the penalties look at them, the draws are counted on."""
        self._native.read(np.asarray(tokens, dtype=np.int32))

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """Draw the token that follows, given raw logits [vocabulary], and remember it.

        Raises BadFileError if a logit is NaN or infinite, which is a damaged model's doing.
        """
        try:
            return self._native.sample(np.ascontiguousarray(logits, dtype=np.float32))
        except ValueError as error:
            raise BadFileError(
                f"sampling: {error}; expected finite logits; the model file is damaged, or logit_bias bans every token"
            ) from error


def _make(config: SamplerConfig, exempt: int) -> native_types.Sampler:
    sampler: native_types.Sampler = native().Sampler(
        temperature=config.temperature,
        top_k=min(config.top_k, _ALL),
        top_p=config.top_p,
        min_p=config.min_p,
        typical_p=config.typical_p,
        tail_free_z=config.tail_free_z,
        repeat_penalty=config.repeat_penalty,
        repeat_last_n=min(config.repeat_last_n, _ALL),
        frequency_penalty=config.frequency_penalty,
        presence_penalty=config.presence_penalty,
        exempt_token=exempt,
        mirostat=config.mirostat,
        mirostat_tau=config.mirostat_tau,
        mirostat_eta=config.mirostat_eta,
        bias_tokens=list(config.logit_bias),
        bias_values=list(config.logit_bias.values()),
        steps=[STEPS.index(name) for name in config.samplers],
        seed=config.seed % (1 << 64),
    )
    return sampler
