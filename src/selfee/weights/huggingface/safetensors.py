"""Reading and writing .safetensors files: 8 bytes of header length, a JSON header, the bytes of the tensors.

The reader is strict, as the format's description asks: every byte of data belongs to exactly one tensor, no key
comes twice, and no number in the header is believed before it is compared with the size of the file.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from selfee.errors import BadFileError, SelfeeError, UnsupportedFileError
from selfee.weights import foreign
from selfee.weights.huggingface.stored import MAX_DIMENSIONS, MAX_ELEMENTS, Bytes, DType, StoredTensor, TensorFile
from selfee.weights.mapped import AGAIN, MappedFile
from selfee.weights.printable import printable
from selfee.weights.writing import OnBytes, replacing

METADATA = "__metadata__"
_LENGTH = struct.Struct("<Q")
_MAX_HEADER = 100_000_000  # bytes; the limit of the reference library
_MAX_TENSORS = 1 << 16
_MAX_PAIRS = 1 << 16
_MAX_ENTRY = 4096  # characters that describe one tensor
_ALIGNMENT = 8
_SUB_BYTE = ("F4", "F6_E2M3", "F6_E3M2")

_BLANK = re.compile(r"[ \t\n\r]*")
_ENTRY = re.compile(r"\{[^{}]*\}")
_DECODER = json.JSONDecoder()


def open_safetensors(path: str | Path) -> TensorFile:
    """Open a .safetensors file. Raises BadFileError naming tensor, what was found and what was expected."""
    file = MappedFile(path)
    try:
        return _Reader(file).read()
    except BaseException:
        file.close()
        raise


class _Reader:
    """Reads the header piece by piece: a hostile one costs no more memory than a sound one of its size."""

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.text = ""
        self.at = 0
        self.data_at = 0
        self.data_size = 0

    def read(self) -> TensorFile:
        self._open_header()
        tensors: dict[str, StoredTensor] = {}
        metadata: dict[str, str] = {}
        names: set[str] = set()
        for name in self._keys(_MAX_TENSORS, "the header"):
            if name in names:
                raise self._bad(f"the header names '{printable(name)}' twice; expected each name once")
            names.add(name)
            if name == METADATA:
                metadata = self._metadata()
            else:
                tensors[name] = self._tensor(name)
        if self.text[self.at :].strip(" "):
            raise self._bad("the header goes on after its closing brace; expected blanks only")
        self._require_no_holes(tensors)
        return TensorFile(self.file, tensors, metadata)

    def _bad(self, found: str) -> BadFileError:
        return BadFileError(f"{self.file.path}: {found}; {AGAIN}")

    def _open_header(self) -> None:
        if error := foreign.lookalike(self.file):
            raise error
        if self.file.size < _LENGTH.size + 2:
            raise self._bad(f"has {self.file.size} bytes; expected a safetensors header of at least 10")
        length = _LENGTH.unpack_from(self.file.data)[0]
        if self.file.data[8:9] != b"{":
            raise self._bad(
                f"begins with '{printable(self.file.data[:10])}'; expected a safetensors file, its ninth byte a brace"
            )
        if length > _MAX_HEADER:
            raise self._bad(f"the header has {length} bytes; expected at most {_MAX_HEADER}")
        if length > self.file.size - _LENGTH.size:
            raise self._bad(
                f"the header has {length} bytes; expected at most {self.file.size - _LENGTH.size}, the rest"
            )
        self.data_at = _LENGTH.size + length
        self.data_size = self.file.size - self.data_at
        try:
            self.text = self.file.data[_LENGTH.size : self.data_at].decode("utf-8")
        except UnicodeDecodeError as broken:
            raise self._bad(f"byte {8 + broken.start} of the header is no UTF-8; expected JSON text") from broken

    def _keys(self, limit: int, what: str) -> Iterator[str]:
        """The keys of the JSON object that begins here; after each, the caller consumes its value."""
        self._expect("{", what)
        count = 0
        if self._next() == "}":
            self.at += 1
            return
        while True:
            name = self._string(f"a name in {what}")
            self._expect(":", what)
            yield name
            count += 1
            if count > limit:
                raise self._bad(f"{what} has more than {limit} names; expected at most that many")
            if self._next() == "}":
                self.at += 1
                return
            self._expect(",", what)

    def _next(self) -> str:
        """The next character that is no blank; empty at the end."""
        found = _BLANK.match(self.text, self.at)
        assert found is not None
        self.at = found.end()
        return self.text[self.at : self.at + 1]

    def _expect(self, mark: str, what: str) -> None:
        found = self._next()
        if found != mark:
            shown = f"'{printable(found)}'" if found else "the end of the header"
            raise self._bad(f"{what}: {shown} at character {self.at}; expected '{mark}'")
        self.at += 1

    def _string(self, what: str) -> str:
        if (found := self._next()) != '"':
            shown = f"'{printable(found)}'" if found else "the end of the header"
            raise self._bad(f"{what}: {shown} at character {self.at}; expected a string")
        try:
            text, self.at = _DECODER.raw_decode(self.text, self.at)
            assert isinstance(text, str)
            text.encode("utf-8")
        except ValueError as error:
            raise self._bad(f"{what}: no JSON string at character {self.at}; expected one") from error
        return text

    def _metadata(self) -> dict[str, str]:
        pairs: dict[str, str] = {}
        for key in self._keys(_MAX_PAIRS, METADATA):
            if key in pairs:
                raise self._bad(f"{METADATA} has '{printable(key)}' twice; expected each key once")
            pairs[key] = self._string(f"{METADATA} '{printable(key, 60)}'")
        return pairs

    def _tensor(self, name: str) -> StoredTensor:
        where = f"tensor '{printable(name)}'"
        fields = self._fields(where)
        dtype = self._dtype(where, fields["dtype"])
        shape = self._integers(where, "shape", fields["shape"])
        if len(shape) > MAX_DIMENSIONS or prod(shape) > MAX_ELEMENTS:
            shown = printable(str(list(shape)))
            raise self._bad(f"{where}: shape {shown}; expected at most {MAX_DIMENSIONS} sizes and 2^40 numbers")
        offsets = self._integers(where, "data_offsets", fields["data_offsets"])
        if len(offsets) != 2 or not offsets[0] <= offsets[1] <= self.data_size:
            raise self._bad(
                f"{where}: data_offsets {printable(str(list(offsets)))}; expected two, rising, "
                f"at most {self.data_size}, the bytes of data in the file"
            )
        begin, end = offsets
        nbytes = prod(shape) * dtype.nbytes
        if end - begin != nbytes:
            raise self._bad(
                f"{where}: {end - begin} bytes from {begin} to {end}; expected {nbytes} for {dtype.value} {list(shape)}"
            )
        return StoredTensor(name, shape, dtype, self.file.path, self.data_at + begin, nbytes)

    def _fields(self, where: str) -> dict[str, Any]:
        self._next()
        found = _ENTRY.match(self.text, self.at, self.at + _MAX_ENTRY)
        expected = "expected an object with dtype, shape and data_offsets"
        if found is None:
            raise self._bad(f"{where}: '{printable(self.text[self.at : self.at + 40])}'; {expected}")
        self.at = found.end()
        try:
            pairs: list[tuple[str, Any]] = json.loads(found[0], object_pairs_hook=list)
        except (ValueError, RecursionError) as error:
            raise self._bad(f"{where}: no JSON object; {expected}") from error
        fields = dict(pairs)
        if len(fields) != len(pairs) or set(fields) != {"dtype", "shape", "data_offsets"}:
            keys = printable(", ".join(key for key, _ in pairs))
            raise self._bad(f"{where}: has the fields {keys or '(none)'}; expected dtype, shape and data_offsets once")
        return fields

    def _dtype(self, where: str, value: Any) -> DType:
        if value in _SUB_BYTE:
            raise UnsupportedFileError(
                f"{self.file.path}: {where}: stored as {value}, less than a byte a number; selfee reads "
                f"{_known()}; use the model in one of them"
            )
        if not isinstance(value, str) or value not in DType.__members__:
            raise self._bad(f"{where}: dtype '{printable(str(value))}'; expected one of {_known()}")
        return DType(value)

    def _integers(self, where: str, field: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or any(type(item) is not int or not 0 <= item < 1 << 63 for item in value):
            raise self._bad(f"{where}: {field} {printable(json.dumps(value), 80)}; expected whole numbers from 0 on")
        return tuple(value)

    def _require_no_holes(self, tensors: Mapping[str, StoredTensor]) -> None:
        end = self.data_at
        for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.nbytes)):
            if tensor.offset != end:
                fault = "overlaps the one before" if tensor.offset < end else "leaves a hole"
                raise self._bad(
                    f"tensor '{printable(tensor.name)}': begins at byte {tensor.offset - self.data_at} of the data and "
                    f"{fault}; expected it at {end - self.data_at}"
                )
            end += tensor.nbytes
        if end != self.file.size:
            raise self._bad(
                f"has {self.data_size} bytes of data, of which the last {self.file.size - end} belong to no tensor; "
                f"expected {end - self.data_at}"
            )


def _known() -> str:
    return " ".join(DType.__members__)


@dataclass(frozen=True)
class TensorSource:
    """A tensor to be written as plain numbers; ``make()`` gives its bytes in order, in parts, when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    make: Callable[[], Iterable[Bytes]]

    @property
    def nbytes(self) -> int:
        """Bytes in the file: follows from shape and type."""
        return prod(self.shape) * self.dtype.nbytes


