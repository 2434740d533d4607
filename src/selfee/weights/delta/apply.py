"""Applying our own deltas: the target from the base, or the base from the target, checked before it appears."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from selfee.errors import BadFileError, UsageError
from selfee.weights.delta.codec import chunks, unpack
from selfee.weights.delta.file import BASE_FILE, DeltaFile, Side, way_back_from
from selfee.weights.delta.make import DeltaReport, describe_delta
from selfee.weights.delta.streams import RELEASE_EVERY, Pool, checksum, read_as
from selfee.weights.folders import replacing_folder
from selfee.weights.huggingface.safetensors import TensorSource
from selfee.weights.huggingface.shard_writer import Shard, plan_shards, write_shard_files
from selfee.weights.huggingface.shards import TensorFolder
from selfee.weights.huggingface.stored import Bytes, DType
from selfee.weights.printable import printable
from selfee.weights.writing import OnBytes


def apply_delta(
    source: TensorFolder,
    delta: DeltaFile,
    out: Path,
    *,
    reverse: bool = False,
    force: bool = False,
    threads: int | None = None,
    on_bytes: OnBytes | None = None,
) -> DeltaReport:
    """Write the target that follows from the base ``source``; with ``reverse`` the base from the target ``source``.

    ``on_bytes`` is told of the bytes written. Raises BadFileError if ``source`` is not the model the delta was made
    from or the delta is damaged: then nothing appears under ``out``. UsageError if the delta does not lead back.
    """
    if reverse and not delta.is_reversible:
        raise UsageError(f"{delta.packed.path}: was made with --no-reverse; expected the way back in it; make it again")
    given, wanted = (delta.target, delta.base) if reverse else (delta.base, delta.target)
    _require_same(source, given, "target" if reverse else "base")
    small = _small_files(delta, wanted, reverse)
    with Pool(threads) as pool:
        worker = _Applier(source, delta, pool, reverse)
        sources = [
            TensorSource(name, tensor.shape, tensor.dtype, partial(worker.tensor, name))
            for name, tensor in wanted.tensors.items()
        ]
        shards = _shards(sources, wanted)
        needed = wanted.nbytes + sum(map(len, small.values()))
        with replacing_folder(out, needed=needed, force=force) as part:
            # What the target lost is of no use for the other direction, but the base is the right one or it is not.
            for name in given.tensors.keys() - wanted.tensors.keys():
                worker.require_checksum(name)
            write_shard_files(part, shards, on_bytes)
            for name, content in small.items():
                (part / name).write_bytes(content)
            source.verify_unchanged()
            delta.packed.verify_unchanged()
    return describe_delta(delta)


def _require_same(source: TensorFolder, given: Side, what: str) -> None:
    """Raise BadFileError unless a model has the names, types and shapes that a delta was made with."""
    expected = f"expected the {what} that the delta was made with; nothing was written"
    for name in sorted(given.tensors.keys() ^ source.tensors.keys()):
        has = "lacks" if name in given.tensors else "has"
        raise BadFileError(
            f"{source.path}: {has} tensor '{printable(name)}', unlike the {what} of the delta; {expected}"
        )
    for name, tensor in source.tensors.items():
        known = given.tensors[name]
        if not known.matches(tensor):
            raise BadFileError(
                f"{source.path}: tensor '{printable(name)}' is {tensor.dtype.value} {list(tensor.shape)}, in the "
                f"{what} of the delta {known.dtype.value} {list(known.shape)}; {expected}"
            )


def _small_files(delta: DeltaFile, wanted: Side, reverse: bool) -> dict[str, bytes]:
    """The small files of the result, out of the delta's folder."""
    found = {}
    for name, sha256 in wanted.small_files.items():
        is_own = reverse and delta.target.small_files.get(name) != sha256
        path = delta.packed.folder / (f"{BASE_FILE}{name}" if is_own else name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadFileError(
                f"{path}: cannot be read ({error.strerror}); the delta needs it; fetch it too"
            ) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BadFileError(f"{path}: has another checksum than recorded; the delta is damaged; fetch it again")
        found[name] = content
    return found


def _shards(sources: list[TensorSource], wanted: Side) -> list[Shard]:
    """The files of the result: those the tensors lay in when the delta was made, if they were of this kind."""
    names = [name for name, _ in wanted.files]
    if not names or len(set(names)) < len(names) or any(not name.endswith(".safetensors") for name in names):
        return plan_shards(sources)
    if len(names) == 1:
        names = ["model.safetensors"]
    groups: list[list[TensorSource]] = [[] for _ in names]
    for source in sources:
        groups[wanted.tensors[source.name].file].append(source)
    return [Shard(name, group, metadata) for name, group, (_, metadata) in zip(names, groups, wanted.files)]


@dataclass(frozen=True)
class _Applier:
    """Makes one tensor after another, and believes none before its checksum agrees."""

    source: TensorFolder
    delta: DeltaFile
    pool: Pool
    reverse: bool

    def require_checksum(self, name: str) -> None:
        """Raise BadFileError unless a tensor of the source has the recorded checksum."""
        given = self.delta.target if self.reverse else self.delta.base
        if checksum(self.source, name) != given.tensors[name].sha256:
            what = "target" if self.reverse else "base"
            raise BadFileError(
                f"{self.source.path}: tensor '{printable(name)}' has other numbers than the {what} of the delta "
                f"{self.delta.packed.path}; expected the very model it was made with; nothing was written"
            )

    def tensor(self, name: str) -> Iterator[Bytes]:
        """The bytes of a tensor of the result."""
        wanted = (self.delta.base if self.reverse else self.delta.target).tensors[name]
        if name in self.source.tensors:
            self.require_checksum(name)
        digest = hashlib.sha256()
        for count, part in enumerate(self._backwards(name) if self.reverse else self._forwards(name)):
            digest.update(part.data)
            yield part
            if count % RELEASE_EVERY == RELEASE_EVERY - 1:
                self._release(name)
        self._release(name)
        if digest.hexdigest() != wanted.sha256:
            raise self._damaged(name, "what came out has another checksum than recorded")

    def _release(self, name: str) -> None:
        if name in self.source.tensors:
            self.source.release(name)
        for piece in (f"target:{name}", f"base:{name}"):
            if piece in self.delta.packed.tensors:
                self.delta.packed.release(piece)

    def _forwards(self, name: str) -> Iterator[Bytes]:
        target = self.delta.target.tensors[name]
        reference = partial(read_as, self.source, self.source.tensors.get(name), target.dtype)
        return self._unpacked(f"target:{name}", reference, target.dtype, 0, target.nbytes)

    def _backwards(self, name: str) -> Iterator[Bytes]:
        base, target = self.delta.base.tensors[name], self.delta.target.tensors.get(name)
        begin = way_back_from(base, target)
        if target is not None and begin != 0:
            reference = partial(read_as, self.source, self.source.tensors[name], target.dtype)
            left = base.nbytes
            # Rows beyond the base were packed against nothing: they end the tensor and are left away.
            for part in self._unpacked(f"target:{name}", reference, target.dtype, 0, target.nbytes, backwards=True):
                yield part[:left]
                left -= min(left, part.nbytes)
        if begin is not None:
            reference = partial(read_as, self.source, self.source.tensors.get(name), base.dtype)
            yield from self._unpacked(f"base:{name}", reference, base.dtype, begin, base.nbytes)

    def _unpacked(
        self,
        piece: str,
        reference: Callable[[int, int], Bytes],
        dtype: DType,
        begin: int,
        end: int,
        *,
        backwards: bool = False,
    ) -> Iterator[Bytes]:
        packed = self.delta.packed.read(piece)

        def places() -> Iterator[tuple[int, int, int]]:
            at = 0
            for low, high in chunks(end - begin):
                yield at, begin + low, begin + high
                at = _end_of(packed, at, dtype)
            if at != packed.nbytes:
                raise ValueError("goes on after its end")

        def one(place: tuple[int, int, int]) -> Bytes:
            at, low, high = place
            return unpack(packed, at, reference(low, high), dtype, backwards=backwards)[0]

        try:
            yield from self.pool.map(one, places())
        except ValueError as error:
            raise self._damaged(piece.split(":", 1)[1], str(error)) from error

    def _damaged(self, name: str, found: str) -> BadFileError:
        return BadFileError(
            f"{self.delta.packed.path}: difference of tensor '{printable(name)}': {found}; the delta is damaged; fetch "
            "or make it again; nothing was written"
        )


def _end_of(packed: Bytes, at: int, dtype: DType) -> int:
    """Where the piece that begins at ``at`` ends, by the lengths of its groups."""
    for _ in range(dtype.nbytes):
        at += 4 + int.from_bytes(packed[at : at + 4].tobytes(), "little")
    return at
