"""Float values to k-quants in NumPy, the same bytes as ggml writes today (August 2026) without an importance matrix.

Since August 2023 the scale of a sub-block is the best of a grid, by a weighted error, in place of 2023's steps from
one start. The searches here take the weights, so that ``importance_quantizers.py`` uses them too. Sums run in element
order (columns), sub-blocks lie side by side (rows), every operation is rounded to binary32. Q3_K is 2023's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfee.weights.kquants import Blocks, Floats
from selfee.weights.quantization import kpacking, kquantizers
from selfee.weights.quantization.kpacking import Codes, largest_magnitude, nearest_int, to_half

LEAST = np.float32(1e-15)  # magnitudes below count as zero


@dataclass(frozen=True)
class Grid:
    """Which scales an affine search tries: ``first + step * i`` for i from 0 to ``last``, added to the largest code."""

    first: float
    step: float
    last: int
    absolute: bool = False  # weigh absolute errors in place of squared ones

    def offsets(self) -> list[np.float32]:
        """The numbers to add, each operation rounded."""
        first, step = np.float32(self.first), np.float32(self.step)
        return [first + step * np.float32(index) for index in range(self.last + 1)]


def quantize_q2_k(rows: Floats) -> Blocks:
    """Rows of 256 values to blocks of 84 bytes."""
    parts = rows.reshape(-1, 16)
    codes, scales, low = search_affine(parts, np.abs(parts), 3, Grid(-0.5, 0.1, 15, absolute=True))
    scale_codes, d = kpacking.quantize_affine_scales(scales.reshape(-1, 16), 15)
    low_codes, dmin = kpacking.quantize_affine_scales(-low.reshape(-1, 16), 15)
    packed = kpacking.scale_bytes_q2_k(scale_codes, low_codes)
    return kpacking.finish_q2_k(rows, codes.reshape(-1, 256), packed, d, dmin)


def quantize_q3_k(rows: Floats) -> Blocks:
    """Rows of 256 values to blocks of 110 bytes."""
    return kquantizers.quantize_q3_k(rows, LEAST)


def quantize_q4_k(rows: Floats) -> Blocks:
    """Rows of 256 values to blocks of 144 bytes."""
    return kpacking.finish_q4_k(rows, *_fit_32(rows, 15, Grid(-1.0, 0.1, 20)))


def quantize_q5_k(rows: Floats) -> Blocks:
    """Rows of 256 values to blocks of 176 bytes."""
    return kpacking.finish_q5_k(rows, *_fit_32(rows, 31, Grid(-0.5, 0.1, 15)))


def quantize_q6_k(rows: Floats) -> Blocks:
    """Rows of 256 values to blocks of 210 bytes."""
    parts = rows.reshape(-1, 16)
    return finish_q6_k(rows, *search_symmetric(parts, parts * parts, 32))


def finish_q6_k(rows: Floats, codes: Codes, scales: Floats) -> Blocks:
    """Blocks of 210 bytes from the codes and scales of sub-blocks; without a scale all bytes are 0."""
    scales = scales.reshape(-1, 16)
    largest = largest_magnitude(scales)
    iscale = np.float32(-128) / largest
    d = to_half(np.float32(1) / iscale)
    rounded = np.minimum(127, nearest_int(iscale * scales)).astype(np.int8)
    blocks = kpacking.finish_q6_k(rows, codes.reshape(-1, 256), rounded, d)
    blocks[np.abs(largest[:, 0]) < LEAST] = 0
    return blocks


def _fit_32(rows: Floats, top: int, grid: Grid) -> tuple[Codes, Blocks, kpacking.Halves, kpacking.Halves]:
    """Q4_K and Q5_K: codes, packed scales and their units, from sub-blocks of 32."""
    parts = rows.reshape(-1, 32)
    magnitude = np.sqrt(sums(parts * parts) / np.float32(32))
    codes, scales, low = search_affine(parts, magnitude[:, None] + np.abs(parts), top, grid)
    scale_codes, d = kpacking.quantize_affine_scales(scales.reshape(-1, 8), 63)
    low_codes, dmin = kpacking.quantize_affine_scales(-low.reshape(-1, 8), 63)
    packed = kpacking.scale_bytes_q4_k(np.minimum(scale_codes, 63), np.minimum(low_codes, 63))
    return codes.reshape(-1, 256), packed, d, dmin


def sums(terms: Floats) -> Floats:
    """The sum of every row, one element after another."""
    total = np.zeros(len(terms), dtype=np.float32)
    for column in range(terms.shape[1]):
        total += terms[:, column]
    return total


def search_symmetric(parts: Floats, weights: Floats, half: int) -> tuple[Codes, Floats]:
    """Codes from 0 to 2 half - 1 (``half`` means 0) and a scale for each row: the best of 19 scales.

    Rows of magnitudes below 1e-15 get codes and scale 0.
    """
    largest = largest_magnitude(parts)
    codes, sum_lx, sum_l2 = _symmetric_fit(parts, weights, np.float32(-half) / largest, half)
    scale = np.where(sum_l2 != 0, sum_lx / sum_l2, np.float32(0)).astype(np.float32)
    best = scale * sum_lx
    for step in (*range(-9, 0), *range(1, 10)):
        inverse = -(np.float32(half) + np.float32(0.1) * np.float32(step)) / largest
        fresh, sum_lx, sum_l2 = _symmetric_fit(parts, weights, inverse, half)
        better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
        codes[better] = fresh[better]
        scale[better] = (sum_lx / sum_l2)[better]
        best[better] = (scale * sum_lx)[better]
    is_zero = np.abs(largest[:, 0]) < LEAST
    codes[is_zero], scale[is_zero] = 0, 0
    return codes, scale


def _symmetric_fit(parts: Floats, weights: Floats, inverse: Floats, half: int) -> tuple[Codes, Floats, Floats]:
    """Codes for a scale's inverse, and the sums of w x l and w l l that they give."""
    codes = np.clip(nearest_int(inverse * parts), -half, half - 1)
    as_floats = codes.astype(np.float32)
    return codes + half, sums(weights * parts * as_floats), sums(weights * as_floats * as_floats)


