"""Applying the deltas that were published in 2023, by the formulas of the programs that made them.

*alpaca* (Stanford Alpaca's ``weight_diff.py``; SelFee's are the same): base and delta as float32, added; new rows of
the vocabulary start as the mean of the old ones. *fastchat* (Vicuna): base and delta as float16, added in float16; new
rows start as zeros. Neither records a checksum, so a wrong base of the right shape cannot be noticed.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError, UsageError
from selfee.weights.delta.codec import can_convert, chunks, convert, from_f32, to_f32
from selfee.weights.delta.file import Described, Side, is_own, open_packed
from selfee.weights.delta.make import DeltaReport
from selfee.weights.delta.streams import read_as, read_range, releasing
from selfee.weights.folders import replacing_folder
from selfee.weights.huggingface.companions import read_companions
from selfee.weights.huggingface.safetensors import TensorSource
from selfee.weights.huggingface.shard_writer import MAX_SHARD_BYTES, plan_shards, write_shard_files
from selfee.weights.huggingface.shards import TensorFolder
from selfee.weights.huggingface.stored import Bytes, DType, StoredTensor
from selfee.weights.printable import printable
from selfee.weights.writing import OnBytes

_VOCABULARY = ("embed_tokens.weight", "lm_head.weight")
# Older models store the angles of the rotation, newer ones compute them: a model is whole without.
_COMPUTED = ("rotary_emb.inv_freq", "attention.bias", "attention.masked_bias")
_INDEX = "model.safetensors.index.json"

Floats = npt.NDArray[np.float32]


class DeltaKind(enum.Enum):
    """By which formula a delta leads to its target."""

    EXACT = "exact"
    ALPACA = "alpaca"
    FASTCHAT = "fastchat"


def find_kind(path: Path) -> tuple[DeltaKind, str]:
    """What kind of delta lies there, and by which sign. Raises UsageError where the type of numbers does not tell."""
    with open_packed(path) as opened:
        if is_own(opened):
            return DeltaKind.EXACT, "marked in its metadata"
        found = sorted(
            {tensor.dtype.value for tensor in opened.tensors.values() if not tensor.name.endswith(_COMPUTED)}
        )
    if found == [DType.F32.value]:
        return DeltaKind.ALPACA, "its numbers are float32"
    if found == [DType.F16.value]:
        return DeltaKind.FASTCHAT, "its numbers are float16"
    raise UsageError(
        f"{path}: a delta of {' and '.join(found) or 'no'} numbers; expected float32 (as Alpaca's) or float16 (as "
        "FastChat's) to tell its kind; say --kind alpaca or --kind fastchat"
    )


def apply_published(
    base: TensorFolder,
    delta: TensorFolder,
    out: Path,
    kind: DeltaKind,
    *,
    dtype: DType | None = None,
    force: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_bytes: OnBytes | None = None,
) -> DeltaReport:
    """Write the model that follows from ``base`` and a published ``delta`` into the folder ``out``.

    ``dtype`` is that of the result; None is the formula's own, F32 for alpaca and F16 for fastchat. Raises
    BadFileError if the two do not belong together, ResourceError if the disk is full.
    """
    names = _names(base, delta)
    adder = _Adder(base, delta, kind, dtype or (DType.F32 if kind is DeltaKind.ALPACA else DType.F16))
    grown = tuple(name for name in names if base.tensors[name].rows < delta.tensors[name].rows)
    sources = [
        TensorSource(name, delta.tensors[name].shape, adder.dtype, partial(adder.tensor, name)) for name in names
    ]
    small = _small_files(base, delta, bool(grown))
    needed = sum(source.nbytes for source in sources) + sum(map(len, small.values()))
    with replacing_folder(out, needed=needed, force=force) as part:
        write_shard_files(part, plan_shards(sources, max_shard_bytes), on_bytes)
        for name, content in small.items():
            (part / name).write_bytes(content)
        for model in (base, delta):
            model.verify_unchanged()
    target = Side({name: Described(adder.dtype, delta.tensors[name].shape, adder.made[name]) for name in names}, (), {})
    return DeltaReport(
        kind=kind.value,
        base_bytes=sum(base.tensors[name].nbytes for name in names),
        target_bytes=target.nbytes,
        delta_bytes=sum(delta.tensors[name].nbytes for name in names),
        base_sha256=None,
        target_sha256=target.sha256,
        tensors=len(names),
        grown=grown,
        dropped=tuple(sorted((base.tensors.keys() | delta.tensors.keys()) - set(names))),
    )


def _names(base: TensorFolder, delta: TensorFolder) -> list[str]:
    """The tensors of the result, in the delta's order."""
    expected = "expected the model the delta was made from, in Hugging Face's form; nothing was written"
    for name in sorted(base.tensors.keys() ^ delta.tensors.keys()):
        if not name.endswith(_COMPUTED):
            lacking, having = (base, delta) if name in delta.tensors else (delta, base)
            raise BadFileError(f"{lacking.path}: lacks tensor '{printable(name)}' of {having.path}; {expected}")
    names = [name for name in delta.tensors if name in base.tensors]
    for name in names:
        ours, theirs = base.tensors[name], delta.tensors[name]
        for tensor in (ours, theirs):
            if not can_convert(tensor.dtype, DType.F32):
                raise BadFileError(
                    f"{tensor.path}: tensor '{printable(name)}' is stored as {tensor.dtype.value}; expected F32, F16 "
                    "or BF16; a published delta has nothing else"
                )
        may_grow = name.endswith(_VOCABULARY) and len(ours.shape) == 2 and ours.rows > 0
        same_row = len(ours.shape) == len(theirs.shape) and ours.shape[1:] == theirs.shape[1:]
        if ours.shape != theirs.shape and not (may_grow and same_row and ours.rows < theirs.rows):
            raise BadFileError(
                f"{base.path}: tensor '{printable(name)}' is {list(ours.shape)}, in the delta {list(theirs.shape)}; "
                f"{expected}"
            )
    return names


