"""The directory of a zip archive whose members are stored uncompressed, as PyTorch writes them.

Only the directory at the end is read. Nothing is unpacked, so an archive can neither blow up nor reach outside itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.mapped import AGAIN, MappedFile
from selfee.weights.printable import printable

MAGIC = b"PK\x03\x04"
_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_MAX_MEMBERS = 1 << 16
_MAX_COMMENT = 0xFFFF
_ALL_32 = 0xFFFFFFFF
_ALL_16 = 0xFFFF
_ENCRYPTED = 1


@dataclass(frozen=True)
class Member:
    """Where the bytes of a member lie in the archive."""

    name: str
    offset: int
    size: int


def read_directory(file: MappedFile) -> dict[str, Member]:
    """The members by name. Raises BadFileError if the archive is damaged, UnsupportedFileError if it is compressed."""
    count, size, offset = _end(file)
    if count > _MAX_MEMBERS:
        raise _bad(file, f"{count} members; expected at most {_MAX_MEMBERS}")
    if offset + size > file.size or count * _CENTRAL.size > size:
        raise _bad(
            file, f"a directory of {count} members in {size} bytes at byte {offset}; expected it inside the file"
        )
    members: dict[str, Member] = {}
    last_end = 0
    for member in sorted(_members(file, count, offset, offset + size), key=lambda member: member.offset):
        if member.name in members:
            raise _bad(file, f"member '{printable(member.name)}' comes twice; expected each name once")
        if member.offset < last_end:
            raise _bad(file, f"member '{printable(member.name)}' overlaps another; expected each byte in one member")
        last_end = member.offset + member.size
        members[member.name] = member
    return members


def _bad(file: MappedFile, found: str) -> BadFileError:
    return BadFileError(f"{file.path}: zip archive with {found}; {AGAIN}")


def _end(file: MappedFile) -> tuple[int, int, int]:
    """Number of members, size and offset of the directory."""
    at = file.data.rfind(b"PK\x05\x06", max(0, file.size - _END.size - _MAX_COMMENT))
    if at < 0 or at + _END.size > file.size:
        raise _bad(file, "no directory at its end")
    _, disk, _, _, count, size, offset, _ = _END.unpack_from(file.data, at)
    locator_at = at - _END64_LOCATOR.size
    if locator_at >= 0 and file.data[locator_at : locator_at + 4] == b"PK\x06\x07":
        _, disk, end_at, _ = _END64_LOCATOR.unpack_from(file.data, locator_at)
        if end_at + _END64.size > locator_at or file.data[end_at : end_at + 4] != b"PK\x06\x06":
            raise _bad(file, f"no 64-bit directory end at byte {end_at}")
        count, size, offset = _END64.unpack_from(file.data, end_at)[7:10]
    if disk not in (0, _ALL_16):
        raise _bad(file, "several disks; expected one file")
    return count, size, offset


def _members(file: MappedFile, count: int, at: int, end: int) -> Iterator[Member]:
    for index in range(count):
        if at + _CENTRAL.size > end:
            raise _bad(file, f"a directory that ends before member {index}")
        fields = _CENTRAL.unpack_from(file.data, at)
        magic, flags, method, packed, size = fields[0], fields[3], fields[4], fields[8], fields[9]
        name_length, extra_length, comment_length, offset = fields[10], fields[11], fields[12], fields[16]
        name_at = at + _CENTRAL.size
        at = name_at + name_length + extra_length + comment_length
        if magic != b"PK\x01\x02" or at > end:
            raise _bad(file, f"member {index} damaged in the directory")
        raw = file.data[name_at : name_at + name_length]
        extra = file.data[name_at + name_length : name_at + name_length + extra_length]
        shown = printable(raw)
        size, packed, offset = _wide(file, shown, extra, size, packed, offset)
        if method or flags & _ENCRYPTED:
            how = f"compressed (method {method})" if method else "encrypted"
            raise UnsupportedFileError(
                f"{file.path}: member '{shown}' is {how}; expected it stored as it is, as torch.save does; save the "
                "model again with torch.save, or as safetensors"
            )
        if packed != size:
            raise _bad(file, f"member '{shown}' of {size} bytes in {packed}; expected both equal")
        yield Member(raw.decode("utf-8", errors="backslashreplace"), _data_at(file, raw, offset, size), size)


def _wide(file: MappedFile, shown: str, extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Sizes and offset, those that do not fit into 32 bits taken from the 64-bit extra field (id 1)."""
    if _ALL_32 not in (size, packed, offset):
        return size, packed, offset
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
            wide = [next(values, -1) if value == _ALL_32 else value for value in (size, packed, offset)]
            if min(wide) >= 0:
                return wide[0], wide[1], wide[2]
        at += 4 + length
    raise _bad(file, f"member '{shown}' without its 64-bit size")


def _data_at(file: MappedFile, name: bytes, offset: int, size: int) -> int:
    """The first byte of a member, behind its local header."""
    if offset + _LOCAL.size <= file.size:
        fields = _LOCAL.unpack_from(file.data, offset)
        name_at = offset + _LOCAL.size
        begin = name_at + fields[9] + fields[10]
        if fields[0] == MAGIC and file.data[name_at : name_at + fields[9]] == name and begin + size <= file.size:
            return int(begin)
    raise _bad(file, f"member '{printable(name)}' of {size} bytes at byte {offset}; expected it inside the file")
