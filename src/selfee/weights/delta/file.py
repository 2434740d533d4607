"""The files of our own deltas: safetensors files whose tensors are packed differences and whose metadata says what of.

Layout, version 1: a folder of ``delta.safetensors``, or of several and an index. Tensor ``target:NAME`` (U8) leads
from the base to tensor NAME of the target, ``base:NAME`` back where the first does not; ``delta_codec.py`` says how.
The metadata of each file describes the tensors packed in it, and base and target as a whole. The small files of the
target lie beside; those of the base that differ have ``base.`` before their names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO, Any

from selfee import __version__
from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.delta.codec import CHUNK
from selfee.weights.huggingface.companions import is_companion
from selfee.weights.huggingface.safetensors import METADATA, entry, header_bytes
from selfee.weights.huggingface.shard_writer import shard_names, write_index
from selfee.weights.huggingface.shards import TensorFolder, is_plain_name, open_tensors
from selfee.weights.huggingface.stored import MAX_DIMENSIONS, MAX_ELEMENTS, DType, StoredTensor
from selfee.weights.printable import printable

FORMAT = "selfee-delta"
VERSION = "1"
STEM = "delta"
BASE_FILE = "base."  # before the names of the base's small files
_HEX = frozenset("0123456789abcdef")
_AGAIN = "the delta is damaged; fetch or make it again"


@dataclass(frozen=True)
class Described:
    """One tensor of base or target: what it is, its checksum and the file it came from."""

    dtype: DType
    shape: tuple[int, ...]
    sha256: str
    file: int = 0  # index into ``Side.files``

    @property
    def nbytes(self) -> int:
        """Bytes of all its numbers."""
        return prod(self.shape) * self.dtype.nbytes

    def matches(self, tensor: StoredTensor) -> bool:
        """Whether a stored tensor is of this type and shape."""
        return (self.dtype, self.shape) == (tensor.dtype, tensor.shape)


@dataclass(frozen=True)
class Side:
    """Base or target as a whole."""

    tensors: Mapping[str, Described]
    files: tuple[tuple[str, Mapping[str, str]], ...]  # (name, metadata) of the files its tensors lay in
    small_files: Mapping[str, str]  # name -> SHA-256

    @property
    def sha256(self) -> str:
        """The checksum of all tensors: names, types, shapes and numbers count, the spread over files does not.

        It is the SHA-256 of one line for each tensor, sorted by name: the JSON array [name, type, shape, SHA-256 of
        its bytes] without blanks, non-ASCII characters escaped.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            line = json.dumps([name, tensor.dtype.value, list(tensor.shape), tensor.sha256], separators=(",", ":"))
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass
class DeltaWriter:
    """Writes the files of a delta into a folder that nobody reads yet.

    How large a packed tensor is shows when it is packed, and headers stand at the beginning: room is left for them.
    """

    folder: Path
    room: int  # bytes left for a header
    max_shard_bytes: int
    written: int = 0
    _files: list[tuple[Path, IO[bytes]]] = field(default_factory=list)
    _entries: list[dict[str, object]] = field(default_factory=list)
    _at: int = 0

    def add(self, name: str, largest: int, parts: Iterable[bytes]) -> None:
        """Write a packed tensor that may have ``largest`` bytes."""
        if not self._files or (self._at and self._at + largest > self.max_shard_bytes):
            path = self.folder / f"{len(self._files)}.packing"
            self._files.append((path, path.open("xb")))
            self._files[-1][1].seek(self.room)
            self._entries.append({})
            self._at = 0
        begin = self._at
        for part in parts:
            self._files[-1][1].write(part)
            self._at += len(part)
        self.written += self._at - begin
        self._entries[-1][name] = entry(DType.U8, [self._at - begin], begin, self._at)

    def finish(self, base: Side, target: Side) -> None:
        """Write the headers, now that all is known, and give the files their names."""
        names = shard_names(len(self._files), STEM)
        told: set[str] = set()
        for number, ((path, file), entries, name) in enumerate(zip(self._files, self._entries, names)):
            here = {piece.split(":", 1)[1] for piece in entries} - told
            if number == len(names) - 1:  # what has nothing packed, a dropped tensor, is told at the end
                here |= (base.tensors.keys() | target.tensors.keys()) - told - here
            told |= here
            header = header_bytes({METADATA: describe(base, target, sorted(here)), **entries}, self.room)
            file.seek(0)
            file.write(header)
            file.close()
            path.rename(self.folder / name)
        if len(names) > 1:
            listed = {piece: name for name, entries in zip(names, self._entries) for piece in entries}
            write_index(self.folder / f"{STEM}.safetensors.index.json", listed, self.written)

    def close(self) -> None:
        """Close the files, finished or not."""
        for _, file in self._files:
            file.close()


