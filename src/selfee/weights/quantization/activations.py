"""What a matrix is multiplied with, in 8 bits: llama.cpp's Q8_1 and Q8_K of June 2023 in NumPy.

These blocks live in memory only, never in a file. They say what the native kernels compute with: Q8_1 meets weights of
Q4_1 and Q5_1, Q8_K meets the k-quants. Here are the bytes of the vectorised code that x86 machines ran in 2023.
"""

from __future__ import annotations

import numpy as np

from selfee.weights.kquants import Blocks, Floats
from selfee.weights.quantization.kpacking import largest_magnitude, nearest_int


def quantize_q8_1(rows: Floats) -> Blocks:
    """Rows of 32 values to blocks of 40 bytes: scale, scale times the sum of the codes (both float32), 32 int8.

    The largest magnitude becomes 127; codes are rounded half to even.
    """
    most = np.abs(rows).max(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.where(most != 0, np.float32(127) / most, np.float32(0)).astype(np.float32)
        codes = np.rint(rows * inverse).astype(np.int32)
    d = most / np.float32(127)
    s = d * codes.sum(axis=1, keepdims=True).astype(np.float32)
    return np.concatenate([_f32(d), _f32(s), codes.astype(np.int8).view(np.uint8)], axis=1)


def quantize_q8_k(rows: Floats) -> Blocks:
    """Rows of 256 values to blocks of 292 bytes: scale (float32), 256 int8, sums of 16 codes each (int16).

    The value of largest magnitude becomes -128 whatever its sign, so a block's scale may be negative.
    """
    largest = largest_magnitude(rows)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.where(largest != 0, np.float32(-128) / largest, np.float32(0)).astype(np.float32)
        d = np.where(largest != 0, np.float32(1) / inverse, np.float32(0)).astype(np.float32)
        codes = np.minimum(127, nearest_int(inverse * rows)).astype(np.int8)
    sums = codes.reshape(-1, 16, 16).sum(axis=2, dtype=np.int16)
    return np.concatenate([_f32(d), codes.view(np.uint8), sums.astype("<i2").view(np.uint8)], axis=1)


def _f32(column: Floats) -> Blocks:
    return column.astype("<f4").view(np.uint8)
