"""Event files, which TensorBoard shows: records framed as TensorFlow frames them, each a small protobuf message.

Written by hand from the format's description, for the packages that would write them weigh more than they save.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path


class EventFile:
    """A file of numbers over steps, written anew."""

    def __init__(self, folder: Path, when: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()  # a run that goes on writes all that it keeps again
        self._file = (folder / f"events.out.tfevents.{int(when)}.selfee").open("wb")
        self._put(_double(1, when) + _bytes(3, b"brain.Event:2"))

    def scalars(self, values: Mapping[str, float], step: int, when: float) -> None:
        """Write numbers of a step by name; ``when`` is in seconds since 1970."""
        summary = b"".join(_bytes(1, _bytes(1, name.encode()) + _float(2, value)) for name, value in values.items())
        self._put(_double(1, when) + _integer(2, step) + _bytes(5, summary))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _put(self, message: bytes) -> None:
        size = struct.pack("<Q", len(message))
        self._file.write(size + _masked_crc(size) + message + _masked_crc(message))
        self._file.flush()


def _masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """Castagnoli's cyclic redundancy check (RFC 3720, B.4)."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    def entry(value: int) -> int:
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        return value

    return tuple(entry(value) for value in range(256))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _float(number: int, value: float) -> bytes:
    return _varint(number << 3 | 5) + struct.pack("<f", value)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value
