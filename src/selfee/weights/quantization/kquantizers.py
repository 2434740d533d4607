"""Float values to k-quants in NumPy, the same bytes as llama.cpp of June 2023 (commit 2d43387).

Scales are searched so that the weighted error of a sub-block is small, then quantised themselves. Sums run in element
order and every operation is rounded to binary32, so that the result is the reference's to the bit; sub-blocks are
worked on side by side (rows of a matrix), the elements of one after another (its columns).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selfee.weights.kquants import Blocks, Floats, scales_q4_k
from selfee.weights.quantization import kpacking
from selfee.weights.quantization.kpacking import Codes, Halves, largest_magnitude, nearest_int, to_half

Flags = npt.NDArray[np.bool_]

_ROUNDS = 5
_REFITS = 3
_NOTHING = np.float32(0)


def quantize_q2_k(rows: Floats, before: Codes | None = None) -> Blocks:
    """Rows of 256 values to blocks of 84 bytes. ``before`` are the codes (256,) of the super-block before the first."""
    fit = _fit_with_minimum(rows, 16, 3, _code_q2_k, before)
    return kpacking.pack_q2_k(fit.codes, fit.packed, fit.d, fit.dmin)


def quantize_q4_k(rows: Floats, before: Codes | None = None) -> Blocks:
    """Rows of 256 values to blocks of 144 bytes."""
    fit = _fit_with_minimum(rows, 32, 15, _code_q4_k, before)
    return kpacking.pack_q4_k(fit.codes, fit.packed, fit.d, fit.dmin)


def quantize_q5_k(rows: Floats, before: Codes | None = None) -> Blocks:
    """Rows of 256 values to blocks of 176 bytes."""
    fit = _fit_with_minimum(rows, 32, 31, _code_q4_k, before)
    return kpacking.pack_q5_k(fit.codes, fit.packed, fit.d, fit.dmin)


def quantize_q3_k(rows: Floats, least: np.float32 = _NOTHING) -> Blocks:
    """Rows of 256 values to blocks of 110 bytes; sub-blocks of magnitudes below ``least`` become 0."""
    codes, scales = _search_symmetric(rows.reshape(-1, 16), half=4, refits=0, least=least)
    scales = scales.reshape(-1, 16)
    largest = largest_magnitude(scales)
    iscale = np.float32(-32) / largest
    rounded = np.clip(nearest_int(iscale * scales).astype(np.int8), -32, 31).astype(np.int32) + 32
    is_zero = largest == 0
    # Where all scales are 0 the packed bytes are 0, which read back as -32: d is 0, so nothing comes of it.
    d = to_half(np.where(is_zero, np.float32(0), np.float32(1) / iscale))
    return kpacking.finish_q3_k(rows, codes.reshape(-1, 256) + 4, np.where(is_zero, 0, rounded), d)


def quantize_q6_k(rows: Floats) -> Blocks:
    """Rows of 256 values to blocks of 210 bytes."""
    parts = rows.reshape(-1, 16)
    codes, scales = _search_symmetric(parts, half=32, refits=_REFITS, least=_NOTHING)
    scales = scales.reshape(-1, 16)
    iscale = np.float32(-128) / largest_magnitude(scales)
    d = to_half(np.float32(1) / iscale)
    rounded = np.minimum(127, nearest_int(iscale * scales)).astype(np.int8)
    return kpacking.finish_q6_k(rows, codes.reshape(-1, 256) + 32, rounded, d)


# ---- symmetric types: Q3_K and Q6_K ----------------------------------------------------------------------------------


def _search_symmetric(parts: Floats, half: int, refits: int, least: np.float32) -> tuple[Codes, Floats]:
    """Codes from -half to half - 1 and a scale for each row, fitted with the weights x**2.

    Rows of zeros, or of magnitudes below ``least``, get scale 0 and codes of -half (the reference leaves a stored 0).
    """
    largest = largest_magnitude(parts)
    weights = parts * parts
    codes = np.clip(nearest_int(parts * (np.float32(-half) / largest)), -half, half - 1)
    sum_lx, sum_l2 = _sums(parts, weights, codes)
    _refit(parts, weights, codes, sum_lx, sum_l2, half, refits)
    active = np.ones(len(parts), dtype=np.bool_)
    for _ in range(_ROUNDS):
        active &= _sweep(parts, weights, codes, sum_lx, sum_l2, half, active)
    is_zero = (largest[:, 0] == 0) | (np.abs(largest[:, 0]) < least)
    codes[is_zero] = -half
    # Squares of tiny values are 0: that sum made NaN of the scale in 2023 and is looked at today.
    is_zero |= (sum_l2 == 0) & (least > 0)
    return codes, np.where(is_zero, np.float32(0), sum_lx / sum_l2)


def _sums(parts: Floats, weights: Floats, codes: Codes) -> tuple[Floats, Floats]:
    """Of each row the sums of w x l and w l l, in element order."""
    as_floats = codes.astype(np.float32)
    sum_lx = np.zeros(len(parts), dtype=np.float32)
    sum_l2 = np.zeros(len(parts), dtype=np.float32)
    for column in range(parts.shape[1]):
        w, x, code = weights[:, column], parts[:, column], as_floats[:, column]
        sum_lx += w * x * code
        sum_l2 += w * code * code
    return sum_lx, sum_l2


def _refit(parts: Floats, weights: Floats, codes: Codes, sum_lx: Floats, sum_l2: Floats, half: int, times: int) -> None:
    """Codes for the scale that the codes themselves suggest, as long as it helps. Changes codes and sums in place."""
    active = np.ones(len(parts), dtype=np.bool_)
    for _ in range(times):
        scale = sum_lx / sum_l2
        best = scale * sum_lx
        fresh = np.clip(nearest_int(parts * (np.float32(1) / scale)[:, None]), -half, half - 1)
        new_lx, new_l2 = _sums(parts, weights, fresh)
        active &= (fresh != codes).any(axis=1) & ~(new_l2 == 0) & ~(new_lx * new_lx <= best * new_l2)
        codes[active], sum_lx[active], sum_l2[active] = fresh[active], new_lx[active], new_l2[active]


def _sweep(
    parts: Floats, weights: Floats, codes: Codes, sum_lx: Floats, sum_l2: Floats, half: int, active: Flags
) -> Flags:
    """Move single codes where that helps, element after element, in place; says which rows changed."""
    changed = np.zeros(len(parts), dtype=np.bool_)
    for column in range(parts.shape[1]):
        w, x, code = weights[:, column], parts[:, column], codes[:, column]
        old = code.astype(np.float32)
        lx: Floats = sum_lx - w * x * old
        l2: Floats = sum_l2 - w * old * old
        fresh = np.clip(nearest_int(x * l2 / lx), -half, half - 1)
        new = fresh.astype(np.float32)
        new_lx, new_l2 = lx + w * x * new, l2 + w * new * new
        better = (new_l2 > 0) & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
        move = active & (lx > 0) & (fresh != code) & better
        codes[move, column], sum_lx[move], sum_l2[move] = fresh[move], new_lx[move], new_l2[move]
        changed |= move
    return changed


# ---- types with a minimum: Q2_K, Q4_K and Q5_K -----------------------------------------------------------------------


@dataclass
class _Fit:
    """Super-blocks fitted: codes (n, 256), packed scales and minimums, their float16 units (n, 1)."""

    codes: Codes
    packed: Blocks
    d: Halves
    dmin: Halves


@dataclass
class _Search:
    """Sub-blocks searched: codes (n, 256), scales and minimums (n, sub-blocks)."""

    codes: Codes
    scales: Floats
    minimums: Floats


def _code_q2_k(rows: Floats, search: _Search, top: int) -> _Fit:
    scales, d = kpacking.quantize_affine_scales(search.scales, 15)
    minimums, dmin = kpacking.quantize_affine_scales(search.minimums, 15)
    packed = kpacking.scale_bytes_q2_k(scales, minimums)
    codes = kpacking.recode_affine(rows, search.codes, kpacking.scales_q2_k(packed), d, dmin, top)
    return _Fit(codes, packed, d, dmin)


def _code_q4_k(rows: Floats, search: _Search, top: int) -> _Fit:
    scales, d = kpacking.quantize_affine_scales(search.scales, 63)
    minimums, dmin = kpacking.quantize_affine_scales(search.minimums, 63)
    packed = kpacking.scale_bytes_q4_k(np.minimum(scales, 63), np.minimum(minimums, 63))
    codes = kpacking.recode_affine(rows, search.codes, scales_q4_k(packed), d, dmin, top)
    return _Fit(codes, packed, d, dmin)


def _fit_with_minimum(
    rows: Floats, sub: int, top: int, code: Callable[[Floats, _Search, int], _Fit], previous: Codes | None
) -> _Fit:
    """Search every sub-block, quantise its scale and minimum, and code its values again.

    The reference does not clear its codes between super-blocks and stops a search whose first round finds the codes
    that are still there from the sub-block at the same place of the super-block before. So both ends of every search
    are prepared, and which of them holds is decided until nothing changes any more. A super-block depends on the one
    before it alone, so every pass settles at least one more of them.
    """
    stopped, finished = _search_affine(rows.reshape(-1, sub), top)
    early = np.zeros((len(rows), 256 // sub), dtype=np.bool_)
    while True:
        choice = _Search(
            np.where(early.repeat(sub, axis=1), stopped.codes, finished.codes),
            np.where(early, stopped.scales, finished.scales),
            np.where(early, stopped.minimums, finished.minimums),
        )
        fit = code(rows, choice, top)
        before = np.zeros_like(fit.codes)
        before[1:] = fit.codes[:-1]
        if previous is not None:
            before[:1] = previous
        now = (before == stopped.codes).reshape(len(rows), -1, sub).all(axis=2)
        if (now == early).all():
            return fit
        early = now


def _search_affine(parts: Floats, top: int) -> tuple[_Search, _Search]:
    """Scale and minimum of each row after one round, and after as many as it takes (at most five)."""
    count, width = parts.shape
    low, high = parts.min(axis=1), parts.max(axis=1)
    constant = low == high
    low = np.minimum(low, np.float32(0))
    iscale: Floats = np.float32(top) / (high - low)
    scale = np.zeros(count, dtype=np.float32)
    codes = np.full(parts.shape, -1, dtype=np.int32)
    active = ~constant
    first: _Search | None = None
    for _ in range(_ROUNDS):
        fresh = np.clip(nearest_int(iscale[:, None] * (parts - low[:, None])), 0, top)
        changed = (fresh != codes).any(axis=1)
        new_scale, new_low = _affine_of(parts, low, fresh)
        codes[active], scale[active], low[active] = fresh[active], new_scale[active], new_low[active]
        iscale = np.float32(1) / scale
        active &= changed
        first = first or _searched(codes, scale, low, constant, 256 // width)
    assert first is not None
    return first, _searched(codes, scale, low, constant, 256 // width)


def _searched(codes: Codes, scale: Floats, low: Floats, constant: Flags, parts: int) -> _Search:
    """A constant sub-block, whatever its value, becomes 0 everywhere."""
    return _Search(
        np.where(constant[:, None], 0, codes).reshape(-1, 256),
        np.where(constant, np.float32(0), scale).reshape(-1, parts),
        np.where(constant, np.float32(0), -low).reshape(-1, parts),
    )


def _affine_of(parts: Floats, low: Floats, codes: Codes) -> tuple[Floats, Floats]:
    """The scale that fits the codes best, then the minimum that fits the scale, at most 0."""
    as_floats = codes.astype(np.float32)
    sum_lx = np.zeros(len(parts), dtype=np.float32)
    for column in range(parts.shape[1]):
        sum_lx += (parts[:, column] - low) * as_floats[:, column]
    scale = sum_lx / (codes * codes).sum(axis=1).astype(np.float32)
    rest = np.zeros(len(parts), dtype=np.float32)
    for column in range(parts.shape[1]):
        rest += parts[:, column] - scale * as_floats[:, column]
    minimum = rest / np.float32(parts.shape[1])
    return scale, np.where(minimum > 0, np.float32(0), minimum)
