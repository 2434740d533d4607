"""Float values to k-quants in NumPy, the same bytes as llama.cpp of June 2023 (commit 2d43387).

Scales are searched so that the weighted error of a sub-block is small, then quantised themselves. Sums run in element
order and every operation is rounded to binary32, so that the result is the reference's to the bit; sub-blocks are
worked on side by side (rows of a matrix), the elements of one after another (its columns).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selfee.weights.kquants import Blocks, Floats, scales_q4_k

Codes = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

_ROUNDS = 5
_REFITS = 3
_MAGIC = np.float32(12582912)  # 1.5 * 2**23: adding it leaves the rounded number in the low mantissa bits


def nearest_int(values: Floats) -> Codes:
    """Round half to even as the reference does by adding 1.5 * 2**23: larger numbers wrap, NaN gives 0."""
    bits: Codes = (values + _MAGIC).view(np.int32)
    return (bits & 0x7FFFFF) - 0x400000


def quantize_q2_k(rows: Floats) -> Blocks:
    """Rows of 256 values to blocks of 84 bytes."""
    fit = _fit_with_minimum(rows, sub=16, top=3, scale_top=15)
    packed = _u8(fit.scales | fit.minimums << 4)
    codes = _u8(fit.codes).reshape(-1, 2, 4, 32)
    return np.concatenate([packed, _four_in_a_byte(codes), fit.d, fit.dmin], axis=1)


def quantize_q4_k(rows: Floats) -> Blocks:
    """Rows of 256 values to blocks of 144 bytes."""
    fit = _fit_with_minimum(rows, sub=32, top=15, scale_top=63)
    return np.concatenate([fit.d, fit.dmin, _pack_scales(fit), _two_in_a_byte(_u8(fit.codes))], axis=1)


def quantize_q5_k(rows: Floats) -> Blocks:
    """Rows of 256 values to blocks of 176 bytes."""
    fit = _fit_with_minimum(rows, sub=32, top=31, scale_top=63)
    high, low = _bit_planes(_u8(fit.codes >> 4)), _two_in_a_byte(_u8(fit.codes & 15))
    return np.concatenate([fit.d, fit.dmin, _pack_scales(fit), high, low], axis=1)


def quantize_q3_k(rows: Floats) -> Blocks:
    """Rows of 256 values to blocks of 110 bytes."""
    parts = rows.reshape(-1, 16)
    codes, scales = _search_symmetric(parts, half=4, refits=0)
    scales = scales.reshape(-1, 16)
    largest = _largest(scales)
    iscale = np.float32(-32) / largest
    rounded = np.clip(nearest_int(iscale * scales).astype(np.int8), -32, 31).astype(np.int32) + 32
    is_zero = largest == 0
    d = np.where(is_zero, np.float32(0), np.float32(1) / iscale).astype("<f2")
    packed_scales = np.where(is_zero, 0, rounded)
    # Where all scales are 0 the packed bytes are 0, which read back as -32: d is 0, so nothing comes of it.
    step = (d.astype(np.float32) * (packed_scales - 32).astype(np.float32)).reshape(-1, 1)
    fresh = np.clip(nearest_int(parts / step), -4, 3) + 4
    codes = np.where(step == 0, codes + 4, fresh).reshape(-1, 256)
    low = _u8(packed_scales & 15)
    high = _u8(packed_scales >> 4).reshape(-1, 4, 4)
    packed = [low[:, :8] | low[:, 8:] << 4, high[:, 0] | high[:, 1] << 2 | high[:, 2] << 4 | high[:, 3] << 6]
    codes8 = _u8(codes)
    return np.concatenate(
        [_bit_planes(codes8 >> 2), _four_in_a_byte((codes8 & 3).reshape(-1, 2, 4, 32)), *packed, d.view(np.uint8)],
        axis=1,
    )


def quantize_q6_k(rows: Floats) -> Blocks:
    """Rows of 256 values to blocks of 210 bytes."""
    parts = rows.reshape(-1, 16)
    codes, scales = _search_symmetric(parts, half=32, refits=_REFITS)
    scales = scales.reshape(-1, 16)
    iscale = np.float32(-128) / _largest(scales)
    d = (np.float32(1) / iscale).astype("<f2")
    rounded = np.minimum(127, nearest_int(iscale * scales)).astype(np.int8)
    step = (d.astype(np.float32) * rounded.astype(np.float32)).reshape(-1, 1)
    fresh = np.clip(nearest_int(parts / step), -32, 31) + 32
    # An all-zero sub-block has code 0 from its search where others have 32 for zero.
    kept = np.where((parts == 0).all(axis=1, keepdims=True), 0, codes + 32)
    codes = np.where(step == 0, kept, fresh).reshape(-1, 2, 4, 32)
    low, high = _u8(codes & 15), _four_in_a_byte(_u8(codes >> 4))
    packed = np.concatenate([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], axis=2)
    return np.concatenate([_u8(packed).reshape(-1, 128), high, rounded.view(np.uint8), d.view(np.uint8)], axis=1)


def _u8(values: npt.NDArray[np.integer]) -> Blocks:
    return values.astype(np.uint8)


def _four_in_a_byte(codes: npt.NDArray[np.integer]) -> Blocks:
    """Two-bit codes (n, 2, 4, 32) to (n, 64): group g of a half at bit 2 g."""
    packed = codes[:, :, 0] | codes[:, :, 1] << 2 | codes[:, :, 2] << 4 | codes[:, :, 3] << 6
    return _u8(packed.reshape(-1, 64))


def _two_in_a_byte(codes: Blocks) -> Blocks:
    """Four-bit codes (n, 256) to (n, 128): of each 64 values the first 32 in the low halves."""
    groups = codes.reshape(-1, 4, 2, 32)
    return _u8((groups[:, :, 0] | groups[:, :, 1] << 4).reshape(-1, 128))


def _bit_planes(bits: npt.NDArray[np.integer]) -> Blocks:
    """One bit of 256 values to 32 bytes: value v is bit v // 32 of byte v % 32."""
    return np.packbits(bits.reshape(-1, 8, 32) & 1, axis=1, bitorder="little").reshape(-1, 32)