def _small_files(base: TensorFolder, delta: TensorFolder, has_grown: bool) -> dict[str, bytes]:
    """The delta's; what it lacks is the base's unless the vocabulary differs."""
    small = read_companions(delta)
    if not has_grown:
        small = read_companions(base) | small
    small.pop(_INDEX, None)
    return small


@dataclass(frozen=True)
class _Adder:
    """Makes one tensor of the result after another."""

    base: TensorFolder
    delta: TensorFolder
    kind: DeltaKind
    dtype: DType
    made: dict[str, str] = field(default_factory=dict)  # name -> SHA-256

    def tensor(self, name: str) -> Iterator[Bytes]:
        """The bytes of a tensor."""
        delta = self.delta.tensors[name]
        add = (
            partial(self._alpaca, name, self._new_row(name)) if self.kind is DeltaKind.ALPACA else self._fastchat(name)
        )
        digest = hashlib.sha256()
        parts = (add(begin, end) for begin, end in chunks(delta.nbytes))
        for part in releasing(parts, name, self.base, self.delta):
            digest.update(part.data)
            yield part
        for model in (self.base, self.delta):
            model.release(name)
        self.made[name] = digest.hexdigest()

    def _alpaca(self, name: str, new_row: Floats | None, begin: int, end: int) -> Bytes:
        base, delta = self.base.tensors[name], self.delta.tensors[name]
        size = delta.dtype.nbytes
        difference = to_f32(read_range(self.delta, name, begin, end), delta.dtype)
        values = read_as(self.base, base, DType.F32, begin // size * 4, end // size * 4).view("<f4")
        if new_row is not None and (first := max(begin // size, base.rows * new_row.size)) < end // size:
            values = values.copy()
            values[first - begin // size :] = new_row[np.arange(first, end // size) % new_row.size]
        with np.errstate(over="ignore", invalid="ignore"):
            return from_f32(values + difference, self.dtype)

    def _new_row(self, name: str) -> Floats | None:
        """What a row beyond the base's starts as: the mean of the base's rows."""
        base = self.base.tensors[name]
        if base.rows == self.delta.tensors[name].rows:
            return None
        row = base.shape[1]
        total = np.zeros(row, np.float64)
        step = max(1, (1 << 20) // row)
        for begin in range(0, base.rows, step):
            data = self.base.read_rows(name, begin, min(begin + step, base.rows))
            total += to_f32(data, base.dtype).reshape(-1, row).sum(axis=0, dtype=np.float64)
        return (total / base.rows).astype(np.float32)

    def _fastchat(self, name: str) -> Callable[[int, int], Bytes]:
        base, delta = self.base.tensors[name], self.delta.tensors[name]

        def add(begin: int, end: int) -> Bytes:
            low, high = begin // delta.dtype.nbytes * 2, end // delta.dtype.nbytes * 2
            ours, theirs = (
                self._half(model, tensor, low, high) for model, tensor in ((self.base, base), (self.delta, delta))
            )
            with np.errstate(over="ignore", invalid="ignore"):
                return convert((ours + theirs).view(np.uint8), DType.F16, self.dtype)

        return add

    def _half(self, model: TensorFolder, tensor: StoredTensor, begin: int, end: int) -> npt.NDArray[np.float16]:
        return read_as(model, tensor, DType.F16, begin, end).view("<f2")