def search_affine(parts: Floats, weights: Floats, top: int, grid: Grid) -> tuple[Codes, Floats, Floats]:
    """Codes from 0 to ``top``, scale and minimum (at most 0) for each row: the best of a grid by the weighted error.

    The grid is laid from the minimum found so far, so a good fit moves those that follow. Constant rows get codes and
    scale 0; those below 0 keep their value as the minimum.
    """
    low = np.take_along_axis(parts, parts.argmin(axis=1, keepdims=True), axis=1)  # of +0 and -0 the first
    high = parts.max(axis=1, keepdims=True)
    low = np.where(low > 0, np.float32(0), low)
    constant = high <= low
    sum_w, sum_x = sums(weights)[:, None], sums(weights * parts)[:, None]
    inverse = np.float32(top) / (high - low)
    scale = np.float32(1) / inverse
    codes = np.clip(nearest_int(inverse * (parts - low)), 0, top)
    best = _affine_error(parts, weights, codes, scale, low, grid)
    for offset in grid.offsets():
        inverse = (offset + np.float32(top)) / (high - low)
        fresh = np.clip(nearest_int(inverse * (parts - low)), 0, top)
        new_scale, new_low, solvable = _affine_fit(parts, weights, fresh, sum_w, sum_x)
        error = _affine_error(parts, weights, fresh, new_scale, new_low, grid)
        better = solvable & (error < best) & ~constant
        codes = np.where(better, fresh, codes)
        best, scale, low = (np.where(better, *pair) for pair in ((error, best), (new_scale, scale), (new_low, low)))
    return np.where(constant, 0, codes), np.where(constant, np.float32(0), scale), low


def _affine_fit(
    parts: Floats, weights: Floats, codes: Codes, sum_w: Floats, sum_x: Floats
) -> tuple[Floats, Floats, kquantizers.Flags]:
    """The scale and the minimum (at most 0) with the least squared error for given codes, and where there are such."""
    weighted = weights * codes.astype(np.float32)
    sum_l = sums(weighted)[:, None]
    sum_l2 = sums(weighted * codes.astype(np.float32))[:, None]
    sum_xl = sums(weighted * parts)[:, None]
    determinant = sum_w * sum_l2 - sum_l * sum_l
    scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
    low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
    above = low > 0
    return np.where(above, sum_xl / sum_l2, scale), np.where(above, np.float32(0), low), determinant > 0


def _affine_error(parts: Floats, weights: Floats, codes: Codes, scale: Floats, low: Floats, grid: Grid) -> Floats:
    """Weighted sum of absolute or squared differences, shape (rows, 1)."""
    difference = scale * codes.astype(np.float32) + low - parts
    return sums(weights * (np.abs(difference) if grid.absolute else difference * difference))[:, None]
