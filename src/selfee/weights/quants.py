"""What every bit of a stored weight means: block types F32 ... Q8_0 in NumPy (the k-quants: ``kquants.py``).

A tensor is stored in blocks: a few values that share a scale. Types are ggml's, with ggml's numbers. This is the slow
twin of the native kernels, which give the same bits. Layouts: ggml since May 2023 (GGJT v3) and GGUF.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from selfee.errors import UnsupportedFileError
from selfee.weights import kquants
from selfee.weights.kquants import Blocks, Floats, read_f16


class QuantType(IntEnum):
    """How the values of a tensor are stored; the value is ggml's type number in files."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41

    @property
    def block_values(self) -> int:
        """How many values one block holds."""
        return _BLOCKS[self][0]

    @property
    def block_bytes(self) -> int:
        """How many bytes one block takes."""
        return _BLOCKS[self][1]

    @property
    def readable(self) -> bool:
        """True for the types that selfee computes with; others can only be listed."""
        return self in _DEQUANTIZERS


_BLOCKS: dict[QuantType, tuple[int, int]] = {
    QuantType.F32: (1, 4),
    QuantType.F16: (1, 2),
    QuantType.Q4_0: (32, 18),
    QuantType.Q4_1: (32, 20),
    QuantType.Q5_0: (32, 22),
    QuantType.Q5_1: (32, 24),
    QuantType.Q8_0: (32, 34),
    QuantType.Q8_1: (32, 36),
    QuantType.Q2_K: (256, 84),
    QuantType.Q3_K: (256, 110),
    QuantType.Q4_K: (256, 144),
    QuantType.Q5_K: (256, 176),
    QuantType.Q6_K: (256, 210),
    QuantType.Q8_K: (256, 292),
    QuantType.IQ2_XXS: (256, 66),
    QuantType.IQ2_XS: (256, 74),
    QuantType.IQ3_XXS: (256, 98),
    QuantType.IQ1_S: (256, 50),
    QuantType.IQ4_NL: (32, 18),
    QuantType.IQ3_S: (256, 110),
    QuantType.IQ2_S: (256, 82),
    QuantType.IQ4_XS: (256, 136),
    QuantType.I8: (1, 1),
    QuantType.I16: (1, 2),
    QuantType.I32: (1, 4),
    QuantType.I64: (1, 8),
    QuantType.F64: (1, 8),
    QuantType.IQ1_M: (256, 56),
    QuantType.BF16: (1, 2),
    QuantType.TQ1_0: (256, 54),
    QuantType.TQ2_0: (256, 66),
    QuantType.MXFP4: (32, 17),
    QuantType.NVFP4: (64, 36),
    QuantType.Q1_0: (128, 18),
}


def dequantize(type: QuantType, blocks: npt.NDArray[np.uint8], count: int | None = None) -> Floats:
    """Turn stored blocks into float32 values, shape (count,).

    ``blocks`` are the raw bytes, of any shape, a whole number of blocks; ``count`` (default all) values are returned.
    Raises UnsupportedFileError for a type that can only be listed, ValueError if the bytes do not make up the values.
    """
    decode = _DEQUANTIZERS.get(type)
    if decode is None:
        names = " ".join(known.name for known in _DEQUANTIZERS)
        raise UnsupportedFileError(f"tensor type {type.name} can be listed but not used; selfee computes with {names}")
    raw = np.ascontiguousarray(blocks, dtype=np.uint8).reshape(-1)
    if raw.size % type.block_bytes:
        raise ValueError(f"{raw.size} bytes are not a whole number of {type.name} blocks of {type.block_bytes} bytes")
    capacity = raw.size // type.block_bytes * type.block_values
    if count is not None and not 0 <= count <= capacity:
        raise ValueError(f"{count} values asked of {type.name} blocks that hold {capacity}")
    # Damaged files hold infinite and NaN scales; what follows from them is defined, a warning would only be noise.
    with np.errstate(invalid="ignore", over="ignore"):
        values = decode(raw.reshape(-1, type.block_bytes)).reshape(-1)
    return values if count is None else values[:count]


def _nibbles(packed: Blocks) -> Blocks:
    """16 bytes to 32 codes of 4 bits: value j is the low half of byte j, value 16 + j the high half."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _five_bits(high: Blocks, packed: Blocks) -> Blocks:
    """Codes of 5 bits: the fifth bit of value v is bit v of the little-endian word ``high``."""
    return _nibbles(packed) | np.unpackbits(high, axis=1, bitorder="little") * np.uint8(16)


def _f32(blocks: Blocks) -> Floats:
    return blocks.view("<f4").astype(np.float32)


def _f16(blocks: Blocks) -> Floats:
    return blocks.view("<f2").astype(np.float32)


def _bf16(blocks: Blocks) -> Floats:
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q4_0(blocks: Blocks) -> Floats:
    return (_nibbles(blocks[:, 2:]).astype(np.float32) - np.float32(8)) * read_f16(blocks, 0)


def _q4_1(blocks: Blocks) -> Floats:
    return _nibbles(blocks[:, 4:]).astype(np.float32) * read_f16(blocks, 0) + read_f16(blocks, 2)


def _q5_0(blocks: Blocks) -> Floats:
    codes = _five_bits(blocks[:, 2:6], blocks[:, 6:])
    return (codes.astype(np.float32) - np.float32(16)) * read_f16(blocks, 0)


def _q5_1(blocks: Blocks) -> Floats:
    codes = _five_bits(blocks[:, 4:8], blocks[:, 8:])
    return codes.astype(np.float32) * read_f16(blocks, 0) + read_f16(blocks, 2)


def _q8_0(blocks: Blocks) -> Floats:
    return np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32) * read_f16(blocks, 0)


_DEQUANTIZERS: dict[QuantType, Callable[[Blocks], Floats]] = {
    QuantType.F32: _f32,
    QuantType.F16: _f16,
    QuantType.BF16: _bf16,
    QuantType.Q4_0: _q4_0,
    QuantType.Q4_1: _q4_1,
    QuantType.Q5_0: _q5_0,
    QuantType.Q5_1: _q5_1,
    QuantType.Q8_0: _q8_0,
    QuantType.Q2_K: kquants.dequantize_q2_k,
    QuantType.Q3_K: kquants.dequantize_q3_k,
    QuantType.Q4_K: kquants.dequantize_q4_k,
    QuantType.Q5_K: kquants.dequantize_q5_k,
    QuantType.Q6_K: kquants.dequantize_q6_k,
}
