"""Float values to blocks in NumPy, the same bytes as llama.cpp writes; the slow twin of the native quantisers.

Here are the simple types F32 ... Q8_0; the k-quants are in ``kquantizers.py`` (June 2023), ``kquantizers_current.py``
(today) and, with an importance matrix, ``importance_quantizers.py``. Each operation is rounded to binary32, no
multiplication is fused with an addition, and scales are divided before they are rounded to float16.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np
import numpy.typing as npt

from selfee.errors import UsageError
from selfee.weights.finite import SCALES_AT
from selfee.weights.kquants import Blocks, Floats
from selfee.weights.quantization import importance_quantizers, kpacking, kquantizers, kquantizers_current
from selfee.weights.quantization.kpacking import Codes
from selfee.weights.quants import QuantType

_HALF = np.float32(0.5)
# The least magnitude that a type cannot hold: what rounds to infinity.
_LIMITS = {
    QuantType.F32: np.float32(np.inf),
    QuantType.F16: np.float32(65520),
    QuantType.BF16: np.array(0x7F7F8000, dtype=np.uint32).view(np.float32)[()],
}
_TOO_LARGE = np.float32(2**40)  # far beyond what float16 scales can hold, far below where sums of squares overflow


class Generation(Enum):
    """Whose rules: the same values become different blocks of Q2_K, Q4_K, Q5_K and Q6_K."""

    JUNE_2023 = "june-2023"
    """llama.cpp of 6 June 2023 (commit 2d43387), the first release with k-quants."""
    CURRENT = "current"
    """ggml of August 2026, whose rules are those of May 2024."""


class NotFinite(UsageError, ValueError):  # noqa: N818 – what was found, as in FileNotFound
    """A value is NaN, infinite, or so large that float16 cannot hold its block's scale; ``index`` says which."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


_K_QUANTIZERS: dict[Generation, dict[QuantType, Callable[[Floats], Blocks]]] = {
    Generation.JUNE_2023: {
        QuantType.Q3_K: kquantizers.quantize_q3_k,
        QuantType.Q6_K: kquantizers.quantize_q6_k,
    },
    Generation.CURRENT: {
        QuantType.Q2_K: kquantizers_current.quantize_q2_k,
        QuantType.Q3_K: kquantizers_current.quantize_q3_k,
        QuantType.Q4_K: kquantizers_current.quantize_q4_k,
        QuantType.Q5_K: kquantizers_current.quantize_q5_k,
        QuantType.Q6_K: kquantizers_current.quantize_q6_k,
    },
}
# The searches of 2023 that remember the codes of the super-block before, and how to read those from a block.
_REMEMBERING: dict[QuantType, tuple[Callable[[Floats, Codes | None], Blocks], Callable[[Blocks], Codes]]] = {
    QuantType.Q2_K: (kquantizers.quantize_q2_k, kpacking.codes_q2_k),
    QuantType.Q4_K: (kquantizers.quantize_q4_k, kpacking.codes_q4_k),
    QuantType.Q5_K: (kquantizers.quantize_q5_k, kpacking.codes_q5_k),
}
_WEIGHTED_K_QUANTIZERS: dict[QuantType, Callable[[Floats, Floats], Blocks]] = {
    QuantType.Q2_K: importance_quantizers.quantize_q2_k,
    QuantType.Q3_K: importance_quantizers.quantize_q3_k,
    QuantType.Q4_K: importance_quantizers.quantize_q4_k,
    QuantType.Q5_K: importance_quantizers.quantize_q5_k,
    QuantType.Q6_K: importance_quantizers.quantize_q6_k,
}


def quantize(
    type: QuantType,
    values: npt.NDArray[np.floating],
    *,
    generation: Generation = Generation.JUNE_2023,
    importance: npt.NDArray[np.float32] | None = None,
    previous: Blocks | None = None,
) -> Blocks:
    """Turn values into blocks: uint8 of shape (blocks, bytes per block), read in C order.

    With ``importance`` (columns,) the values are (rows, columns), rows a whole number of blocks, and the rules are
    today's whatever the generation; F32, F16, BF16 and Q8_0 take no notice of it. The search of 2023 for Q2_K, Q4_K
    and Q5_K remembers codes from one super-block to the next: a tensor is one call, or ``previous`` is the last block
    of the call before.

    Raises UsageError for a type that is not written here, for a number of values that is not a whole number of blocks
    and for an importance that does not fit, NotFinite for NaN, infinity and values whose scale float16 cannot hold.
    """
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    if flat.size % type.block_values:
        raise UsageError(f"{flat.size} values are not a whole number of {type.name} blocks of {type.block_values}")
    _check_values(type, flat)
    with np.errstate(all="ignore"):  # tiny scales overflow when inverted; the reference lets them
        if importance is not None:
            check_importance(type, importance, values.shape[-1])
            blocks = _quantize_weighted(type, flat.reshape(-1, importance.size), importance)
        else:
            blocks = _quantize(type, flat.reshape(-1, type.block_values), generation, previous)
    _check_scales(type, blocks)
    return blocks