def write_safetensors(
    path: Path, tensors: Sequence[TensorSource], metadata: Mapping[str, str], on_bytes: OnBytes | None = None
) -> None:
    """Write a file that takes the place of ``path`` when it is whole, tensor by tensor.

    ``on_bytes`` is told of each part written. Raises ResourceError if the disk is full or may not be written.
    """
    header, ordered = lay_out(tensors, metadata)
    with replacing(path, needed=len(header) + sum(tensor.nbytes for tensor in ordered)) as file:
        write_into(file, header, ordered, on_bytes)


def lay_out(tensors: Sequence[TensorSource], metadata: Mapping[str, str]) -> tuple[bytes, list[TensorSource]]:
    """The header, with its length before it, and the tensors in the order in which their bytes follow.

    The order is the reference library's: widest numbers first, then by name, which keeps every tensor aligned.
    """
    ranks = {dtype: rank for rank, dtype in enumerate(DType)}
    ordered = sorted(tensors, key=lambda tensor: (-ranks[tensor.dtype], tensor.name.encode()))
    entries: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    at = 0
    for tensor in ordered:
        if tensor.name in entries:
            raise SelfeeError(f"tensor '{printable(tensor.name)}' comes twice; expected each name once")
        entries[tensor.name] = entry(tensor.dtype, tensor.shape, at, at + tensor.nbytes)
        at += tensor.nbytes
    return header_bytes(entries), ordered


