"""Files built byte by byte, sound or damaged, and the one way in which a damaged file must fail."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from selfee.errors import BadFileError
from selfee.weights.architecture import check_architecture
from selfee.weights.gguf import ValueType
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType


def refused(path: Path, message: str, *, error: type[BadFileError] = BadFileError) -> str:
    """Opening and checking fails with one clear line that names the file, at once and with little memory.

    ``message`` is a regular expression. Returns the line.
    """
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(error, match=message) as caught, open_checkpoint(path) as checkpoint:
            check_architecture(checkpoint)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.isprintable(), "control characters of the file must not reach a terminal"
    assert len(line) < 600
    assert peak < 2**20 + 16 * path.stat().st_size
    assert time.perf_counter() - started < 5
    return line


def text(value: str | bytes, version: int = 3, length: int | None = None) -> bytes:
    """A GGUF string; ``length`` lies about it."""
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q" if version > 1 else "<I", len(raw) if length is None else length) + raw


def pair(key: str | bytes, kind: int, payload: bytes, version: int = 3) -> bytes:
    """A metadata pair with any type number and payload."""
    return text(key, version) + struct.pack("<I", kind) + payload


def u32(key: str, value: int) -> bytes:
    """A pair holding a u32."""
    return pair(key, ValueType.U32, struct.pack("<I", value))


def array(key: str, kind: int, count: int, payload: bytes = b"") -> bytes:
    """A pair holding an array; ``count`` may lie."""
    return pair(key, ValueType.ARRAY, struct.pack("<IQ", kind, count) + payload)


@dataclass(frozen=True)
class Described:
    """A tensor description; sizes are fastest first as in the file."""

    name: str | bytes = "t"
    sizes: Sequence[int] = (8,)
    type: int = QuantType.F32
    offset: int = 0
    dimensions: int | None = None

    def packed(self) -> bytes:
        count = len(self.sizes) if self.dimensions is None else self.dimensions
        sizes = struct.pack(f"<{len(self.sizes)}Q", *self.sizes)
        return text(self.name) + struct.pack("<I", count) + sizes + struct.pack("<IQ", self.type, self.offset)


def gguf(
    pairs: Sequence[bytes] = (),
    tensors: Sequence[Described] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_pairs: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A GGUF file of version 2 or 3; the counts may lie."""
    head = magic + struct.pack(
        "<IQQ",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(pairs) if n_pairs is None else n_pairs,
    )
    head += b"".join(pairs) + b"".join(tensor.packed() for tensor in tensors)
    return head + bytes(-len(head) % alignment) + data
