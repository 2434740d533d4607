"""Reading GGUF, versions 1 to 3, little-endian.

The rules are those that ggml enforces (August 2026) and a few stricter ones; every published way to crash a reader by a
damaged file is refused by name. Layout: header, key/value pairs, tensor descriptions, padding, tensor data.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import Any

import numpy as np

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.checkpoint import TensorInfo
from selfee.weights.mapped import AGAIN, Cursor, MappedCheckpoint, MappedFile, StringArray
from selfee.weights.printable import printable
from selfee.weights.quants import QuantType
from selfee.weights.vocab import vocab_from_metadata

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
_ALIGNMENT_KEY = "general.alignment"

_MAX_PAIRS = 1 << 16
_MAX_TENSORS = 1 << 18
_MAX_ELEMENTS = 1 << 30
_MAX_STRING = 1 << 26  # ggml allows 1 GiB; the longest real ones, whole tokenizer files, have 20 MB
_MAX_KEY = (1 << 16) - 1
_MAX_TENSOR_NAME = 63
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 24

_REMOVED_TYPES = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}


class ValueType(IntEnum):
    """The type of a metadata value; the number stands in the file."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


DTYPES: dict[ValueType, str] = {
    ValueType.U8: "<u1",
    ValueType.I8: "<i1",
    ValueType.U16: "<u2",
    ValueType.I16: "<i2",
    ValueType.U32: "<u4",
    ValueType.I32: "<i4",
    ValueType.F32: "<f4",
    ValueType.BOOL: "|b1",
    ValueType.U64: "<u8",
    ValueType.I64: "<i8",
    ValueType.F64: "<f8",
}
"""NumPy's name of every value type of fixed size."""


class GgufCheckpoint(MappedCheckpoint):
    """A GGUF file, opened; it also remembers how its metadata values were written."""

    def __init__(
        self,
        file: MappedFile,
        container: str,
        metadata: dict[str, Any],
        tensors: dict[str, TensorInfo],
        raw: dict[str, slice],
    ) -> None:
        super().__init__(file, container, metadata, vocab_from_metadata(file.path, metadata), tensors)
        self._raw = raw

    def metadata_as_written(self) -> dict[str, Any]:
        """Metadata to write into another file: values keep the types they have here, to the byte.

        ``metadata`` has numbers as Python's, which do not tell a u64 from a u32.
        """
        if not self._raw:
            return dict(self.metadata)  # version 1 has other lengths
        return {key: RawValue(self.file.data[where]) for key, where in self._raw.items()}


@dataclass(frozen=True)
class RawValue:
    """A metadata value as it stands in a GGUF file of version 2 or 3: type and bytes."""

    data: bytes


@dataclass(frozen=True)
class _Header:
    version: int
    tensors: int
    pairs: int


def read_gguf(file: MappedFile) -> GgufCheckpoint:
    """Read everything but the tensor data of a mapped GGUF file.

    Raises BadFileError for a damaged file, UnsupportedFileError for versions or tensor types that are not read.
    """
    reader = _Reader(file)
    header = reader.header()
    metadata = reader.pairs(header.pairs)
    tensors = reader.tensors(header.tensors, reader.alignment(metadata))
    raw = reader.raw if header.version > 1 else {}
    return GgufCheckpoint(file, f"gguf v{header.version}", metadata, tensors, raw)


