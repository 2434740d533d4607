"""A model as Hugging Face and Meta publish it: a folder whose tensors are spread over several files.

``open_tensors`` finds the files and gives all tensors under one roof; names, shapes and types are those of the files.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from selfee.errors import BadFileError, UsageError
from selfee.weights.huggingface.pth import is_pth, open_pth
from selfee.weights.huggingface.safetensors import open_safetensors
from selfee.weights.huggingface.stored import Bytes, StoredTensor, TensorFile
from selfee.weights.mapped import MappedFile
from selfee.weights.printable import printable

_MAX_INDEX = 16 << 20  # bytes
_MAX_SHARDS = 10_000
_META_FILE = re.compile(r"consolidated\.(\d\d)\.pth")
_META_COLUMNS = ("attention.wo.weight", "feed_forward.w2.weight")
_META_ROWS = ("wq.weight", "wk.weight", "wv.weight", "w1.weight", "w3.weight", "output.weight")
_META_EMBEDDINGS = "tok_embeddings.weight"


@dataclass(frozen=True)
class _Place:
    """The files a tensor lies in; several where it was split along ``axis``."""

    files: tuple[TensorFile, ...]
    axis: int = 0


class TensorFolder:
    """The tensors of a model folder or file, mapped into memory. Use as a context manager or call ``close``.

    ``tensors`` are in the order of the files; ``shards`` are the files; ``metadata`` is the first file's (``format``
    and the like); ``unlisted`` are tensors that lie in a file but not in the index, which says what belongs to the
    model; ``file_metadata`` is every file's.
    """

    def __init__(
        self, path: Path, files: Sequence[TensorFile], places: Mapping[str, tuple[StoredTensor, _Place]]
    ) -> None:
        self.path = path
        self.shards = tuple(file.path for file in files)
        self.tensors: Mapping[str, StoredTensor] = {name: tensor for name, (tensor, _) in places.items()}
        self.metadata: Mapping[str, str] = files[0].metadata if files else {}
        self.file_metadata = {file.path: file.metadata for file in files}
        found = {name for file in files for name in file.tensors}
        self.unlisted = tuple(sorted(found - set(places)))
        self._files = files
        self._places = {name: place for name, (_, place) in places.items()}

    @property
    def folder(self) -> Path:
        """Where config.json, the tokenizer and the like lie."""
        return self.path if self.path.is_dir() else self.path.parent

    def read(self, name: str) -> Bytes:
        """All bytes of a tensor in order, flat, little-endian; mapped where it lies so in a file, else copied."""
        return self.read_rows(name, 0, self.find(name).rows)

    def read_rows(self, name: str, begin: int, end: int) -> Bytes:
        """The bytes of rows ``begin`` to ``end`` (exclusive), flat; mapped where they lie so in a file, else copied."""
        tensor, place = self.find(name), self._places[name]
        if not 0 <= begin <= end <= tensor.rows:
            raise IndexError(f"rows {begin} to {end} of tensor '{name}', which has {tensor.rows}")
        if len(place.files) == 1:
            return place.files[0].read_rows(name, begin, end)
        if place.axis == 1:
            parts = [file.read_rows(name, begin, end).reshape(end - begin, -1) for file in place.files]
            return np.concatenate(parts, axis=1).reshape(-1)
        parts, first = [], 0
        for file in place.files:
            rows = file.tensors[name].rows
            low, high = max(begin - first, 0), min(end - first, rows)
            if low < high:
                parts.append(file.read_rows(name, low, high))
            first += rows
        return np.concatenate(parts) if parts else np.empty(0, np.uint8)

    def find(self, name: str) -> StoredTensor:
        """The description of a tensor. Raises BadFileError if there is none of that name."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise BadFileError(f"{self.path}: has no tensor '{printable(name)}'; the model is incomplete")
        return tensor

    def release(self, name: str) -> None:
        """Let the system take back the memory that reading the tensor filled; it can be read again."""
        self.find(name)
        for file in self._places[name].files:
            file.release(name)

    def verify_unchanged(self) -> None:
        """Raise BadFileError if a file was changed in place since it was opened."""
        for file in self._files:
            file.file.verify_unchanged()

    def close(self) -> None:
        """Let go of all mappings."""
        for file in self._files:
            file.close()

    def __enter__(self) -> TensorFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_tensors(path: str | Path, stem: str = "model") -> TensorFolder:
    """Open a .safetensors, .bin or .pth file, an index, or a folder of them, Hugging Face's or Meta's.

    ``stem`` begins the names of the .safetensors files sought in a folder. Raises BadFileError where a file is
    damaged or missing, UsageError where there is no model.
    """
    path = Path(path)
    if not path.is_dir():
        if path.name.endswith(".index.json"):
            return _open_index(path.parent, path)
        return _open_files(path, [path], _open_file)
    candidates = [
        (f"{stem}.safetensors", _single),
        (f"{stem}.safetensors.index.json", _open_index),
        ("pytorch_model.bin", _single),
        ("pytorch_model.bin.index.json", _open_index),
        ("consolidated.safetensors", _single),  # Mistral's, with Meta's names
    ]
    for name, opener in candidates:
        if (path / name).is_file():
            return opener(path, path / name)
    parts = sorted(entry for entry in path.iterdir() if _META_FILE.fullmatch(entry.name))
    if parts:
        return _open_meta(path, parts)
    adapter = (path / "adapter_model.safetensors").is_file() or (path / "adapter_model.bin").is_file()
    found = "holds a LoRA adapter only; merge it into its base first" if adapter else "holds none"
    raise UsageError(
        f"{path}: expected a model: {stem}.safetensors, pytorch_model.bin, an index of either, or consolidated.00.pth; "
        f"the folder {found}; check the path"
    )