def entry(dtype: DType, shape: Sequence[int], begin: int, end: int) -> dict[str, object]:
    """What the header says of one tensor; ``begin`` and ``end`` count from the first byte of data."""
    return {"dtype": dtype.value, "shape": list(shape), "data_offsets": [begin, end]}


def header_bytes(entries: Mapping[str, object], room: int = 0) -> bytes:
    """The header of a file with its length before it, ended with blanks at a multiple of 8 and, if given, ``room``."""
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    length = max(len(text) + -len(text) % _ALIGNMENT, room - _LENGTH.size)
    if length > _MAX_HEADER:
        raise SelfeeError(f"a safetensors header of {length} bytes; the format allows {_MAX_HEADER}; make more shards")
    return _LENGTH.pack(length) + text.ljust(length)


def write_into(file: IO[bytes], header: bytes, ordered: Iterable[TensorSource], on_bytes: OnBytes | None) -> None:
    """Write a header and the bytes of its tensors to a file that is open."""
    file.write(header)
    for tensor in ordered:
        written = 0
        for part in tensor.make():
            data = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
            file.write(data.data)
            written += data.nbytes
            if on_bytes is not None:
                on_bytes(data.nbytes)
        if written != tensor.nbytes:
            raise SelfeeError(
                f"tensor '{printable(tensor.name)}': {written} bytes were made; its shape and type need "
                f"{tensor.nbytes}; please report this"
            )
