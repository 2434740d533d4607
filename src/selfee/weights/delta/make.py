"""Our own deltas: what leads from a base model to one trained from it, to the bit, and back.

Both models are read side by side in pieces of a few MB, so that memory does not grow with them. Checksums of base
and target are part of the delta; nothing appears under its final name before they agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from selfee.errors import UsageError
from selfee.weights.delta.codec import CHUNK, chunks, pack
from selfee.weights.delta.file import (
    BASE_FILE,
    DeltaFile,
    DeltaWriter,
    Described,
    Side,
    fit,
    header_room,
    way_back_from,
)
from selfee.weights.delta.streams import Pool, checksum, read_as, read_range, releasing
from selfee.weights.folders import replacing_folder
from selfee.weights.huggingface.companions import read_companions
from selfee.weights.huggingface.shard_writer import MAX_SHARD_BYTES
from selfee.weights.huggingface.shards import TensorFolder
from selfee.weights.huggingface.stored import Bytes, DType, StoredTensor
from selfee.weights.printable import printable
from selfee.weights.writing import OnBytes

_UNKNOWN = "0" * 64  # a checksum that is not computed yet
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class DeltaReport:
    """What came of making or applying a delta. Sizes are bytes of tensors, without headers and small files."""

    kind: str
    base_bytes: int | None  # None where only the delta was looked at and it does not say
    target_bytes: int
    delta_bytes: int
    base_sha256: str | None  # of all tensors, see ``Side.sha256``; None where a published kind records none
    target_sha256: str | None
    tensors: int
    grown: tuple[str, ...] = ()  # tensors with more rows in the target
    added: tuple[str, ...] = ()  # in the target only
    dropped: tuple[str, ...] = ()  # in the base only
    reversible: bool = False


def make_delta(
    base: TensorFolder,
    target: TensorFolder,
    out: Path,
    *,
    reversible: bool = True,
    force: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    threads: int | None = None,
    on_bytes: OnBytes | None = None,
) -> DeltaReport:
    """Write what leads from ``base`` to ``target``, and back if ``reversible``, into the folder ``out``.

    ``on_bytes`` is told of the bytes of both models that are done. Raises UsageError if the two do not belong
    together or ``out`` may not be made, ResourceError if the disk is full.
    """
    _require_kin(base, target)
    small = [read_companions(base), read_companions(target)]
    sides = [_side(model, files) for model, files in zip((base, target), small)]
    with replacing_folder(out, force=force) as part, Pool(threads) as pool:
        writer = DeltaWriter(part, header_room(*sides), max_shard_bytes)
        try:
            maker = _Maker(base, target, writer, pool, reversible, on_bytes)
            only_base = [name for name in base.tensors if name not in target.tensors]
            checksums = {name: maker.tensor(name) for name in [*target.tensors, *only_base]}
            sides = [
                _known(side, {name: pair[at] for name, pair in checksums.items()}) for at, side in enumerate(sides)
            ]
            writer.finish(*sides)
        finally:
            writer.close()
        for name, content in small[1].items():
            (part / name).write_bytes(content)
        for name, content in small[0].items():
            if small[1].get(name) != content:
                (part / f"{BASE_FILE}{name}").write_bytes(content)
        for model in (base, target):
            model.verify_unchanged()
    return _report(writer.written, sides[0], sides[1], reversible)


def _require_kin(base: TensorFolder, target: TensorFolder) -> None:
    if not base.tensors.keys() & target.tensors.keys():
        raise UsageError(
            f"{target.path}: has no tensor of a name that {base.path} has; expected a model trained "
            "from it, in the same form (Hugging Face or Meta)"
        )
    for name, tensor in target.tensors.items():
        other = base.tensors.get(name)
        if other is not None and not fit(other.shape, tensor.shape):
            raise UsageError(
                f"{target.path}: tensor '{printable(name)}' is {list(tensor.shape)}, in {base.path} "
                f"{list(other.shape)}; expected shapes that differ in their rows at most; is this its base?"
            )


def _side(model: TensorFolder, small: dict[str, bytes]) -> Side:
    """What can be said of a model before its numbers are read."""
    if len(model.shards) == 1 or any(path.suffix != ".safetensors" for path in model.shards):
        small.pop(_INDEX, None)
    places = {path: index for index, path in enumerate(model.shards)}
    tensors = {name: replace(_plain(tensor), file=places[tensor.path]) for name, tensor in model.tensors.items()}
    files = tuple((path.name, model.file_metadata[path]) for path in model.shards)
    return Side(tensors, files, {name: hashlib.sha256(content).hexdigest() for name, content in small.items()})


def _known(side: Side, checksums: Mapping[str, str | None]) -> Side:
    """The same with checksums."""
    tensors = {name: replace(tensor, sha256=checksums[name] or _UNKNOWN) for name, tensor in side.tensors.items()}
    return replace(side, tensors=tensors)


def _report(delta_bytes: int, base: Side, target: Side, reversible: bool) -> DeltaReport:
    both = base.tensors.keys() & target.tensors.keys()
    return DeltaReport(
        kind="exact",
        base_bytes=base.nbytes,
        target_bytes=target.nbytes,
        delta_bytes=delta_bytes,
        base_sha256=base.sha256,
        target_sha256=target.sha256,
        tensors=len(target.tensors),
        grown=tuple(sorted(name for name in both if base.tensors[name].shape[:1] < target.tensors[name].shape[:1])),
        added=tuple(sorted(target.tensors.keys() - both)),
        dropped=tuple(sorted(base.tensors.keys() - both)),
        reversible=reversible,
    )


def describe_delta(delta: DeltaFile) -> DeltaReport:
    """What a delta of our own says of itself."""
    packed = sum(tensor.nbytes for tensor in delta.packed.tensors.values())
    return _report(packed, delta.base, delta.target, delta.is_reversible)


@dataclass(frozen=True)
class _Maker:
    """Packs one tensor after another."""

    base: TensorFolder
    target: TensorFolder
    writer: DeltaWriter
    pool: Pool
    reversible: bool
    on_bytes: OnBytes | None

    def tensor(self, name: str) -> tuple[str | None, str | None]:
        """Pack a tensor, both ways if need be; returns the checksums of base and target."""
        base, target = self.base.tensors.get(name), self.target.tensors.get(name)
        if target is not None:
            whole = partial(read_range, self.target, name)
            reference = partial(read_as, self.base, base, target.dtype)
            self._add(f"target:{name}", whole, reference, target.dtype, target.nbytes)
        if base is not None and self.reversible:
            begin = way_back_from(_plain(base), None if target is None else _plain(target))
            if begin is not None:
                whole = partial(read_range, self.base, name)
                reference = partial(read_as, self.target, target, base.dtype)
                self._add(f"base:{name}", whole, reference, base.dtype, base.nbytes, begin)
        found = [
            None if tensor is None else checksum(model, name, self.on_bytes)
            for model, tensor in ((self.base, base), (self.target, target))
        ]
        return found[0], found[1]

    def _add(
        self,
        piece: str,
        whole: Callable[[int, int], Bytes],
        reference: Callable[[int, int], Bytes],
        dtype: DType,
        nbytes: int,
        begin: int = 0,
    ) -> None:
        def one(span: tuple[int, int]) -> bytes:
            low, high = begin + span[0], begin + span[1]
            return pack(whole(low, high), reference(low, high), dtype)

        # Every group has a length of 4 bytes before it and is never longer than it was.
        largest = nbytes + 4 * dtype.nbytes * (1 + nbytes // CHUNK)
        name = piece.split(":", 1)[1]
        parts = self.pool.map(one, chunks(nbytes - begin))
        self.writer.add(piece, largest, releasing(parts, name, self.base, self.target))


def _plain(tensor: StoredTensor) -> Described:
    return Described(tensor.dtype, tensor.shape, _UNKNOWN)