def _single(folder: Path, path: Path) -> TensorFolder:
    return _open_files(folder, [path], _open_file)


def _open_file(path: Path) -> TensorFile:
    """By its first bytes: names lie."""
    probe = MappedFile(path)
    try:
        return (open_pth if is_pth(probe) else open_safetensors)(path)
    finally:
        probe.close()


def _open_files(path: Path, paths: Sequence[Path], opener: Callable[[Path], TensorFile]) -> TensorFolder:
    files = _open_all(paths, opener)
    places = {name: (tensor, _Place((file,))) for file in files for name, tensor in file.tensors.items()}
    return TensorFolder(path, files, places)


def _open_all(paths: Sequence[Path], opener: Callable[[Path], TensorFile]) -> list[TensorFile]:
    files: list[TensorFile] = []
    try:
        for path in paths:
            files.append(opener(path))
    except BaseException:
        for file in files:
            file.close()
        raise
    return files


def _open_index(folder: Path, index: Path) -> TensorFolder:
    listed = read_index(index)
    names = sorted(set(listed.values()))
    if len(names) > _MAX_SHARDS:
        raise BadFileError(f"{index}: names {len(names)} files; expected at most {_MAX_SHARDS}; fetch it again")
    for name in names:
        if not (folder / name).is_file():
            raise BadFileError(f"{folder / name}: there is no such file; {index.name} names it; fetch it too")
    files = dict(zip(names, _open_all([folder / name for name in names], _open_file)))
    try:
        for name, shard in listed.items():
            if name not in files[shard].tensors:
                raise BadFileError(
                    f"{folder / shard}: has no tensor '{printable(name)}'; {index.name} says it lies there; fetch both "
                    "again"
                )
    except BaseException:
        for file in files.values():
            file.close()
        raise
    # In the order of the files, so that each is read from front to back.
    places = {
        name: (tensor, _Place((file,)))
        for shard, file in files.items()
        for name, tensor in file.tensors.items()
        if listed.get(name) == shard
    }
    return TensorFolder(folder, list(files.values()), places)


