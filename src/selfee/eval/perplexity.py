"""Perplexity: how surprised a model is by a text, token by token. Lower is better; the definition is llama.cpp's.

PPL = exp(mean of -ln p(next token)) over the scored positions (``chunks.py``), with its standard error
PPL * sqrt(variance of -ln p / (n - 1)), the variance being that over n positions. Probabilities come from the model's
float32 logits and are computed in float64.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError
from selfee.eval.chunks import Chunks, Tokens

Logits = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
OnChunk = Callable[[int, float], None]
"""Told after each chunk: how many are done, and the perplexity so far."""

_SLICE = 1 << 25  # bytes of logits held at once
_MOST_ROWS = 128
_BLOCK = 1 << 16  # values computed with in one go: what stays in the cache


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error."""

    value: float
    error: float

    @classmethod
    def of_mean(cls, values: Doubles) -> Estimate:
        """The mean of positions; the error is 0 for fewer than two."""
        count = values.size
        return cls(float(values.mean()), math.sqrt(float(values.var()) / (count - 1)) if count > 1 else 0.0)

    def exponential(self) -> Estimate:
        """The estimate of exp(value), by its slope; infinite where that is beyond floating point."""
        value = math.exp(self.value) if self.value < 709 else math.inf
        return Estimate(value, value * self.error)


class Session(Protocol):
    """What is needed of a session: ``selfee.llama.model.Session`` or the slow twin."""

    def truncate(self, length: int) -> None: ...

    def forward(self, tokens: Sequence[int], logits_for: Literal["all", "none"]) -> Logits: ...


class Evaluator:
    """Evaluates chunks with one model; counts tokens and the seconds their evaluation took."""

    def __init__(self, session: Session, vocabulary: int, name: str) -> None:
        self._session = session
        self._rows = max(1, min(_MOST_ROWS, _SLICE // (4 * vocabulary)))
        self._name = name
        self.tokens = 0
        self.seconds = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens evaluated a second, whole chunks together."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def slices(self, chunks: Chunks, index: int) -> Iterator[tuple[Logits, Tokens]]:
        """Logits [rows, vocabulary] of a chunk's scored positions, a few at a time, and the tokens to be predicted."""
        tokens, targets = chunks.evaluated(index), chunks.targets(index)
        self._session.truncate(0)
        self._forward(tokens[: chunks.first], "none")
        for start in range(0, chunks.scored, self._rows):
            end = min(start + self._rows, chunks.scored)
            logits = self._forward(tokens[chunks.first + start : chunks.first + end], "all")
            if not np.isfinite(logits.sum(dtype=np.float64)):
                raise BadFileError(
                    f"{self._name}: its logits in chunk {index + 1} are not finite; expected numbers; the weights are "
                    "damaged or too large: fetch or convert the file again"
                )
            yield logits, targets[start:end]

    def _forward(self, tokens: Tokens, logits_for: Literal["all", "none"]) -> Logits:
        started = time.perf_counter()
        logits = self._session.forward(tokens.tolist(), logits_for)
        self.seconds += time.perf_counter() - started
        self.tokens += tokens.size
        return logits


def blocks(rows: int, vocabulary: int) -> Iterator[slice]:
    """Rows in portions that the processor's cache can hold."""
    step = max(1, _BLOCK // vocabulary)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def log_softmax(logits: npt.NDArray[np.floating]) -> Doubles:
    """The logarithms of the probabilities that logits [rows, vocabulary] stand for."""
    shifted: Doubles = np.subtract(logits, logits.max(axis=-1, keepdims=True), dtype=np.float64)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def surprise(logits: Logits, targets: Tokens) -> Doubles:
    """-ln p of the token that came, for each row of logits."""
    found = np.empty(len(targets))
    for part in blocks(*logits.shape):
        rows = log_softmax(logits[part])
        found[part] = -rows[np.arange(len(rows)), targets[part]]
    return found


def perplexity(
    evaluator: Evaluator,
    chunks: Chunks,
    on_chunk: OnChunk | None = None,
    on_logits: Callable[[Logits], None] | None = None,
) -> Estimate:
    """The perplexity of a model on a text. ``on_logits`` is handed every scored row, in order.

    Raises BadFileError where the model computes no numbers.
    """
    total = np.empty((len(chunks), chunks.scored))
    for index in range(len(chunks)):
        at = 0
        for logits, targets in evaluator.slices(chunks, index):
            total[index, at : at + len(targets)] = surprise(logits, targets)
            at += len(targets)
            if on_logits is not None:
                on_logits(logits)
        if on_chunk is not None:
            on_chunk(index + 1, Estimate.of_mean(total[: index + 1].reshape(-1)).exponential().value)
    return Estimate.of_mean(total.reshape(-1)).exponential()
