"""Importance matrices: how much each column of a weight matrix matters, from what flowed into it on some text.

A column's importance is the mean square of what it is multiplied with; quantisers weigh their rounding errors by it.
Two forms of file hold them, both llama.cpp's: GGUF (``NAME.in_sum2`` and ``NAME.counts``) and the older plain binary
("dat": means times calls). Names are those of GGUF tensors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError, UsageError
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.gguf import MAGIC, read_gguf
from selfee.weights.gguf_writer import write_gguf
from selfee.weights.mapped import AGAIN, Cursor, MappedFile, StringArray
from selfee.weights.printable import printable
from selfee.weights.quants import QuantType
from selfee.weights.writing import TensorData, replacing

Form = Literal["gguf", "dat"]

_TYPE, _DATASETS = "general.type", "imatrix.datasets"
_CHUNKS, _CHUNK_SIZE = "imatrix.chunk_count", "imatrix.chunk_size"
_SQUARES, _COUNTS = ".in_sum2", ".counts"
_IGNORED = ".in_sum"  # plain sums, which later versions of llama.cpp add
_GUESSED_CHUNK = 512  # tokens: the old form does not say; llama.cpp's default. It cancels out in the means.
_I32 = struct.Struct("<i")
_MAX_NAME = 1 << 10


@dataclass(frozen=True, eq=False)
class InputSums:
    """What flowed into one tensor: ``squares`` [matrices, columns] are sums over tokens, ``counts`` [matrices] tokens.

    There is one matrix, but for the experts of mixture models. Both float32, as in files.
    """

    squares: npt.NDArray[np.float32]
    counts: npt.NDArray[np.float32]

    @property
    def means(self) -> npt.NDArray[np.float32]:
        """Mean squares, matrix after matrix; 1 where a matrix never saw a token, as llama.cpp has it."""
        counts = self.counts[:, None]
        means = np.divide(self.squares, counts, out=np.ones_like(self.squares), where=counts > 0)
        return means.reshape(-1)


class Importance(Mapping[str, npt.NDArray[np.float32]]):
    """The importance of columns by tensor name: ``importance["blk.0.attn_q.weight"]`` is float32 [columns].

    ``sums`` is what it was computed from, ``datasets`` the names of the texts, ``chunks`` of ``chunk_size`` tokens were
    read. ``notes`` are further metadata of a GGUF file (selfee says there which model and text it was).
    """

    def __init__(
        self,
        sums: Mapping[str, InputSums],
        *,
        datasets: Iterable[str] = (),
        chunks: int,
        chunk_size: int,
        notes: Mapping[str, Any] | None = None,
        path: Path | None = None,
    ) -> None:
        self.sums = dict(sums)
        self.datasets = tuple(datasets)
        self.chunks = chunks
        self.chunk_size = chunk_size
        self.notes = dict(notes or {})
        self.path = path

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        return self.sums[name].means

    def __iter__(self) -> Iterator[str]:
        return iter(self.sums)

    def __len__(self) -> int:
        return len(self.sums)

    def check(self, checkpoint: Checkpoint) -> None:
        """Raise BadFileError if this is of another model: no tensor in common, or one with other columns."""
        where = f"{self.path}: " if self.path else ""
        advice = f"make one of this model: selfee imatrix {checkpoint.path.name} TEXT -o OUT"
        shared = [name for name in self.sums if name in checkpoint.tensors]
        if not shared:
            raise BadFileError(f"{where}none of its tensors is in {checkpoint.path}; it is of another model; {advice}")
        for name in shared:
            columns, found = checkpoint.tensors[name].shape[-1], self.sums[name].squares.size
            if found != columns:
                raise BadFileError(
                    f"{where}tensor '{printable(name)}': {found} columns; {checkpoint.path} has {columns}; it is of "
                    f"another model; {advice}"
                )


def read_imatrix(path: str | Path) -> Importance:
    """Read an importance matrix of either form.

    Raises BadFileError for a file that is damaged, no importance matrix, or holds a negative or non-finite number.
    """
    file = MappedFile(path)
    try:
        return _read_gguf(file) if file.data[:4] == MAGIC else _read_dat(file)
    finally:
        file.close()


def write_imatrix(path: str | Path, importance: Importance, form: Form = "gguf") -> None:
    """Write an importance matrix; the file appears complete or not at all. Raises ResourceError, UsageError."""
    if not importance.sums:
        raise UsageError(f"{path}: an importance matrix without a tensor; expected at least one; nothing was written")
    ordered = dict(sorted(importance.sums.items()))
    if form == "dat":
        _write_dat(Path(path), importance, ordered)
        return
    metadata: dict[str, Any] = {
        _TYPE: "imatrix",
        _DATASETS: StringArray([name.encode() for name in importance.datasets]),
        _CHUNKS: np.uint32(importance.chunks),
        _CHUNK_SIZE: np.uint32(importance.chunk_size),
    }
    tensors = []
    for name, sums in ordered.items():
        for suffix, values in ((_SQUARES, sums.squares), (_COUNTS, sums.counts[:, None])):
            blocks = np.ascontiguousarray(values, dtype="<f4").view(np.uint8)
            tensors.append(TensorData(name + suffix, values.shape, QuantType.F32, blocks))
    write_gguf(path, metadata | importance.notes, tensors)


def _read_gguf(file: MappedFile) -> Importance:
    checkpoint = read_gguf(file)
    metadata = checkpoint.metadata
    kind = metadata.get(_TYPE, "imatrix")
    if kind != "imatrix":
        raise BadFileError(
            f"{file.path}: {_TYPE} is {printable(repr(kind), 40)}; expected 'imatrix': a file that selfee imatrix or "
            "llama-imatrix wrote"
        )
    squares: dict[str, npt.NDArray[np.float32]] = {}
    counts: dict[str, npt.NDArray[np.float32]] = {}
    for tensor in checkpoint.tensors.values():
        for suffix, found in ((_SQUARES, squares), (_COUNTS, counts)):
            if tensor.name.endswith(suffix):
                if tensor.type is not QuantType.F32:
                    raise _bad(file, tensor.name, f"is stored as {tensor.type.name}", "F32")
                values = checkpoint.read(tensor.name).reshape(-1).view("<f4").astype(np.float32)
                found[tensor.name.removesuffix(suffix)] = values
                break
        else:
            if not tensor.name.endswith(_IGNORED):
                raise _bad(file, tensor.name, "is no part of an importance matrix", f"NAME{_SQUARES} and NAME{_COUNTS}")
    for name in squares.keys() ^ counts.keys():
        raise _bad(file, name, "has sums or counts but not both", f"NAME{_SQUARES} and NAME{_COUNTS}")
    if not squares:
        raise BadFileError(f"{file.path}: holds no importance matrix; expected tensors named NAME{_SQUARES}")
    return Importance(
        {name: _checked(file, name, squares[name], counts[name]) for name in squares},
        datasets=_datasets(file, metadata),
        chunks=_count(file, metadata, _CHUNKS, 0),
        chunk_size=_count(file, metadata, _CHUNK_SIZE, _GUESSED_CHUNK),
        notes={key: value for key, value in metadata.items() if key.startswith("selfee.")},
        path=file.path,
    )


def _datasets(file: MappedFile, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    value = metadata.get(_DATASETS, StringArray([]))
    if not isinstance(value, StringArray):
        raise BadFileError(f"{file.path}: {_DATASETS} is a {type(value).__name__}; expected a list of texts; {AGAIN}")
    return tuple(value)


def _count(file: MappedFile, metadata: Mapping[str, Any], key: str, default: int) -> int:
    value = metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise BadFileError(f"{file.path}: {key} is {printable(repr(value), 40)}; expected a whole number; {AGAIN}")
    return value


def _read_dat(file: MappedFile) -> Importance:
    at = Cursor(file)
    entries = _i32(at, "the number of entries")
    if not 0 < entries <= at.left // 16:  # an entry has three numbers, a name and a value at least
        raise file.bad(
            0,
            f"{entries} entries in {file.size} bytes; expected an importance matrix (GGUF or the older form); {AGAIN}",
        )
    sums: dict[str, InputSums] = {}
    for index in range(entries):
        start = at.offset
        name = _name(at, f"the name of entry {index}")
        what = f"tensor '{printable(name)}'"
        calls, count = _i32(at, f"the calls of {what}"), _i32(at, f"the columns of {what}")
        if name in sums:
            raise file.bad(start, f"{what} stands there twice; {AGAIN}")
        if calls < 1 or count < 1:
            raise file.bad(start, f"{what}: {calls} calls and {count} columns; expected 1 or more; {AGAIN}")
        raw = at.take(4 * count, f"{count} columns of {what}")
        values = np.frombuffer(raw, dtype="<f4").astype(np.float32)
        with np.errstate(over="ignore"):  # what becomes infinite is refused
            squares = values * np.float32(_GUESSED_CHUNK)
        sums[name] = _checked(file, name, squares, np.array([calls * _GUESSED_CHUNK], dtype=np.float32))
    chunks, datasets = 0, list[str]()
    if at.left:  # the oldest files end here
        chunks = _i32(at, "the number of chunks")
    if at.left:
        datasets = [_text(at, "the name of the text", at.left)]
    if at.left:
        raise file.bad(at.offset, f"{at.left} bytes follow the last entry; expected the end; {AGAIN}")
    if chunks < 0:
        raise file.bad(at.offset, f"{chunks} chunks; expected 0 or more; {AGAIN}")
    return Importance(sums, datasets=datasets, chunks=chunks, chunk_size=_GUESSED_CHUNK, path=file.path)


def _write_dat(path: Path, importance: Importance, ordered: Mapping[str, InputSums]) -> None:
    size = max(1, importance.chunk_size)
    with replacing(path) as file:
        file.write(_I32.pack(len(ordered)))
        for name, sums in ordered.items():
            calls = max(1, -(-int(sums.counts.max()) // size))
            raw = name.encode()
            file.write(_I32.pack(len(raw)) + raw + _I32.pack(calls) + _I32.pack(sums.squares.size))
            if (sums.counts == calls * size).all():
                values = sums.squares.reshape(-1) / np.float32(size)  # the same, with one rounding less
            else:
                values = sums.means * np.float32(calls)
            file.write(values.astype("<f4").tobytes())
        dataset = (importance.datasets[-1] if importance.datasets else "").encode()
        file.write(_I32.pack(importance.chunks) + _I32.pack(len(dataset)) + dataset)


def _i32(at: Cursor, what: str) -> int:
    value: int = at.unpack(_I32, what)[0]
    return value


def _name(at: Cursor, what: str) -> str:
    start = at.offset
    name = _text(at, what, _MAX_NAME)
    if not name:
        raise at.file.bad(start, f"{what} is empty; {AGAIN}")
    return name


def _text(at: Cursor, what: str, limit: int) -> str:
    start = at.offset
    length = _i32(at, f"the length of {what}")
    if not 0 <= length <= limit:
        raise at.file.bad(start, f"{what} has {length} bytes; expected 0 to {limit}; {AGAIN}")
    try:
        return at.take(length, what).decode()
    except UnicodeDecodeError:
        raise at.file.bad(start, f"{what} is not UTF-8; {AGAIN}") from None


def _checked(
    file: MappedFile, name: str, squares: npt.NDArray[np.float32], counts: npt.NDArray[np.float32]
) -> InputSums:
    """Sums of a tensor whose numbers are all possible."""
    if squares.size % counts.size:
        raise _bad(file, name, f"has {squares.size} sums for {counts.size} counts", "as many for each")
    possible_squares = np.isfinite(squares) & (squares >= 0)
    possible_counts = np.isfinite(counts) & ((counts >= 1) | (counts == 0))
    for what, values, possible in (("sum", squares, possible_squares), ("count", counts, possible_counts)):
        wrong = np.flatnonzero(~possible)
        if wrong.size:
            raise _bad(file, name, f"{what} {wrong[0]} is {values[wrong[0]]}", "finite sums and numbers of tokens")
    return InputSums(squares.reshape(counts.size, -1), counts)


def _bad(file: MappedFile, name: str, found: str, expected: str) -> BadFileError:
    return BadFileError(f"{file.path}: tensor '{printable(name)}': {found}; expected {expected}; {AGAIN}")