def _largest(values: Floats) -> Floats:
    """The value of largest magnitude of each row, sign and all, the first of equals; shape (rows, 1)."""
    found: Floats = np.take_along_axis(values, np.abs(values).argmax(axis=1, keepdims=True), axis=1)
    return np.where(found == 0, np.float32(0), found)


# ---- symmetric types: Q3_K and Q6_K ----------------------------------------------------------------------------------


def _search_symmetric(parts: Floats, half: int, refits: int) -> tuple[Codes, Floats]:
    """Codes from -half to half - 1 and a scale for each row, fitted with the weights x**2.

    Rows of zeros get scale 0 and codes of -half (the reference leaves a stored 0).
    """
    largest = _largest(parts)
    weights = parts * parts
    codes = np.clip(nearest_int(parts * (np.float32(-half) / largest)), -half, half - 1)
    sum_lx, sum_l2 = _sums(parts, weights, codes)
    _refit(parts, weights, codes, sum_lx, sum_l2, half, refits)
    active = np.ones(len(parts), dtype=np.bool_)
    for _ in range(_ROUNDS):
        active &= _sweep(parts, weights, codes, sum_lx, sum_l2, half, active)
    is_zero = largest[:, 0] == 0
    codes[is_zero] = -half
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
    """Super-blocks fitted: codes (n, 256), quantised scales and minimums (n, sub-blocks), their float16 units."""

    codes: Codes
    scales: Codes
    minimums: Codes
    d: Blocks
    dmin: Blocks


@dataclass
class _Search:
    """Sub-blocks searched: codes (n, 256), scales and minimums (n, sub-blocks)."""

    codes: Codes
    scales: Floats
    minimums: Floats


def _fit_with_minimum(rows: Floats, sub: int, top: int, scale_top: int) -> _Fit:
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
        fit = _quantize_scales(rows, choice, sub, top, scale_top)
        before = np.zeros_like(fit.codes)
        before[1:] = fit.codes[:-1]
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


def _quantize_scales(rows: Floats, search: _Search, sub: int, top: int, scale_top: int) -> _Fit:
    scales, d = _quantized(search.scales, scale_top)
    minimums, dmin = _quantized(search.minimums, scale_top)
    step = (d.astype(np.float32) * scales.astype(np.float32)).repeat(sub, axis=1)
    shift = (dmin.astype(np.float32) * minimums.astype(np.float32)).repeat(sub, axis=1)
    fresh = np.clip(nearest_int((rows + shift) / step), 0, top)
    codes = np.where(step == 0, search.codes, fresh)
    return _Fit(codes, scales, minimums, d.view(np.uint8), dmin.view(np.uint8))


def _quantized(values: Floats, top: int) -> tuple[Codes, npt.NDArray[np.float16]]:
    """Scales as multiples of the largest one's part, and that part in float16."""
    largest = np.maximum(values.max(axis=1, keepdims=True), np.float32(0))
    inverse = np.where(largest > 0, np.float32(top) / largest, np.float32(0)).astype(np.float32)
    rounded = np.minimum(nearest_int(inverse * values) & 255, top)
    return rounded, (largest / np.float32(top)).astype("<f2")


def _pack_scales(fit: _Fit) -> Blocks:
    """Eight scales and eight minimums of 6 bits in 12 bytes; ``scales_q4_k`` reads them back."""
    scales, minimums = _u8(fit.scales), _u8(fit.minimums)
    first = scales[:, :4] | scales[:, 4:] >> 4 << 6
    second = minimums[:, :4] | minimums[:, 4:] >> 4 << 6
    third = scales[:, 4:] & 15 | (minimums[:, 4:] & 15) << 4
    packed = np.concatenate([first, second, third], axis=1)
    assert all((a == b).all() for a, b in zip(scales_q4_k(packed), (scales, minimums), strict=True))
    return packed
