"""Writing GGUF files, version 3 (and 1 and 2 for tests)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from selfee.errors import UsageError
from selfee.weights.gguf import DEFAULT_ALIGNMENT, DTYPES, MAGIC, RawValue, ValueType, padded
from selfee.weights.mapped import StringArray
from selfee.weights.writing import OnBytes, Sized, TensorData, TensorToWrite, replacing, write_parts

_VALUE_TYPES = {np.dtype(name): kind for kind, name in DTYPES.items()}


__all__ = ["TensorData", "gguf_size", "write_gguf"]


def write_gguf(
    path: str | Path,
    metadata: Mapping[str, Any],
    tensors: Sequence[TensorToWrite],
    *,
    version: int = 3,
    on_bytes: OnBytes | None = None,
) -> None:
    """Write a GGUF file; it appears complete or not at all. ``on_bytes`` hears of each part of tensor data written.

    Metadata: bool, int (u32 where it fits, else i32, u64, i64), float (f32), str, a NumPy scalar or array (its own
    type), a StringArray or a list of str or bytes, a RawValue. "general.alignment" is obeyed. Raises UsageError for
    other values.
    """
    alignment = _alignment(metadata)
    head = _head(metadata, tensors, version)
    with replacing(Path(path), needed=gguf_size(metadata, tensors, version=version)) as file:
        file.write(head)
        _pad(file, alignment)
        for tensor in tensors:
            write_parts(file, tensor, on_bytes)
            _pad(file, alignment)


def gguf_size(metadata: Mapping[str, Any], tensors: Sequence[Sized], *, version: int = 3) -> int:
    """The exact size in bytes of the file that ``write_gguf`` would write; no tensor data is made."""
    alignment = _alignment(metadata)
    head = padded(len(_head(metadata, tensors, version)), alignment)
    return head + sum(padded(tensor.nbytes, alignment) for tensor in tensors)


def _head(metadata: Mapping[str, Any], tensors: Sequence[Sized], version: int) -> bytes:
    """Everything before the tensor data, without padding."""
    alignment = _alignment(metadata)
    length = "<Q" if version > 1 else "<I"
    head = bytearray(MAGIC + struct.pack("<I", version) + struct.pack("<" + 2 * length[1], len(tensors), len(metadata)))
    for key, value in metadata.items():
        head += _text(key, length) + _value(key, value, length)
    offset = 0
    for tensor in tensors:
        sizes = tuple(reversed(tensor.shape))
        head += _text(tensor.name, length) + struct.pack("<I", len(sizes))
        head += b"".join(struct.pack(length, size) for size in sizes)
        head += struct.pack("<IQ", tensor.type, offset)
        offset += padded(tensor.nbytes, alignment)
    return bytes(head)


def _alignment(metadata: Mapping[str, Any]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    return int.from_bytes(value.data[4:8], "little") if isinstance(value, RawValue) else int(value)


def _pad(file: IO[bytes], alignment: int) -> None:
    file.write(bytes(-file.tell() % alignment))


def _text(text: str | bytes, length: str) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode("utf-8")
    return struct.pack(length, len(raw)) + raw


def _value(key: str, value: Any, length: str) -> bytes:
    if isinstance(value, RawValue) and length == "<Q":
        return value.data
    if isinstance(value, str):
        return struct.pack("<I", ValueType.STRING) + _text(value, length)
    if isinstance(value, StringArray):
        return _array(ValueType.STRING, len(value), length) + _texts(value.raw, length)
    if isinstance(value, list) and value and all(isinstance(item, str | bytes) for item in value):
        return _array(ValueType.STRING, len(value), length) + _texts(value, length)
    if isinstance(value, bool | int | float):
        value = _scalar(value)
    if isinstance(value, np.generic | np.ndarray) and (kind := _VALUE_TYPES.get(value.dtype)) is not None:
        prefix = struct.pack("<I", kind)
        return (_array(kind, value.size, length) if isinstance(value, np.ndarray) else prefix) + value.tobytes()
    raise UsageError(f"metadata '{key}': a {type(value).__name__} has no place in a GGUF file; see write_gguf")


def _texts(texts: Iterable[str | bytes], length: str) -> bytes:
    return b"".join(_text(text, length) for text in texts)


def _array(kind: ValueType, count: int, length: str) -> bytes:
    return struct.pack("<II", ValueType.ARRAY, kind) + struct.pack(length, count)


def _scalar(value: bool | int | float) -> np.generic:
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, float):
        return np.float32(value)
    for kind in (np.uint32, np.int32, np.uint64, np.int64):
        if np.iinfo(kind).min <= value <= np.iinfo(kind).max:
            return kind(value)
    raise UsageError(f"the number {value} has more than 64 bits; GGUF cannot hold it")