def read_index(path: Path) -> dict[str, str]:
    """The ``weight_map`` of an index file: tensor -> file name, which never leads out of the folder."""
    again = "fetch it again"
    if path.stat().st_size > _MAX_INDEX:
        raise BadFileError(f"{path}: has {path.stat().st_size} bytes; expected at most {_MAX_INDEX}; {again}")
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=lambda pairs: _once(path, pairs))
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{path}: is no JSON; expected an index of tensors; {again}") from error
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    listed = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(listed, dict):
        raise BadFileError(f"{path}: has no weight_map; expected one, tensor to file; {again}")
    for name, shard in listed.items():
        if not isinstance(shard, str) or not is_plain_name(shard) or not shard.endswith((".safetensors", ".bin")):
            raise BadFileError(
                f"{path}: tensor '{printable(name)}' lies in '{printable(str(shard))}'; expected the plain name of a "
                f".safetensors or .bin file beside the index; {again}"
            )
    return listed


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise BadFileError(f"{path}: names '{printable(twice)}' twice; expected each name once; fetch it again")
    return value


def is_plain_name(name: str) -> bool:
    """Whether a file name stays in its folder and is shown as it is written."""
    return name.isprintable() and not name.startswith(".") and "/" not in name and "\\" not in name and len(name) < 256


def _open_meta(folder: Path, paths: Sequence[Path]) -> TensorFolder:
    """Meta's parts: every matrix is split over all files, norms are in each."""
    numbers = [int(path.name.split(".")[1]) for path in paths]
    if numbers != list(range(len(paths))):
        missing = next(number for number in range(len(paths) + 1) if number not in numbers)
        raise BadFileError(f"{folder / f'consolidated.{missing:02}.pth'}: there is no such file; fetch all parts")
    files = _open_all(paths, open_pth)
    try:
        for file in files[1:]:
            if odd := set(file.tensors) ^ set(files[0].tensors):
                raise BadFileError(
                    f"{file.path}: tensor '{printable(min(odd))}' is not in all parts; expected the same names in "
                    "each; fetch them again"
                )
        places = {name: _joined(name, files) for name in files[0].tensors}
    except BaseException:
        for file in files:
            file.close()
        raise
    return TensorFolder(folder, files, places)


def _joined(name: str, files: Sequence[TensorFile]) -> tuple[StoredTensor, _Place]:
    """A tensor of Meta's made whole."""
    first = files[0].tensors[name]
    if len(files) == 1 or len(first.shape) < 2:
        return first, _Place((files[0],))
    axis = _meta_axis(name, files[0])
    parts = [file.tensors[name] for file in files]
    for part in parts:
        if part.dtype is not first.dtype or len(part.shape) != 2 or part.shape[1 - axis] != first.shape[1 - axis]:
            raise BadFileError(
                f"{part.path}: tensor '{printable(name)}' is {part.dtype.value} {list(part.shape)}; expected it to fit "
                f"to {first.dtype.value} {list(first.shape)} of {first.path.name}; fetch the parts again"
            )
    shape = list(first.shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    whole = replace(first, shape=tuple(shape), nbytes=sum(part.nbytes for part in parts), strides=None)
    return whole, _Place(tuple(files), axis)


def _meta_axis(name: str, file: TensorFile) -> int:
    if name.endswith(_META_COLUMNS):
        return 1
    if name.endswith(_META_ROWS):
        return 0
    norm = file.tensors.get("norm.weight")
    if name == _META_EMBEDDINGS and norm is not None:
        # Llama 1 and 2 split the embeddings by columns, Llama 3 by rows: whole rows have the model's width.
        return 0 if file.tensors[name].shape[-1] == norm.shape[0] else 1
    raise BadFileError(
        f"{file.path}: tensor '{printable(name)}' is split over several files in a way that is not known; expected the "
        "names of Meta's LLaMA; use the model's Hugging Face form"
    )
