"""Tensors as Hugging Face and Meta store them: plain numbers without blocks, mapped from the file they lie in.

What safetensors and PyTorch files have in common: the number types, a tensor's place in a file, and reading it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError
from selfee.weights.mapped import MappedFile
from selfee.weights.printable import printable
from selfee.weights.quants import QuantType

Bytes = npt.NDArray[np.uint8]

MAX_DIMENSIONS = 8
MAX_ELEMENTS = 1 << 40


class DType(Enum):
    """How one number of a tensor is stored, little-endian; the value is the name in safetensors files.

    The order of the members is the order in which the reference library lays tensors out, smallest first.
    """

    BOOL = "BOOL"
    U8 = "U8"
    I8 = "I8"
    F8_E5M2 = "F8_E5M2"
    F8_E4M3 = "F8_E4M3"
    F8_E8M0 = "F8_E8M0"
    F8_E4M3FNUZ = "F8_E4M3FNUZ"
    F8_E5M2FNUZ = "F8_E5M2FNUZ"
    I16 = "I16"
    U16 = "U16"
    F16 = "F16"
    BF16 = "BF16"
    I32 = "I32"
    U32 = "U32"
    F32 = "F32"
    C64 = "C64"
    F64 = "F64"
    I64 = "I64"
    U64 = "U64"

    @property
    def nbytes(self) -> int:
        """Bytes one number takes."""
        return _SIZES[self]

    @property
    def numpy(self) -> np.dtype[np.generic] | None:
        """NumPy's type of the same bits; None where NumPy has none (BF16, F8)."""
        name = _NUMPY.get(self)
        return None if name is None else np.dtype(name)

    @property
    def unsigned(self) -> np.dtype[np.generic]:
        """The unsigned integer of the same size: the bits themselves. C64 has the 64-bit one."""
        return np.dtype(f"<u{self.nbytes}")

    @property
    def quant_type(self) -> QuantType | None:
        """ggml's type of the same bits; None where ggml has none."""
        return _QUANT_TYPES.get(self)

    @classmethod
    def of(cls, type: QuantType) -> DType | None:
        """The number type with the bits of a ggml type; None for block types."""
        return _BY_QUANT_TYPE.get(type)


_SIZES = {
    dtype: size
    for size, names in {
        1: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
        2: "I16 U16 F16 BF16",
        4: "I32 U32 F32",
        8: "C64 F64 I64 U64",
    }.items()
    for dtype in map(DType, names.split())
}
_NUMPY = {
    DType.BOOL: "|b1",
    DType.U8: "|u1",
    DType.I8: "|i1",
    DType.I16: "<i2",
    DType.U16: "<u2",
    DType.F16: "<f2",
    DType.I32: "<i4",
    DType.U32: "<u4",
    DType.F32: "<f4",
    DType.C64: "<c8",
    DType.F64: "<f8",
    DType.I64: "<i8",
    DType.U64: "<u8",
}
_QUANT_TYPES = {dtype: QuantType[dtype.name] for dtype in DType if dtype.name in QuantType.__members__}
_BY_QUANT_TYPE = {type: dtype for dtype, type in _QUANT_TYPES.items()}


@dataclass(frozen=True)
class StoredTensor:
    """Name, shape, type and place of one tensor.

    ``strides`` (in numbers, one for each dimension) is None where the numbers lie one after another, which is
    everywhere but in some PyTorch files. Of a tensor split over several files, ``path`` and ``offset`` are those of
    the first part and ``nbytes`` is the size of the whole.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    path: Path
    offset: int  # of the first byte in the file
    nbytes: int  # of all numbers, as ``read`` gives them
    strides: tuple[int, ...] | None = None

    @property
    def rows(self) -> int:
        """Size of the first dimension; 1 for a single number."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, as ``read_rows`` gives them."""
        return prod(self.shape[1:]) * self.dtype.nbytes


class TensorFile:
    """One opened file of tensors, mapped into memory. Use as a context manager or call ``close``."""

    def __init__(self, file: MappedFile, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> None:
        self.file = file
        self.path = file.path
        self.tensors = tensors
        self.metadata = metadata

    def read(self, name: str) -> Bytes:
        """All bytes of a tensor in order, flat; mapped where they lie so in the file. Raises BadFileError."""
        return self.read_rows(name, 0, self.find(name).rows)

    def read_rows(self, name: str, begin: int, end: int) -> Bytes:
        """The bytes of rows ``begin`` to ``end`` (exclusive), flat; mapped where they lie so in the file."""
        tensor = self.find(name)
        if not 0 <= begin <= end <= tensor.rows:
            raise IndexError(f"rows {begin} to {end} of tensor '{name}', which has {tensor.rows}")
        if tensor.strides is None:
            size = tensor.row_bytes
            return self.file.array(tensor.offset + begin * size, (end - begin) * size)
        return self._gather(tensor, begin, end)

    def find(self, name: str) -> StoredTensor:
        """The description of a tensor. Raises BadFileError if there is none of that name."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise BadFileError(f"{self.path}: has no tensor '{printable(name)}'; the model is incomplete")
        return tensor

    def _gather(self, tensor: StoredTensor, begin: int, end: int) -> Bytes:
        """Rows whose numbers do not lie one after another, copied."""
        assert tensor.strides is not None
        if end == begin or tensor.nbytes == 0:
            return np.empty(0, np.uint8)
        kind, size = tensor.dtype.unsigned, tensor.dtype.nbytes
        # The reader has checked that every number lies inside the file.
        view = np.ndarray(
            (end - begin, *tensor.shape[1:]),
            kind,
            buffer=self.file.data,
            offset=tensor.offset + begin * tensor.strides[0] * size,
            strides=tuple(stride * size for stride in tensor.strides),
        )
        return np.ascontiguousarray(view).reshape(-1).view(np.uint8)

    def release(self, name: str) -> None:
        """Let the system take back the memory that reading the tensor filled; it can be read again.

        All of the file's memory goes: touching a page brings its neighbours along, up to 2 MB on either side, and
        those left over from hundreds of tensors would add up.
        """
        self.find(name)
        self.file.release(0, self.file.size)

    def close(self) -> None:
        """Let go of the mapping."""
        self.file.close()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """How many numbers of a storage a strided tensor reaches over, from its first to its last."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides)) if prod(shape) else 0
