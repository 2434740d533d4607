"""Rotary position embedding (Su et al. 2021): how a position is written into queries and keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def plain_frequencies(rotated: int, base: float) -> npt.NDArray[np.float64]:
    """Radians per position of each pair, shape (rotated / 2,): base^(-2i / rotated)."""
    return np.float64(base) ** (-2.0 * np.arange(rotated // 2) / rotated)


def rotate(
    x: npt.NDArray[np.float32], positions: npt.NDArray[np.int64], frequencies: Sequence[float], halves: bool
) -> npt.NDArray[np.float32]:
    """Turn pairs of values by position x frequency.

    ``x`` is (tokens, heads, head_dim); values beyond the pairs stay as they are. ``halves`` pairs value i with
    i + n/2 (Hugging Face, qwen2, qwen3), otherwise neighbours are pairs (Meta, GGML, GGUF llama).
    """
    pairs = len(frequencies)
    angles = np.outer(positions, np.asarray(frequencies))[:, None, :]
    cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    firsts = np.s_[..., :pairs] if halves else np.s_[..., 0 : 2 * pairs : 2]
    seconds = np.s_[..., pairs : 2 * pairs] if halves else np.s_[..., 1 : 2 * pairs : 2]
    turned = x.copy()
    turned[firsts] = x[firsts] * cosine - x[seconds] * sine
    turned[seconds] = x[firsts] * sine + x[seconds] * cosine
    return turned
