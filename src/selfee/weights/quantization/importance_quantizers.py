"""Float values to blocks in NumPy, weighed by an importance matrix: the same bytes as ggml writes today (August 2026).

Each column of a weight matrix has an importance: the mean square of what it is multiplied with. Values of important
columns are met better, at the price of the others. Rows of a tensor are (rows, columns), the importance (columns,).
Sums run in element order and every operation is rounded to binary32.
"""

from __future__ import annotations

import numpy as np

from selfee.weights.kquants import Blocks, Floats
from selfee.weights.quantization import kpacking
from selfee.weights.quantization.kpacking import Codes, Halves, nearest_int, to_half
from selfee.weights.quantization.kquantizers_current import (
    LEAST,
    Grid,
    finish_q6_k,
    search_affine,
    search_symmetric,
    sums,
)

_GRID = Grid(-0.9, 0.05, 36)
_MOVES = 5


def quantize_q2_k(values: Floats, importance: Floats) -> Blocks:
    """Blocks of 84 bytes."""
    rows = values.reshape(-1, 256)
    codes, packed, d, dmin = _fit_affine(rows, _weights(rows, importance, 1), 16, 3, 15)
    return kpacking.finish_q2_k(rows, codes, kpacking.scale_bytes_q2_k(*packed), d, dmin)


def quantize_q3_k(values: Floats, importance: Floats) -> Blocks:
    """Blocks of 110 bytes."""
    rows = values.reshape(-1, 256)
    weights = _weights(rows, importance, 2).reshape(-1, 16)
    codes, scales = search_symmetric(rows.reshape(-1, 16), weights, 4)
    scale_codes, d = search_symmetric(scales.reshape(-1, 16), sums(weights).reshape(-1, 16), 32)
    return kpacking.finish_q3_k(rows, codes.reshape(-1, 256), scale_codes, to_half(d)[:, None])


def quantize_q4_k(values: Floats, importance: Floats) -> Blocks:
    """Blocks of 144 bytes."""
    rows = values.reshape(-1, 256)
    codes, packed, d, dmin = _fit_affine(rows, _weights(rows, importance, 2), 32, 15, 63)
    return kpacking.finish_q4_k(rows, codes, kpacking.scale_bytes_q4_k(*packed), d, dmin)


def quantize_q5_k(values: Floats, importance: Floats) -> Blocks:
    """Blocks of 176 bytes."""
    rows = values.reshape(-1, 256)
    codes, (scales, lows), d, dmin = _fit_affine(rows, _weights(rows, importance, 2), 32, 31, 63)
    packed = kpacking.scale_bytes_q4_k(np.minimum(scales, 63), np.minimum(lows, 63))
    return kpacking.finish_q5_k(rows, codes, packed, d, dmin)


def quantize_q6_k(values: Floats, importance: Floats) -> Blocks:
    """Blocks of 210 bytes; the weights are the importance alone."""
    rows = values.reshape(-1, 256)
    weights = np.broadcast_to(importance, values.shape).reshape(-1, 16)
    return finish_q6_k(rows, *search_symmetric(rows.reshape(-1, 16), weights, 32))


def fit_symmetric(values: Floats, importance: Floats, half: int) -> tuple[Codes, Floats]:
    """Q4_0 and Q5_0: codes (blocks, 32) and scales (blocks, 1)."""
    codes, scales = search_symmetric(values.reshape(-1, 32), _row_weights(values, importance), half)
    return codes, scales[:, None]


def fit_affine(values: Floats, importance: Floats, top: int) -> tuple[Codes, Floats, Floats]:
    """Q4_1 and Q5_1: codes (blocks, 32), scales and minimums (blocks, 1)."""
    return search_affine(values.reshape(-1, 32), _row_weights(values, importance), top, _GRID)


def _weights(rows: Floats, importance: Floats, factor: int) -> Floats:
    """How much each value of super-blocks counts: its importance, and more if it is large in its super-block."""
    square = (np.float32(factor) * sums(rows * rows) / np.float32(256))[:, None]
    blocks_in_a_row = importance.size // 256
    shape = (-1, blocks_in_a_row, 256)
    spread = np.sqrt(square + rows * rows).reshape(shape)
    return (importance.reshape(blocks_in_a_row, 256) * spread).reshape(-1, 256)