def header_room(base: Side, target: Side) -> int:
    """Bytes that suffice for the header of any file of the delta."""
    names = sorted(base.tensors.keys() | target.tensors.keys())
    last = 1 << 60  # an offset with as many digits as any
    entries: dict[str, object] = {
        f"{side}:{name}": entry(DType.U8, [last], last, last) for name in names for side in ("base", "target")
    }
    size = len(header_bytes({METADATA: describe(base, target, names), **entries}))
    return size + -size % 4096


def describe(base: Side, target: Side, names: Iterable[str]) -> dict[str, str]:
    """The metadata of a file in which these tensors are packed."""
    tensors = {name: [_plain(side.tensors.get(name)) for side in (base, target)] for name in names}
    value = {
        "format": FORMAT,
        "version": VERSION,
        "made_by": f"selfee {__version__}",
        "chunk_bytes": str(CHUNK),
        "base_sha256": base.sha256,
        "target_sha256": target.sha256,
        "files": [[list(file) for file in side.files] for side in (base, target)],
        "small_files": [dict(side.small_files) for side in (base, target)],
        "tensors": tensors,
    }
    return {
        key: item if isinstance(item, str) else json.dumps(item, separators=(",", ":")) for key, item in value.items()
    }


def _plain(tensor: Described | None) -> object:
    return tensor and [tensor.dtype.value, list(tensor.shape), tensor.sha256, tensor.file]


@dataclass(frozen=True)
class DeltaFile:
    """An opened delta of our own."""

    packed: TensorFolder
    base: Side
    target: Side
    made_by: str

    @property
    def is_reversible(self) -> bool:
        """Whether it also leads back from the target to the base."""
        names = self.packed.tensors
        return all(f"base:{name}" in names for name in self.base.tensors if self.needs_way_back(name))

    def needs_way_back(self, name: str) -> bool:
        """Whether a tensor of the base does not follow from that of the target and the difference."""
        return way_back_from(self.base.tensors[name], self.target.tensors.get(name)) is not None

    def close(self) -> None:
        """Let go of the files."""
        self.packed.close()

    def __enter__(self) -> DeltaFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def way_back_from(base: Described, target: Described | None) -> int | None:
    """The byte of the base from which on it must be packed to be got back; None if the difference is enough."""
    if target is None or target.dtype is not base.dtype:
        return 0
    return target.nbytes if base.nbytes > target.nbytes else None


def is_own(folder: TensorFolder) -> bool:
    """Whether tensors that were opened are a delta of our own."""
    return folder.metadata.get("format") == FORMAT


def open_packed(path: str | Path) -> TensorFolder:
    """The tensors of a delta, ours or another's."""
    has_own_name = any((Path(path) / f"{STEM}.safetensors{end}").is_file() for end in ("", ".index.json"))
    return open_tensors(path, STEM if has_own_name else "model")


def open_delta(path: str | Path) -> DeltaFile:
    """Open a delta of our own. Raises BadFileError if it is damaged, UnsupportedFileError if it is of later make."""
    packed = open_packed(path)
    try:
        return _Reader(packed).read()
    except BaseException:
        packed.close()
        raise


