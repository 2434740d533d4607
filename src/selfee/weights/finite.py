"""Looking for NaN and infinity in a model's weights: one damaged scale makes every answer NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError
from selfee.weights.checkpoint import Checkpoint, TensorInfo
from selfee.weights.printable import printable
from selfee.weights.quants import QuantType

SCALES_AT: dict[QuantType, tuple[int, ...]] = {
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
"""Byte offsets of the float16 scales and minimums in a block."""

# Plain numbers as whole ones, and their exponent's bits.
_EXPONENTS: dict[QuantType, tuple[str, np.unsignedinteger[Any]]] = {
    QuantType.F32: ("<u4", np.uint32(0x7F800000)),
    QuantType.F16: ("<u2", np.uint16(0x7C00)),
    QuantType.BF16: ("<u2", np.uint16(0x7F80)),
}
_CHUNK = 1 << 22  # bytes looked at in one go


def check_finite(checkpoint: Checkpoint) -> None:
    """Read every tensor once and raise BadFileError at the first weight or scale that is NaN or infinite.

    Costs a pass over the whole file. Tensors of types that can only be listed are passed over.
    """
    for tensor in checkpoint.tensors.values():
        if tensor.type.readable:
            _check(checkpoint, tensor)


def first_not_finite(type: QuantType, blocks: npt.NDArray[np.uint8]) -> int | None:
    """Number of the first block with a weight or scale that is NaN or infinite, in raw bytes of whole blocks."""
    wrong = np.flatnonzero(_not_finite(type, blocks.reshape(-1, type.block_bytes)))
    return int(wrong[0]) if wrong.size else None


def _check(checkpoint: Checkpoint, tensor: TensorInfo) -> None:
    blocks = checkpoint.read(tensor.name).reshape(-1, tensor.type.block_bytes)
    step = max(1, _CHUNK // tensor.type.block_bytes)
    for start in range(0, len(blocks), step):
        wrong = first_not_finite(tensor.type, blocks[start : start + step])
        if wrong is not None:
            block = start + wrong
            found = "weight" if tensor.type.block_values == 1 else "block scale"
            raise BadFileError(
                f"{checkpoint.path}: byte {tensor.offset + block * tensor.type.block_bytes}: tensor "
                f"'{printable(tensor.name)}': {found} {block} is NaN or infinite; expected finite numbers; "
                "the file is damaged; fetch it again"
            )


def _not_finite(type: QuantType, blocks: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Blocks in which a number has all exponent bits set."""
    if type in _EXPONENTS:  # whole numbers at a time: a pass over a model is mostly this
        word, exponent = _EXPONENTS[type]
        wrong: npt.NDArray[np.bool_] = (blocks.reshape(-1).view(word) & exponent) == exponent
        return wrong
    wrong = np.zeros(len(blocks), dtype=np.bool_)
    for at in SCALES_AT[type]:
        wrong |= (blocks[:, at + 1] & 0x7C) == 0x7C
    return wrong