def check_importance(type: QuantType, importance: npt.NDArray[np.float32], columns: int) -> None:
    """Raise UsageError unless there is one finite number, 0 or more, for each column, and rows are whole blocks."""
    if importance.shape != (columns,) or columns % type.block_values:
        raise UsageError(
            f"importance of shape {importance.shape} for rows of {columns} values; expected one number for each "
            f"column, and rows of whole {type.name} blocks of {type.block_values}"
        )
    wrong = np.flatnonzero(~(np.isfinite(importance) & (importance >= 0)))
    if wrong.size:
        raise UsageError(f"importance of column {wrong[0]} is {importance[wrong[0]]}; expected a finite number from 0")


def _check_values(type: QuantType, flat: Floats) -> None:
    """Refuse what no block of the type can hold: the first value that is NaN, infinite or too large."""
    limit = _LIMITS.get(type, _TOO_LARGE)
    wrong = np.flatnonzero(~(np.abs(flat) < limit))
    if wrong.size:
        raise not_finite(type, int(wrong[0]), float(flat[wrong[0]]))


def _check_scales(type: QuantType, blocks: Blocks) -> None:
    """Refuse blocks whose stored scales became NaN or infinite."""
    wrong = np.zeros(len(blocks), dtype=np.bool_)
    for at in SCALES_AT.get(type, ()):
        wrong |= (blocks[:, at + 1] & 0x7C) == 0x7C
    if wrong.any():
        raise not_finite(type, int(wrong.argmax()) * type.block_values, None)


def not_finite(type: QuantType, index: int, value: float | None) -> NotFinite:
    """The error for a value, or without one for the block that begins at ``index``."""
    if value is None:
        found = f"the {type.name} block from value {index} needs a scale that float16 cannot hold"
    elif np.isfinite(value):
        found = f"value {index} is {value:g}, too large for {type.name}"
    else:
        found = f"value {index} is NaN or infinite; {type.name} cannot hold it"
    return NotFinite(index, found)


def _quantize(type: QuantType, rows: Floats, generation: Generation, previous: Blocks | None) -> Blocks:
    match type:
        case QuantType.F32:
            return rows.astype("<f4").view(np.uint8)
        case QuantType.F16:
            return rows.astype("<f2").view(np.uint8)
        case QuantType.BF16:
            return _bf16(rows)
        case QuantType.Q4_0 | QuantType.Q5_0:
            return _symmetric_blocks(type, *_symmetric(rows, 8 if type is QuantType.Q4_0 else 16))
        case QuantType.Q4_1 | QuantType.Q5_1:
            return _affine_blocks(type, *_affine(rows, 15 if type is QuantType.Q4_1 else 31))
        case QuantType.Q8_0:
            d, codes = _eight_bits(rows)
            return np.concatenate([_f16(d), codes], axis=1)
    if generation is Generation.JUNE_2023 and type in _REMEMBERING:
        remembering, codes_of = _REMEMBERING[type]
        return remembering(rows, None if previous is None else codes_of(previous.reshape(1, -1)))
    if type in _K_QUANTIZERS[generation]:
        return _K_QUANTIZERS[generation][type](rows)
    raise UsageError(f"{type.name} is not written; choose F32, F16, BF16, Q4_0 … Q8_0 or Q2_K … Q6_K")


def _quantize_weighted(type: QuantType, rows: Floats, importance: Floats) -> Blocks:
    match type:
        case QuantType.Q4_0 | QuantType.Q5_0:
            codes, scale = importance_quantizers.fit_symmetric(rows, importance, 8 if type is QuantType.Q4_0 else 16)
            return _symmetric_blocks(type, scale, codes.astype(np.uint8))
        case QuantType.Q4_1 | QuantType.Q5_1:
            top = 15 if type is QuantType.Q4_1 else 31
            codes, scale, low = importance_quantizers.fit_affine(rows, importance, top)
            return _affine_blocks(type, scale, low, codes.astype(np.uint8))
    if type in _WEIGHTED_K_QUANTIZERS:
        return _WEIGHTED_K_QUANTIZERS[type](rows, importance)
    return _quantize(type, rows.reshape(-1, type.block_values), Generation.CURRENT, None)


def _symmetric_blocks(type: QuantType, d: Floats, codes: Blocks) -> Blocks:
    high = [_fifth_bits(codes)] if type is QuantType.Q5_0 else []
    return np.concatenate([_f16(d), *high, _pack(codes)], axis=1)


def _affine_blocks(type: QuantType, d: Floats, low: Floats, codes: Blocks) -> Blocks:
    high = [_fifth_bits(codes)] if type is QuantType.Q5_1 else []
    return np.concatenate([_f16(d), _f16(low), *high, _pack(codes)], axis=1)


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
    codes = _truncated((rows - low) * _inverse(d) + _HALF).astype(np.uint8)
    return d, low, np.minimum(codes, 15) if top == 15 else codes


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
