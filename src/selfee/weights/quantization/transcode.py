"""Tensors of an open model in other block types, made chunk by chunk as they are written.

A model never lies in memory whole: a few million values at a time are read, de-quantised, quantised and handed on, and
the pages they came from are given back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError
from selfee.weights.checkpoint import Checkpoint, TensorInfo
from selfee.weights.finite import first_not_finite
from selfee.weights.printable import printable
from selfee.weights.quantization.quantizers import Generation, NotFinite
from selfee.weights.quantize import Quantizer
from selfee.weights.quants import QuantType
from selfee.weights.writing import Bytes, TensorStream

CHUNK_VALUES = 1 << 22
"""Values that are worked on at a time: enough to keep many threads busy, 16 MB in float32."""

Importance = Mapping[str, npt.NDArray[np.float32]]
"""Tensor name -> how much each column matters, shape (columns,)."""

_COPIED_BYTES = 1 << 24  # of a tensor that stays, at a time

# The search of June 2023 looks at the codes of the block before (see kquantizers.py).
_REMEMBERS = frozenset({QuantType.Q2_K, QuantType.Q4_K, QuantType.Q5_K})


def transcode(
    checkpoint: Checkpoint,
    types: Mapping[str, QuantType],
    *,
    quantizer: Quantizer,
    generation: Generation = Generation.CURRENT,
    importance: Importance | None = None,
) -> list[TensorStream]:
    """The tensors of ``checkpoint`` as ``types`` wants them, in its order, ready to be written.

    Tensors whose type stays are handed on byte for byte. What is made is the same for any number of threads. While
    writing, NaN or infinity in any tensor raises BadFileError naming tensor and place.
    """
    importance = importance or {}

    def stream(tensor: TensorInfo) -> TensorStream:
        type = types[tensor.name]
        if type is tensor.type:
            return TensorStream(tensor.name, tensor.shape, type, lambda: _as_they_are(checkpoint, tensor))
        return TensorStream(
            tensor.name,
            tensor.shape,
            type,
            lambda: _ahead(_requantized(checkpoint, tensor, type, quantizer, generation, importance.get(tensor.name))),
        )

    return [stream(tensor) for tensor in checkpoint.tensors.values()]


def _as_they_are(checkpoint: Checkpoint, tensor: TensorInfo) -> Iterator[Bytes]:
    """The bytes of a tensor whose type stays, looked at on the way: a NaN in one norm makes every answer NaN."""
    raw = checkpoint.read(tensor.name).reshape(-1)
    block = tensor.type.block_bytes
    step = max(1, _COPIED_BYTES // block) * block
    for begin in range(0, raw.size, step):
        part = raw[begin : begin + step]
        wrong = first_not_finite(tensor.type, part)
        if wrong is not None:
            index = (begin // block + wrong) * tensor.type.block_values
            row, column = divmod(index, tensor.shape[-1])
            what = "the value" if tensor.type.block_values == 1 else "the scale of the block"
            raise BadFileError(
                f"{checkpoint.path}: tensor '{printable(tensor.name)}': {what} at row {row}, column {column} is NaN or "
                "infinite; expected finite weights; the file is damaged or its training diverged; fetch it again"
            )
        yield part
        checkpoint.release(tensor.name, begin, begin + part.size)


def bad_weight(checkpoint: Checkpoint, tensor: TensorInfo, type: QuantType, row: int, column: int) -> BadFileError:
    """The error for a weight that blocks of a type cannot hold."""
    return BadFileError(
        f"{checkpoint.path}: tensor '{printable(tensor.name)}': row {row}, column {column} is NaN, infinite or too "
        f"large for {type.name}; expected finite weights; the file is damaged or its training diverged; fetch it again"
    )


def _ahead(parts: Iterator[Bytes]) -> Iterator[Bytes]:
    """The parts, each made while the one before it is written."""
    with ThreadPoolExecutor(1) as maker:
        following = maker.submit(next, parts, None)
        while (part := following.result()) is not None:
            following = maker.submit(next, parts, None)
            yield part


def _requantized(
    checkpoint: Checkpoint,
    tensor: TensorInfo,
    type: QuantType,
    quantizer: Quantizer,
    generation: Generation,
    importance: npt.NDArray[np.float32] | None,
) -> Iterator[Bytes]:
    columns = tensor.shape[-1]
    rows = prod(tensor.shape[:-1])
    source = checkpoint.read(tensor.name).reshape(rows, -1)
    step = max(1, CHUNK_VALUES // columns)
    is_linked = generation is Generation.JUNE_2023 and type in _REMEMBERS
    previous: Bytes | None = None
    for begin in range(0, rows, step):
        chunk = source[begin : begin + step]
        try:
            made = quantizer.run(
                type,
                tensor.type,
                chunk,
                len(chunk),
                columns,
                generation=generation,
                importance=importance,
                previous=previous,
            )
        except NotFinite as error:
            row, column = divmod(error.index, columns)
            raise bad_weight(checkpoint, tensor, type, begin + row, column) from error
        yield made
        if is_linked:
            previous = made.reshape(-1)[-type.block_bytes :]
        checkpoint.release(tensor.name, begin * source.shape[1], (begin + len(chunk)) * source.shape[1])