def _row_weights(values: Floats, importance: Floats) -> Floats:
    """The same for blocks of 32, where a value is compared with its whole row."""
    square = (sums(values * values) / np.float32(values.shape[1]))[:, None]
    return (importance * np.sqrt(square + values * values)).reshape(-1, 32)


def _fit_affine(
    rows: Floats, weights: Floats, sub: int, top: int, scale_top: int
) -> tuple[Codes, tuple[Codes, Codes], Halves, Halves]:
    """Codes (n, 256), quantised scales and minimums (n, sub-blocks) as bytes, and their units."""
    parts, of_parts = rows.reshape(-1, sub), weights.reshape(-1, sub)
    codes, scale, low = search_affine(parts, of_parts, top, _GRID)
    shape = (-1, 256 // sub)
    counts = sums(of_parts).reshape(shape)
    scale_codes, d = search_positive(scale.reshape(shape), counts, scale_top)
    low_codes, dmin = search_positive(-low.reshape(shape), counts, scale_top)
    return codes.reshape(-1, 256), (scale_codes, low_codes), to_half(d)[:, None], to_half(dmin)[:, None]


def search_positive(values: Floats, weights: Floats, top: int) -> tuple[Codes, Floats]:
    """Codes up to ``top``, kept in a byte, and the scale for each row of numbers that are at least 0.

    The best of nine scales, then up to five sweeps of moving single codes. Rows below 1e-15 get codes and scale 0.
    """
    largest: Floats = np.fmax(np.fmax.reduce(values, axis=1, keepdims=True), np.float32(0))
    inverse: Floats = np.float32(top) / largest
    rest = values - np.float32(1) / inverse * (nearest_int(inverse * values) & 255).astype(np.float32)
    best = sums(weights * rest * rest)[:, None]
    for step in (-4, -3, -2, -1, 1, 2, 3, 4):
        tried = (np.float32(0.1) * np.float32(step) + np.float32(top)) / largest
        fresh = np.minimum(nearest_int(tried * values), top).astype(np.float32)
        rest = values - np.float32(1) / tried * fresh
        error = sums(weights * rest * rest)[:, None]
        better = error < best
        best, inverse = np.where(better, error, best), np.where(better, tried, inverse)
    codes = np.minimum(nearest_int(inverse * values), top)
    as_floats = codes.astype(np.float32)
    sum_lx, sum_l2 = sums(weights * values * as_floats), sums(weights * as_floats * as_floats)
    codes &= 255
    _move_codes(values, weights, codes, sum_lx, sum_l2, top)
    is_zero = largest[:, 0] < LEAST
    codes[is_zero] = 0
    return codes, np.where(is_zero | ~(sum_l2 > 0), np.float32(0), sum_lx / sum_l2)


def _move_codes(values: Floats, weights: Floats, codes: Codes, sum_lx: Floats, sum_l2: Floats, top: int) -> None:
    """Move single codes where that helps, element after element, in place."""
    active = np.ones(len(values), dtype=np.bool_)
    for _ in range(_MOVES):
        changed = np.zeros(len(values), dtype=np.bool_)
        for column in range(values.shape[1]):
            w, x, old = weights[:, column], values[:, column], codes[:, column].astype(np.float32)
            lx: Floats = sum_lx - w * x * old
            l2: Floats = sum_l2 - w * old * old
            fresh = np.minimum(nearest_int(x * l2 / lx), top)
            new = fresh.astype(np.float32)
            new_lx, new_l2 = lx + w * x * new, l2 + w * new * new
            better = new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2
            move = active & (lx > 0) & (l2 > 0) & (fresh != codes[:, column]) & better
            codes[move, column] = fresh[move] & 255
            sum_lx[move], sum_l2[move] = new_lx[move], new_l2[move]
            changed |= move
        active &= changed
