"""The k-quants Q2_K ... Q6_K in NumPy: blocks of 256 values whose scales are quantised themselves.

Every function takes blocks as uint8 of shape (n, bytes per block) and gives float32 of shape (n, 256), each operation
rounded to binary32 in the order of the reference (ggml, June 2023 and today: same floats). With h = v // 128,
g = v % 128 // 32 and l = v % 32 a value's two low bits lie in byte 32 h + l at bit 2 g; the arrays below are shaped
(n, h, g, l) and read back in the order of v.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Blocks = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_TWO_BITS = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(1, 1, 4, 1)
_NIBBLES = np.array([0, 4], dtype=np.uint8).reshape(1, 1, 2, 1)
_EIGHT_BITS = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)


def read_f16(blocks: Blocks, at: int) -> Floats:
    """The float16 at byte ``at`` of every block, widened exactly to float32, shape (n, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def dequantize_q2_k(blocks: Blocks) -> Floats:
    """16 scales and minimums of 4 bits each over sub-blocks of 16 values of 2 bits."""
    n = len(blocks)
    scales = blocks[:, :16]
    codes = (blocks[:, 16:80].reshape(n, 2, 1, 32) >> _TWO_BITS & 3).reshape(n, 16, 16).astype(np.float32)
    scale = read_f16(blocks, 80) * (scales & 15).astype(np.float32)
    minimum = read_f16(blocks, 82) * (scales >> 4).astype(np.float32)
    return (scale[:, :, None] * codes - minimum[:, :, None]).reshape(n, 256)


def dequantize_q3_k(blocks: Blocks) -> Floats:
    """16 signed scales of 6 bits over sub-blocks of 16 values of 3 bits, the third bit kept apart."""
    n = len(blocks)
    high = blocks[:, None, :32] >> _EIGHT_BITS & 1
    low = (blocks[:, 32:96].reshape(n, 2, 1, 32) >> _TWO_BITS & 3).reshape(n, 8, 32)
    codes = (low + 4 * high).astype(np.float32) - np.float32(4)
    scale = read_f16(blocks, 108) * (scales_q3_k(blocks[:, 96:108]).astype(np.float32) - np.float32(32))
    values: Floats = scale[:, :, None] * codes.reshape(n, 16, 16)
    return values.reshape(n, 256)


def scales_q3_k(packed: Blocks) -> Blocks:
    """The 16 six-bit scales (before subtracting 32) of 12 packed bytes, shape (n, 16)."""
    n = len(packed)
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    high = (packed[:, None, 8:] >> np.array([0, 2, 4, 6], dtype=np.uint8).reshape(1, 4, 1) & 3).reshape(n, 16)
    scales: Blocks = (low | high << 4).astype(np.uint8)
    return scales


def scales_q4_k(packed: Blocks) -> tuple[Blocks, Blocks]:
    """The eight six-bit scales and the eight six-bit minimums of 12 packed bytes, each of shape (n, 8)."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scale = np.concatenate([first & 63, third & 15 | (first >> 6) << 4], axis=1)
    minimum = np.concatenate([second & 63, third >> 4 | (second >> 6) << 4], axis=1)
    return scale, minimum


def _scaled(blocks: Blocks, codes: npt.NDArray[np.integer]) -> Floats:
    """Q4_K and Q5_K: codes (n, 8, 32) times the scale minus the minimum of their sub-block."""
    scales, minimums = scales_q4_k(blocks[:, 4:16])
    scale = read_f16(blocks, 0) * scales.astype(np.float32)
    minimum = read_f16(blocks, 2) * minimums.astype(np.float32)
    return (scale[:, :, None] * codes.astype(np.float32) - minimum[:, :, None]).reshape(len(blocks), 256)


def dequantize_q4_k(blocks: Blocks) -> Floats:
    """8 scales and minimums of 6 bits over sub-blocks of 32 values of 4 bits."""
    n = len(blocks)
    return _scaled(blocks, (blocks[:, 16:].reshape(n, 4, 1, 32) >> _NIBBLES & 15).reshape(n, 8, 32))


def dequantize_q5_k(blocks: Blocks) -> Floats:
    """As Q4_K with a fifth bit kept apart."""
    n = len(blocks)
    high = blocks[:, None, 16:48] >> _EIGHT_BITS & 1
    low = (blocks[:, 48:].reshape(n, 4, 1, 32) >> _NIBBLES & 15).reshape(n, 8, 32)
    return _scaled(blocks, low | high << 4)


def dequantize_q6_k(blocks: Blocks) -> Floats:
    """16 signed scales of 8 bits over sub-blocks of 16 values of 6 bits: four low bits and two high bits apart."""
    n = len(blocks)
    low = (blocks[:, :128].reshape(n, 2, 1, 64) >> _NIBBLES & 15).reshape(n, 2, 4, 32)
    high = blocks[:, 128:192].reshape(n, 2, 1, 32) >> _TWO_BITS & 3
    codes = (low | high << 4).reshape(n, 16, 16).astype(np.float32) - np.float32(32)
    scale = read_f16(blocks, 208) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    return (scale[:, :, None] * codes).reshape(n, 256)
