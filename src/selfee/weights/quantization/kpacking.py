"""The last steps of every k-quantiser in NumPy: code the values again with stored scales, pack codes into blocks.

What came before, the search for scales, differs between June 2023 (``kquantizers.py``), today
(``kquantizers_current.py``) and quantisation with an importance matrix (``importance_quantizers.py``). Arrays hold one
super-block of 256 values a row; every operation is rounded to binary32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from selfee.weights.kquants import Blocks, Floats, scales_q4_k

Codes = npt.NDArray[np.int32]
Halves = npt.NDArray[np.float16]

_TWO_BITS = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(1, 1, 4, 1)
_MAGIC = np.float32(12582912)  # 1.5 * 2**23: adding it leaves the rounded number in the low mantissa bits


def nearest_int(values: Floats) -> Codes:
    """Round half to even as the reference does by adding 1.5 * 2**23: larger numbers wrap, NaN gives 0."""
    bits: Codes = (values + _MAGIC).view(np.int32)
    return (bits & 0x7FFFFF) - 0x400000


def to_half(values: Floats) -> Halves:
    """Round to float16, ties to even; the little-endian numbers that blocks hold."""
    return values.astype("<f2")


def largest_magnitude(values: Floats) -> Floats:
    """The value of largest magnitude of each row, sign and all, the first of equals; 0 where none is above 0.

    NaN is passed over, as a comparison in C does. Shape (rows, 1).
    """
    magnitudes = np.abs(values)
    magnitudes[np.isnan(magnitudes)] = 0
    found: Floats = np.take_along_axis(values, magnitudes.argmax(axis=1, keepdims=True), axis=1)
    return np.where(np.abs(found) > 0, found, np.float32(0))


def quantize_affine_scales(values: Floats, top: int) -> tuple[Codes, Halves]:
    """Scales (or minimums) of sub-blocks as bytes, parts of the largest one, and that part in float16, shape (n, 1)."""
    largest: Floats = np.fmax(np.fmax.reduce(values, axis=1, keepdims=True), np.float32(0))
    inverse = np.where(largest > 0, np.float32(top) / largest, np.float32(0)).astype(np.float32)
    return nearest_int(inverse * values) & 255, to_half(largest / np.float32(top))


def scale_bytes_q2_k(scales: Codes, minimums: Codes) -> Blocks:
    """Scale and minimum of 4 bits each in one byte a sub-block. A wrapped scale spills over, as in the reference."""
    return _u8(scales | minimums << 4)


def scales_q2_k(packed: Blocks) -> tuple[Blocks, Blocks]:
    """The sixteen scales and the sixteen minimums of 4 bits, each of shape (n, 16)."""
    return packed & np.uint8(15), packed >> np.uint8(4)


def scale_bytes_q4_k(scales: Codes, minimums: Codes) -> Blocks:
    """Eight scales and eight minimums of 6 bits in 12 bytes; ``scales_q4_k`` reads them back."""
    first = scales[:, :4] | scales[:, 4:] >> 4 << 6
    second = minimums[:, :4] | minimums[:, 4:] >> 4 << 6
    third = scales[:, 4:] & 15 | (minimums[:, 4:] & 15) << 4
    return _u8(np.concatenate([first, second, third], axis=1))


def finish_q2_k(rows: Floats, kept: Codes, packed: Blocks, d: Halves, dmin: Halves) -> Blocks:
    """Blocks of 84 bytes. ``kept`` (n, 256) are the codes of sub-blocks whose stored scale is 0."""
    codes = recode_affine(rows, kept, scales_q2_k(packed), d, dmin, 3)
    return pack_q2_k(codes, packed, d, dmin)


def finish_q4_k(rows: Floats, kept: Codes, packed: Blocks, d: Halves, dmin: Halves) -> Blocks:
    """Blocks of 144 bytes."""
    return pack_q4_k(recode_affine(rows, kept, scales_q4_k(packed), d, dmin, 15), packed, d, dmin)


def finish_q5_k(rows: Floats, kept: Codes, packed: Blocks, d: Halves, dmin: Halves) -> Blocks:
    """Blocks of 176 bytes."""
    return pack_q5_k(recode_affine(rows, kept, scales_q4_k(packed), d, dmin, 31), packed, d, dmin)


def recode_affine(rows: Floats, kept: Codes, scales: tuple[Blocks, Blocks], d: Halves, dmin: Halves, top: int) -> Codes:
    """Codes 0 to ``top`` for the scales and minimums that a reader will see; ``kept`` where the scale is 0."""
    sub = 256 // scales[0].shape[1]
    step = (d.astype(np.float32) * scales[0].astype(np.float32)).repeat(sub, axis=1)
    shift = (dmin.astype(np.float32) * scales[1].astype(np.float32)).repeat(sub, axis=1)
    return np.where(step == 0, kept, np.clip(nearest_int((rows + shift) / step), 0, top))


def recode_symmetric(rows: Floats, kept: Codes, scales: npt.NDArray[np.integer], d: Halves, half: int) -> Codes:
    """Codes 0 to 2 half - 1, where ``half`` means 0; ``kept`` where the scale is 0."""
    step = (d.astype(np.float32) * scales.astype(np.float32)).repeat(16, axis=1)
    return np.where(step == 0, kept, np.clip(nearest_int(rows / step), -half, half - 1) + half)


def finish_q3_k(rows: Floats, kept: Codes, scales: Codes, d: Halves) -> Blocks:
    """Blocks of 110 bytes; ``scales`` (n, 16) are stored + 32, 0 to 63."""
    codes = _u8(recode_symmetric(rows, kept, scales - 32, d, 4))
    low = _u8(scales & 15)
    high = _u8(scales >> 4).reshape(-1, 4, 4)
    packed = [low[:, :8] | low[:, 8:] << 4, high[:, 0] | high[:, 1] << 2 | high[:, 2] << 4 | high[:, 3] << 6]
    two_bits = _four_in_a_byte((codes & 3).reshape(-1, 2, 4, 32))
    return np.concatenate([_bit_planes(codes >> 2), two_bits, *packed, d.view(np.uint8)], axis=1)


def finish_q6_k(rows: Floats, kept: Codes, scales: npt.NDArray[np.int8], d: Halves) -> Blocks:
    """Blocks of 210 bytes; ``scales`` are (n, 16)."""
    codes = recode_symmetric(rows, kept, scales, d, 32).reshape(-1, 2, 4, 32)
    low, high = _u8(codes & 15), _four_in_a_byte(_u8(codes >> 4))
    packed = np.concatenate([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], axis=2)
    return np.concatenate([_u8(packed).reshape(-1, 128), high, scales.view(np.uint8), d.view(np.uint8)], axis=1)


def pack_q2_k(codes: Codes, packed: Blocks, d: Halves, dmin: Halves) -> Blocks:
    two_bits = _four_in_a_byte(_u8(codes).reshape(-1, 2, 4, 32))
    return np.concatenate([packed, two_bits, d.view(np.uint8), dmin.view(np.uint8)], axis=1)


def pack_q4_k(codes: Codes, packed: Blocks, d: Halves, dmin: Halves) -> Blocks:
    return np.concatenate([d.view(np.uint8), dmin.view(np.uint8), packed, _two_in_a_byte(_u8(codes))], axis=1)


def pack_q5_k(codes: Codes, packed: Blocks, d: Halves, dmin: Halves) -> Blocks:
    high, low = _bit_planes(_u8(codes >> 4)), _two_in_a_byte(_u8(codes & 15))
    return np.concatenate([d.view(np.uint8), dmin.view(np.uint8), packed, high, low], axis=1)


def codes_q2_k(blocks: Blocks) -> Codes:
    """The codes (n, 256) that lie in Q2_K blocks."""
    return (blocks[:, 16:80].reshape(-1, 2, 1, 32) >> _TWO_BITS & 3).reshape(-1, 256).astype(np.int32)


def codes_q4_k(blocks: Blocks) -> Codes:
    """The codes (n, 256) that lie in Q4_K blocks."""
    return _nibbles(blocks[:, 16:])


def codes_q5_k(blocks: Blocks) -> Codes:
    """The codes (n, 256) that lie in Q5_K blocks."""
    high = np.unpackbits(blocks[:, None, 16:48], axis=1, count=8, bitorder="little")
    return _nibbles(blocks[:, 48:]) | high.reshape(-1, 256).astype(np.int32) << 4


def _nibbles(packed: Blocks) -> Codes:
    """The inverse of ``_two_in_a_byte``."""
    halves = packed.reshape(-1, 4, 1, 32) >> np.array([0, 4], dtype=np.uint8).reshape(1, 1, 2, 1) & 15
    return halves.reshape(-1, 256).astype(np.int32)


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
