"""The matmul in NumPy, from its definition in native/matmul/matmul.h: the same bits, another language.

Integers inside a block come from the de-quantisation twins: blocks whose scale is set to 1 decode to their codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from selfee.weights.quants import QuantType, dequantize

Floats = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.uint8]

COMPUTED = [type for type in QuantType if type.readable]
QUANTISED = [type for type in COMPUTED if type.block_values > 1]

SCALE_AT = {
    QuantType.Q4_0: (0,),
    QuantType.Q4_1: (0, 2),
    QuantType.Q5_0: (0,),
    QuantType.Q5_1: (0, 2),
    QuantType.Q8_0: (0,),
    QuantType.Q2_K: (80, 82),
    QuantType.Q3_K: (108,),
    QuantType.Q4_K: (0, 2),
    QuantType.Q5_K: (0, 2),
    QuantType.Q6_K: (208,),
}
"""Byte offsets of a block's f16 scale and, where it has one, of its minimum."""


def random_blocks(type: QuantType, rows: int, cols: int, seed: int, *, wild: bool = False) -> Blocks:
    """Blocks of a matrix, shape (blocks, bytes). Scales are small; ``wild``: any 16 bits, infinities and NaN too."""
    rng = np.random.default_rng(seed)
    if type.block_values == 1:
        values = rng.normal(size=(rows * cols, 1)).astype(np.float32)
        if type is QuantType.BF16:
            return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return values.astype(np.float16 if type is QuantType.F16 else np.float32).view(np.uint8)
    blocks = rng.integers(0, 256, (rows * cols // type.block_values, type.block_bytes), dtype=np.uint8)
    for at in () if wild else SCALE_AT[type]:
        set_f16(blocks, at, rng.normal(0, 0.01, len(blocks)))
    return blocks


def set_f16(blocks: Blocks, at: int, values: npt.ArrayLike) -> None:
    blocks[:, at : at + 2] = (
        np.broadcast_to(np.asarray(values, dtype=np.float16), len(blocks)).copy().view(np.uint8).reshape(-1, 2)
    )


def f16(blocks: Blocks, at: int) -> Floats:
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)[:, 0].astype(np.float32)


def as_f16(values: npt.NDArray[Any]) -> Floats:
    return values.astype(np.float16).astype(np.float32)


def with_scales(type: QuantType, blocks: Blocks, *scales: float) -> npt.NDArray[np.int64]:
    """The integers that blocks decode to when scale and minimum are what they are told to be."""
    changed = blocks.copy()
    for at, scale in zip(SCALE_AT[type], scales):
        set_f16(changed, at, scale)
    return dequantize(type, changed).astype(np.int64)


def quantised(type: QuantType, x: Floats) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Codes (tokens, cols), scales and sums (tokens, blocks) of finite activations that are not tiny."""
    parts = x.reshape(len(x), -1, type.block_values)
    if type.block_values == 256:
        largest = np.take_along_axis(parts, np.abs(parts).argmax(axis=2, keepdims=True), axis=2)
        inverse = np.float32(-128) / largest
        codes = np.minimum(np.rint(parts * inverse), 127).astype(np.int64)
        return codes.reshape(x.shape), np.float32(1) / inverse[:, :, 0], np.zeros_like(inverse[:, :, 0])
    amax = np.abs(parts).max(axis=2)
    inverse = np.float32(127) / amax
    codes = np.rint(parts * inverse[:, :, None]).astype(np.int64)
    scales = amax / np.float32(127)
    return codes.reshape(x.shape), as_f16(scales), as_f16(scales * codes.sum(axis=2).astype(np.float32))


def matmul(type: QuantType, blocks: Blocks, rows: int, cols: int, x: Floats) -> Floats:
    """y (tokens, rows), block by block in order, every operation rounded to float32."""
    width, count = type.block_values, cols // type.block_values
    codes, d_x, s_x = quantised(type, x)
    q_x = codes.reshape(len(x), count, width)
    q_w = with_scales(type, blocks, 1, 0).reshape(rows, count, width)
    d_w = f16(blocks, SCALE_AT[type][0]).reshape(rows, count)
    m_w = f16(blocks, SCALE_AT[type][-1]).reshape(rows, count)
    y = np.zeros((len(x), rows), dtype=np.float32)
    with np.errstate(all="ignore"):
        for b in range(count):
            sums = (q_x[:, b] @ q_w[:, b].T).astype(np.float32)
            term = np.outer(d_x[:, b], d_w[:, b]) * sums
            if len(SCALE_AT[type]) == 2 and width == 32:
                term = term + np.outer(s_x[:, b], m_w[:, b])
            elif len(SCALE_AT[type]) == 2:
                minima = with_scales(type, blocks, 0, -1).reshape(rows, count, width)[:, b]
                term = term - np.outer(d_x[:, b], m_w[:, b]) * (q_x[:, b] @ minima.T).astype(np.float32)
            y = y + term
    return y


def same_bits(left: Floats, right: Floats) -> bool:
    """Equal to the bit; NaN equals NaN whatever its payload, which C leaves open."""
    nan = np.isnan(left) & np.isnan(right)
    return left.shape == right.shape and bool(((left.view(np.uint32) == right.view(np.uint32)) | nan).all())
