"""Float values to blocks in NumPy, the same bytes as llama.cpp writes (k-quants: ``kquantizers.py``).

The simple types F32 ... Q8_0 and Q3_K are the same in 2023 and today; Q2_K, Q4_K, Q5_K and Q6_K are those of June
2023. Each operation is rounded to binary32, no multiplication is fused with an addition, and scales are divided before
they are rounded to float16.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from selfee.errors import UsageError
from selfee.weights import kquantizers
from selfee.weights.kquants import Blocks, Floats
from selfee.weights.quants import QuantType

_HALF = np.float32(0.5)
_K_QUANTIZERS: dict[QuantType, Callable[[Floats], Blocks]] = {
    QuantType.Q2_K: kquantizers.quantize_q2_k,
    QuantType.Q3_K: kquantizers.quantize_q3_k,
    QuantType.Q4_K: kquantizers.quantize_q4_k,
    QuantType.Q5_K: kquantizers.quantize_q5_k,
    QuantType.Q6_K: kquantizers.quantize_q6_k,
}


def quantize(type: QuantType, values: npt.NDArray[np.floating]) -> Blocks:
    """Turn values into blocks: uint8 of shape (blocks, bytes per block), read in C order.

    A tensor of k-quants is one call: the reference's search remembers codes from one super-block to the next.

    Raises UsageError for a type that is not written here, for NaN and infinity (their blocks would be undefined), and
    for a number of values that is not a whole number of blocks.
    """
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    if flat.size % type.block_values:
        raise UsageError(f"{flat.size} values are not a whole number of {type.name} blocks of {type.block_values}")
    if not np.isfinite(flat).all():
        raise UsageError(f"{int((~np.isfinite(flat)).sum())} values are NaN or infinite; {type.name} cannot hold them")
    rows = flat.reshape(-1, type.block_values)
    with np.errstate(all="ignore"):  # tiny scales overflow when inverted; the reference lets them
        return _quantize(type, rows)


def _quantize(type: QuantType, rows: Floats) -> Blocks:
    match type:
        case QuantType.F32:
            return rows.astype("<f4").view(np.uint8)
        case QuantType.F16:
            return rows.astype("<f2").view(np.uint8)
        case QuantType.BF16:
            return _bf16(rows)
        case QuantType.Q4_0:
            d, codes = _symmetric(rows, 8)
            return np.concatenate([_f16(d), _pack(codes)], axis=1)
        case QuantType.Q5_0:
            d, codes = _symmetric(rows, 16)
            return np.concatenate([_f16(d), _fifth_bits(codes), _pack(codes)], axis=1)
        case QuantType.Q4_1:
            d, low, codes = _affine(rows, 15)
            return np.concatenate([_f16(d), _f16(low), _pack(np.minimum(codes, 15))], axis=1)
        case QuantType.Q5_1:
            d, low, codes = _affine(rows, 31)
            return np.concatenate([_f16(d), _f16(low), _fifth_bits(codes), _pack(codes)], axis=1)
        case QuantType.Q8_0:
            d, codes = _eight_bits(rows)
            return np.concatenate([_f16(d), codes], axis=1)
    if type in _K_QUANTIZERS:
        return _K_QUANTIZERS[type](rows)
    raise UsageError(f"{type.name} is not written; choose F32, F16, BF16, Q4_0 … Q8_0 or Q2_K … Q6_K")


def _inverse(d: Floats) -> Floats:
    return np.where(d != 0, np.float32(1) / d, np.float32(0)).astype(np.float32)


def _truncated(values: Floats) -> npt.NDArray[np.int8]:
    """C's conversion to int8 as x86 does it: what does not fit into 32 bits (1/d overflowed) becomes 0."""
    inside = np.where(np.abs(values) < np.float32(2**31), values, np.float32(0))
    return inside.astype(np.int32).astype(np.int8)


def _symmetric(rows: Floats, half: int) -> tuple[Floats, Blocks]:
    """Scale so that the value of largest magnitude, sign and all, becomes code 0: 2 * half codes, half means 0."""
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1, keepdims=True), axis=1)
    largest = np.where(largest == 0, np.float32(0), largest)
    d = largest / np.float32(-half)
    codes = _truncated(rows * _inverse(d) + np.float32(half + 0.5))
    return d, np.minimum(codes, 2 * half - 1).astype(np.uint8)


def _affine(rows: Floats, top: int) -> tuple[Floats, Floats, Blocks]:
    """Scale and shift so that the minimum becomes code 0 and the maximum ``top``. Of +0 and -0 the first counts."""
    low = np.take_along_axis(rows, rows.argmin(axis=1, keepdims=True), axis=1)
    high = np.take_along_axis(rows, rows.argmax(axis=1, keepdims=True), axis=1)
    d = (high - low) / np.float32(top)
    return d, low, _truncated((rows - low) * _inverse(d) + _HALF).astype(np.uint8)


def _eight_bits(rows: Floats) -> tuple[Floats, Blocks]:
    """Scale the largest magnitude to 127 and round halves away from zero; the codes are int8 seen as uint8."""
    d = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    scaled = (rows * _inverse(d)).astype(np.float64)  # adding a half in binary32 could round up by itself
    codes = _truncated(np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.float32))
    return d, codes.view(np.uint8)


def _bf16(rows: Floats) -> Blocks:
    """The upper half of a binary32, rounded to the nearest, ties to even."""
    bits = rows.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").view(np.uint8)


def _f16(column: Floats) -> Blocks:
    return column.astype("<f2").view(np.uint8)


def _pack(codes: Blocks) -> Blocks:
    """Low four bits of 32 codes in 16 bytes: value j in the low half of byte j, value 16 + j in the high half."""
    low = codes & np.uint8(15)
    return low[:, :16] | low[:, 16:] << np.uint8(4)


def _fifth_bits(codes: Blocks) -> Blocks:
    return np.packbits(codes >> np.uint8(4) & np.uint8(1), axis=1, bitorder="little")