class _Reader:
    def __init__(self, packed: TensorFolder) -> None:
        self.packed = packed

    def _bad(self, found: str) -> BadFileError:
        return BadFileError(f"{self.packed.path}: {found}; {_AGAIN}")

    def read(self) -> DeltaFile:
        first = self.packed.metadata
        if first.get("format") != FORMAT:
            raise BadFileError(f"{self.packed.path}: holds no delta of selfee's own; expected one; check the path")
        if first.get("version") != VERSION or first.get("chunk_bytes") != str(CHUNK):
            raise UnsupportedFileError(
                f"{self.packed.path}: a delta of version {printable(first.get('version', '?'), 20)}; this selfee reads "
                f"version {VERSION}; update selfee"
            )
        told: dict[str, Any] = {}
        for path, metadata in self.packed.file_metadata.items():
            if {**metadata, "tensors": ""} != {**first, "tensors": ""}:
                raise self._bad(f"{path.name} belongs to another delta; expected parts of one")
            tensors = self._json(metadata, "tensors", dict)
            if twice := told.keys() & tensors.keys():
                raise self._bad(f"tensor '{printable(min(twice))}' is described twice; expected each once")
            told |= tensors
        files, small_files = self._json(first, "files", list), self._json(first, "small_files", list)
        if len(files) != 2 or len(small_files) != 2:
            raise self._bad("the metadata does not tell of base and target; expected both")
        base, target = (self._side(told, at, files[at], small_files[at]) for at in range(2))
        for label, side in (("base", base), ("target", target)):
            if side.sha256 != first.get(f"{label}_sha256"):
                raise self._bad(f"the description of the {label} does not have its own checksum; expected it to agree")
        delta = DeltaFile(self.packed, base, target, printable(first.get("made_by", "?"), 40))
        self._require_pieces(delta)
        return delta

    def _json(self, metadata: Mapping[str, str], key: str, kind: type) -> Any:
        try:
            value = json.loads(metadata.get(key, ""))
        except (ValueError, RecursionError) as error:
            raise self._bad(f"metadata '{key}' is no JSON; expected it") from error
        if not isinstance(value, kind):
            raise self._bad(f"metadata '{key}' is no {kind.__name__}; expected one")
        return value

    def _side(self, told: Mapping[str, Any], at: int, files: Any, small_files: Any) -> Side:
        if not isinstance(files, list) or not all(map(_is_file, files)):
            raise self._bad("metadata 'files' names a file that is none; expected names and metadata")
        if not isinstance(small_files, dict) or not all(
            is_companion(name) and _is_sha256(sha) for name, sha in small_files.items()
        ):
            raise self._bad("metadata 'small_files' names a file that is none; expected names and checksums")
        tensors: dict[str, Described] = {}
        for name, sides in told.items():
            if not isinstance(sides, list) or len(sides) != 2 or sides == [None, None]:
                raise self._bad(f"tensor '{printable(name)}' is described wrongly; expected base and target")
            if sides[at] is not None:
                tensors[name] = self._described(name, sides[at], len(files))
        return Side(tensors, tuple((file[0], file[1]) for file in files), small_files)

    def _described(self, name: str, value: Any, n_files: int) -> Described:
        match value:
            case [str(dtype), list(shape), str(sha256), int(file)] if (
                dtype in DType.__members__
                and all(type(size) is int and 0 <= size < 1 << 63 for size in shape)
                and len(shape) <= MAX_DIMENSIONS
                and prod(shape) <= MAX_ELEMENTS
                and _is_sha256(sha256)
                and 0 <= file < n_files
            ):
                return Described(DType(dtype), tuple(shape), sha256, file)
        raise self._bad(f"tensor '{printable(name)}' is described wrongly; expected type, shape, checksum and file")

    def _require_pieces(self, delta: DeltaFile) -> None:
        for name, target in delta.target.tensors.items():
            base = delta.base.tensors.get(name)
            if f"target:{name}" not in self.packed.tensors:
                raise self._bad(f"the difference of tensor '{printable(name)}' is missing; expected it")
            if base is not None and not fit(base.shape, target.shape):
                raise self._bad(f"tensor '{printable(name)}' changes its row's shape; expected more or fewer rows only")
        for name, tensor in self.packed.tensors.items():
            side, _, of = name.partition(":")
            known = delta.target.tensors if side == "target" else delta.base.tensors if side == "base" else {}
            if of not in known or tensor.dtype is not DType.U8:
                raise self._bad(f"'{printable(name)}' belongs to no tensor of base or target; expected none such")


def fit(base: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether two shapes differ in their rows at most."""
    return len(base) == len(target) and base[1:] == target[1:]


def _is_file(value: Any) -> bool:
    match value:
        case [str(name), dict(metadata)]:
            return is_plain_name(name) and all(isinstance(item, str) for item in metadata.values())
    return False


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= _HEX