class _Reader:
    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.at = Cursor(file, len(MAGIC))
        self.width = 8  # of counts and lengths; version 1 has 4
        self.raw: dict[str, slice] = {}  # where the value of a key stands, its type included

    def header(self) -> _Header:
        version = self.at.u32("the version")
        if version and version & 0xFFFF == 0:
            raise UnsupportedFileError(
                f"{self.file.path}: is a big-endian GGUF file; selfee reads little-endian ones; convert it again"
            )
        if version not in (1, 2, 3):
            raise UnsupportedFileError(
                f"{self.file.path}: byte 4: GGUF version {version}; selfee reads versions 1 to 3; "
                + ("update selfee or convert the model again" if version > 3 else AGAIN)
            )
        self.width = 4 if version == 1 else 8
        tensors = self.count("the number of tensors", _MAX_TENSORS, self.width + 1 + 4 + 4 + 8)
        pairs = self.count("the number of metadata pairs", _MAX_PAIRS, self.width + 1 + 4 + 1)
        return _Header(version, tensors, pairs)

    def count(self, what: str, limit: int, at_least: int) -> int:
        """A count of things of which each takes ``at_least`` bytes: refused where the file cannot hold them."""
        start = self.at.offset
        value = self.length(what)
        if value > limit:
            raise self.file.bad(start, f"{what} is {value}; at most {limit} are read; {AGAIN}")
        if value * at_least > self.at.left:
            raise self.file.bad(start, f"{what} is {value}, too many for the {self.at.left} bytes left; {AGAIN}")
        return value

    def length(self, what: str) -> int:
        return self.at.u64(what) if self.width == 8 else self.at.u32(what)

    def string(self, what: str, limit: int = _MAX_STRING) -> bytes:
        start = self.at.offset
        length = self.length(f"the length of {what}")
        if length > limit:
            raise self.file.bad(start, f"{what} is {length} bytes long; at most {limit} are allowed; {AGAIN}")
        return self.at.take(length, what)

    def name(self, what: str, limit: int) -> str:
        start = self.at.offset
        raw = self.string(what, limit)
        if not raw:
            raise self.file.bad(start, f"{what} is empty; {AGAIN}")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.file.bad(start, f"{what} '{printable(raw, 80)}' is not UTF-8; {AGAIN}") from None

    def pairs(self, count: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for index in range(count):
            start = self.at.offset
            key = self.name(f"metadata key {index}", _MAX_KEY)
            if key in metadata:
                raise self.file.bad(start, f"metadata key '{printable(key)}' stands there twice; {AGAIN}")
            what = f"metadata value '{printable(key, 80)}'"
            value_at = self.at.offset
            kind = self.value_type(what)
            if key == _ALIGNMENT_KEY and kind is not ValueType.U32:
                raise self.file.bad(start, f"{_ALIGNMENT_KEY} is of type {kind.name}; expected U32; {AGAIN}")
            metadata[key] = self.value(kind, what)
            self.raw[key] = slice(value_at, self.at.offset)
        return metadata

    def value_type(self, what: str) -> ValueType:
        start = self.at.offset
        number = self.at.u32(f"the type of {what}")
        try:
            return ValueType(number)
        except ValueError:
            raise self.file.bad(start, f"{what} has type {number}; known are 0 to {max(ValueType)}; {AGAIN}") from None

    def value(self, kind: ValueType, what: str) -> Any:
        if kind is ValueType.STRING:
            return self.string(what).decode("utf-8", errors="replace")
        if kind is ValueType.ARRAY:
            return self.array(what)
        value = self.numbers(kind, 1, what)[0]
        return value.item()

    def array(self, what: str) -> StringArray | np.ndarray[Any, Any]:
        start = self.at.offset
        kind = self.value_type(f"the elements of {what}")
        if kind is ValueType.ARRAY:
            raise self.file.bad(start, f"{what} is an array of arrays; those are not allowed in models; {AGAIN}")
        size = self.width if kind is ValueType.STRING else np.dtype(DTYPES[kind]).itemsize
        count = self.count(f"the number of elements of {what}", _MAX_ELEMENTS, size)
        if kind is ValueType.STRING:
            return StringArray(self.at.strings(count, self.width, what, _MAX_STRING))
        return self.numbers(kind, count, what)

    def numbers(self, kind: ValueType, count: int, what: str) -> np.ndarray[Any, Any]:
        """A copy, so that a file that shrinks later cannot end the process while metadata is looked at."""
        start = self.at.offset
        dtype = np.dtype(DTYPES[kind])
        raw = self.at.take(count * dtype.itemsize, what)
        if kind is ValueType.BOOL and raw.strip(b"\0\1"):
            raise self.file.bad(start, f"{what} holds a truth value that is neither 0 nor 1; {AGAIN}")
        return np.frombuffer(raw, dtype=dtype)

    def alignment(self, metadata: dict[str, Any]) -> int:
        value: int = metadata.get(_ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
        if not 0 < value <= _MAX_ALIGNMENT or value & (value - 1):
            raise BadFileError(
                f"{self.file.path}: {_ALIGNMENT_KEY} is {value}; expected a power of 2 up to {_MAX_ALIGNMENT}; {AGAIN}"
            )
        return value

    def tensors(self, count: int, alignment: int) -> dict[str, TensorInfo]:
        tensors: dict[str, TensorInfo] = {}
        for index in range(count):
            start = self.at.offset
            tensor = self.tensor(index)
            if tensor.name in tensors:
                raise self.file.bad(start, f"tensor '{printable(tensor.name)}' stands there twice; {AGAIN}")
            tensors[tensor.name] = tensor
        base = padded(self.at.offset, alignment)
        end = 0
        for tensor in list(tensors.values()):
            if tensor.offset != end:
                raise BadFileError(
                    f"{self.file.path}: tensor '{printable(tensor.name)}': its data begins at {tensor.offset} of the "
                    f"data area; expected {end}, right after the tensor before it; {AGAIN}"
                )
            if base + end + tensor.nbytes > self.file.size:
                missing = base + end + tensor.nbytes - self.file.size
                raise BadFileError(
                    f"{self.file.path}: tensor '{printable(tensor.name)}': {missing} of its {tensor.nbytes} bytes are "
                    f"missing; {AGAIN}"
                )
            tensors[tensor.name] = TensorInfo(tensor.name, tensor.shape, tensor.type, base + end, tensor.nbytes)
            end += padded(tensor.nbytes, alignment)
        if self.file.size > base + end:
            extra = self.file.size - base - end
            raise self.file.bad(base + end, f"{extra} bytes follow the last tensor; expected the end; {AGAIN}")
        return tensors

    def tensor(self, index: int) -> TensorInfo:
        """One description; the offset is still relative to the data area."""
        name = self.name(f"the name of tensor {index}", _MAX_TENSOR_NAME)
        what = f"tensor '{printable(name)}'"
        start = self.at.offset
        dimensions = self.at.u32(f"the number of dimensions of {what}")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self.file.bad(start, f"{what} has {dimensions} dimensions; expected 1 to {_MAX_DIMENSIONS}; {AGAIN}")
        sizes = [self.length(f"the sizes of {what}") for _ in range(dimensions)]
        type_at = self.at.offset
        type = self.tensor_type(self.at.u32(f"the type of {what}"), type_at, what)
        offset = self.at.u64(f"the offset of {what}")
        shape = tuple(reversed(sizes))
        nbytes = checked_size(self.file, start, what, shape, type)
        return TensorInfo(name, shape, type, offset, nbytes)

    def tensor_type(self, number: int, start: int, what: str) -> QuantType:
        if number in _REMOVED_TYPES:
            raise UnsupportedFileError(
                f"{self.file.path}: byte {start}: {what} has type {number} ({_REMOVED_TYPES[number]}), which ggml "
                "removed; convert the model again"
            )
        try:
            return QuantType(number)
        except ValueError:
            raise UnsupportedFileError(
                f"{self.file.path}: byte {start}: {what} has type {number}, which is unknown; known are 0 to "
                f"{int(max(QuantType))}; the file is damaged or newer than this selfee"
            ) from None


def checked_size(file: MappedFile, offset: int, what: str, shape: tuple[int, ...], type: QuantType) -> int:
    """The bytes a tensor takes; raises BadFileError where its sizes are impossible."""
    values = prod(shape)
    sizes = " x ".join(str(size) for size in reversed(shape))
    if values == 0:
        raise file.bad(offset, f"{what} has sizes {sizes}; none may be 0; {AGAIN}")
    if shape[-1] % type.block_values:
        raise file.bad(
            offset, f"{what} has rows of {shape[-1]}; {type.name} needs a multiple of {type.block_values}; {AGAIN}"
        )
    nbytes = values // type.block_values * type.block_bytes
    if max(*shape, values, nbytes) >= 1 << 63:
        raise file.bad(offset, f"{what} has sizes {sizes}, more than any file holds; {AGAIN}")
    return nbytes


def padded(size: int, alignment: int) -> int:
    """``size`` rounded up to a multiple of ``alignment``."""
    return -(-size // alignment) * alignment
