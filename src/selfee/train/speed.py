"""How much of the hardware's arithmetic training uses: model FLOPs utilisation (MFU).

Counted are the operations that the model needs, as in the PaLM paper's appendix B: what checkpointing computes a second
time is not counted, so it shows as a lower share.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from selfee.train.config import Precision, TrainConfig
from selfee.train.dataset import Example
from selfee.train.libraries import library
from selfee.train.memory import Shape

_MEASURED_SECONDS = 0.3


def flops(shape: Shape, config: TrainConfig, tokens: int, length: float) -> float:
    """Operations of one step over ``tokens`` tokens in texts of ``length`` tokens on average.

    A product of matrices takes two operations a weight and token forward, and twice that backward; with LoRA the
    gradients of the weights beside it are not computed. The embedding is looked up, not multiplied; the output is.
    """
    matrices = sum(rows * columns for rows, columns in shape.linear) + shape.vocabulary * shape.hidden
    forward = 2.0 * matrices
    attention = 2.0 * shape.layers * shape.hidden * length  # scores and sums, over the half that is seen
    if config.lora_rank:
        beside = config.lora_rank * sum(rows + columns for rows, columns in shape.linear)
        return tokens * (2.0 * forward + 3.0 * attention + 6.0 * beside)
    return tokens * 3.0 * (forward + attention)


def measured_peak(device: str, config: TrainConfig) -> float:
    """Operations a second of a large product of matrices here, in the precision of training: the best of some."""
    torch = library("torch")
    size = 8192 if device == "cuda" else 1024
    dtype = torch.bfloat16 if config.precision is Precision.BF16 else torch.float32
    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best, end = 0.0, time.perf_counter() + _MEASURED_SECONDS
    while not best or time.perf_counter() < end:
        started = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2.0 * size**3 / (time.perf_counter() - started))
    return best


class Meter:
    """Turns the seconds of a step into what the log says of its speed; ``peak`` is in operations a second."""

    def __init__(self, shape: Shape, config: TrainConfig, peak: float) -> None:
        self._shape, self._config, self._peak = shape, config, peak

    def read(self, rows: Sequence[Sequence[Example]], seconds: float) -> dict[str, Any]:
        """Tokens, tokens a second, and the share of the peak that was used."""
        lengths = [len(example.ids) for row in rows for example in row]
        tokens = sum(lengths)
        needed = flops(self._shape, self._config, tokens, sum(length**2 for length in lengths) / tokens)
        told = {"tokens": tokens, "seconds": round(seconds, 3), "tokens_per_second": tokens / seconds}
        return told | {"mfu": round(needed / seconds / self._peak, 5)}
