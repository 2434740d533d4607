"""How our deltas pack the difference of two tensors: exactly, for any number type, and small where they are close.

Numbers become integers in such a way that the next larger number is the next integer; integers are subtracted, so a
step of training is a small integer, with its sign moved to the lowest bit. The bytes of equal rank are put together
(the high ones are nearly all zero) and each group is deflated. What was measured before choosing this: the user's
guide on deltas.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from selfee.weights.huggingface.stored import Bytes, DType

CHUNK = 1 << 20  # bytes of the target that are packed together; a multiple of every number's size
_PLANE = struct.Struct("<I")
_SAME = 0  # length that stands for a plane of zeros
_FLOATS = frozenset({DType.F32, DType.F16, DType.BF16})
_SIGNED_MAGNITUDE = _FLOATS | {
    DType.F64,
    DType.F8_E4M3,
    DType.F8_E5M2,
    DType.F8_E4M3FNUZ,
    DType.F8_E5M2FNUZ,
}

Unsigned = npt.NDArray[Any]


def can_convert(source: DType, wanted: DType) -> bool:
    """Whether numbers of one type can stand in for those of the other when the difference is taken."""
    return source is wanted or (source in _FLOATS and wanted in _FLOATS)


def convert(data: Bytes, source: DType, wanted: DType) -> Bytes:
    """Numbers of F32, F16 or BF16 as another of these, rounded to nearest, ties to even; NaN stays NaN."""
    if source is wanted:
        return data
    return from_f32(to_f32(data, source), wanted)


def to_f32(data: Bytes, source: DType) -> npt.NDArray[np.float32]:
    """F32, F16 or BF16 as float32, exactly."""
    if source is DType.F32:
        return data.view("<f4")
    if source is DType.F16:
        return data.view("<f2").astype(np.float32)
    assert source is DType.BF16
    return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)


def from_f32(values: npt.NDArray[np.float32], wanted: DType) -> Bytes:
    """float32 as F32, F16 or BF16, rounded to nearest, ties to even."""
    if wanted is DType.F32:
        return np.ascontiguousarray(values).view(np.uint8)
    if wanted is DType.F16:
        with np.errstate(over="ignore"):
            return values.astype("<f2").view(np.uint8)
    assert wanted is DType.BF16
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    # Rounding a NaN could make it infinite.
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(values), quiet, rounded).astype("<u2").view(np.uint8)


def pack(target: Bytes, reference: Bytes, dtype: DType) -> bytes:
    """What leads from ``reference`` to ``target``, both numbers of ``dtype``, as many."""
    kind: Any = dtype.unsigned.type
    bits = 8 * dtype.nbytes
    difference = _image(target, dtype) - _image(reference, dtype)
    # The sign goes to the lowest bit: 0, -1, 1, -2, 2 … become 0, 1, 2, 3, 4 …
    signs = (kind(0) - (difference >> kind(bits - 1))).astype(difference.dtype)
    folded = (difference << kind(1)) ^ signs
    planes = folded.view(np.uint8).reshape(-1, dtype.nbytes)
    return b"".join(_pack_plane(np.ascontiguousarray(planes[:, rank])) for rank in range(dtype.nbytes))


def unpack(packed: Bytes, at: int, reference: Bytes, dtype: DType, *, backwards: bool = False) -> tuple[Bytes, int]:
    """The target and where the next chunk begins; ``backwards``: ``reference`` is the target, the base comes back.

    Raises ValueError if the bytes do not make up as many numbers as ``reference`` has.
    """
    kind: Any = dtype.unsigned.type
    count = reference.nbytes // dtype.nbytes
    planes = np.empty((count, dtype.nbytes), np.uint8)
    for rank in range(dtype.nbytes):
        planes[:, rank], at = _unpack_plane(packed, at, count)
    folded = planes.reshape(-1).view(dtype.unsigned)
    signs = (kind(0) - (folded & kind(1))).astype(folded.dtype)
    difference = (folded >> kind(1)) ^ signs
    image = _image(reference, dtype)
    return _number(image - difference if backwards else image + difference, dtype), at


def _image(data: Bytes, dtype: DType) -> Unsigned:
    """Bits of numbers as integers in the numbers' order."""
    bits: Unsigned = data.view(dtype.unsigned)
    kind: Any = dtype.unsigned.type
    if dtype not in _SIGNED_MAGNITUDE:
        return bits
    top = kind(1 << (8 * dtype.nbytes - 1))
    return np.where(bits & top, ~bits, bits | top)


def _number(image: Unsigned, dtype: DType) -> Bytes:
    """The inverse of ``_image``."""
    if dtype in _SIGNED_MAGNITUDE:
        kind: Any = dtype.unsigned.type
        top = kind(1 << (8 * dtype.nbytes - 1))
        image = np.where(image & top, image ^ top, ~image)
    return image.astype(dtype.unsigned, copy=False).view(np.uint8)


def _pack_plane(plane: Bytes) -> bytes:
    if not plane.any():
        return _PLANE.pack(_SAME)
    # Neighbouring weights have nothing in common but their spread: searching for repeated strings costs time and
    # room. Runs and a good code for single bytes are all there is to gain.
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_RLE)
    packed = deflate.compress(plane.data) + deflate.flush()
    if len(packed) >= plane.nbytes:
        packed = plane.tobytes()
    return _PLANE.pack(len(packed)) + packed


def _unpack_plane(packed: Bytes, at: int, count: int) -> tuple[Bytes, int]:
    if at + _PLANE.size > packed.nbytes:
        raise ValueError("ends too early")
    length = _PLANE.unpack_from(packed.data, at)[0]
    at += _PLANE.size
    end = at + length
    if length > count or end > packed.nbytes:
        raise ValueError(f"a group of {length} bytes for {count} numbers")
    if length == _SAME:
        return np.zeros(count, np.uint8), end
    if length == count:
        return packed[at:end], end
    inflate = zlib.decompressobj(-15)
    try:
        plane = inflate.decompress(packed[at:end].data, count)  # at most as many bytes as there are numbers
    except zlib.error as error:
        raise ValueError("a group that cannot be inflated") from error
    if len(plane) != count or not inflate.eof or inflate.unused_data:
        raise ValueError(f"a group that does not inflate to {count} bytes")
    return np.frombuffer(plane, np.uint8), end


def chunks(nbytes: int) -> Iterator[tuple[int, int]]:
    """The pieces of a tensor of that many bytes: begin and end of each."""
    for begin in range(0, nbytes, CHUNK):
        yield begin, min(begin + CHUNK, nbytes)
