"""Writing a model folder as Hugging Face reads it: one .safetensors file, or several and an index."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selfee.errors import UsageError
from selfee.weights.folders import replacing_folder
from selfee.weights.huggingface.safetensors import TensorSource, lay_out, write_into
from selfee.weights.writing import OnBytes

MAX_SHARD_BYTES = 5_000_000_000
PT_METADATA: Mapping[str, str] = {"format": "pt"}
"""What Hugging Face's loaders want to find in a file's metadata."""


@dataclass(frozen=True)
class Shard:
    """One file to be written."""

    name: str
    tensors: Sequence[TensorSource]
    metadata: Mapping[str, str] = field(default_factory=lambda: PT_METADATA)

    @property
    def nbytes(self) -> int:
        """Bytes of tensors in it."""
        return sum(tensor.nbytes for tensor in self.tensors)


def write_shards(
    folder: Path,
    tensors: Sequence[TensorSource],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    metadata: Mapping[str, str] = PT_METADATA,
    small_files: Mapping[str, bytes] | None = None,
    force: bool = False,
    on_bytes: OnBytes | None = None,
) -> None:
    """Write a model folder that appears under its name when it is whole, tensor by tensor.

    ``small_files`` (name -> content: config.json and the like) go into it too. ``force`` replaces a folder of model
    files that is there. Raises UsageError if the folder may not be made, ResourceError if the disk is full.
    """
    shards = plan_shards(tensors, max_shard_bytes, metadata)
    needed = sum(tensor.nbytes for tensor in tensors) + sum(map(len, (small_files or {}).values()))
    with replacing_folder(folder, needed=needed, force=force) as part:
        write_shard_files(part, shards, on_bytes)
        for name, content in (small_files or {}).items():
            (part / name).write_bytes(content)


def plan_shards(
    tensors: Sequence[TensorSource], max_shard_bytes: int = MAX_SHARD_BYTES, metadata: Mapping[str, str] = PT_METADATA
) -> list[Shard]:
    """Spread tensors over files of at most ``max_shard_bytes`` in their order; a larger tensor has its own file."""
    if max_shard_bytes < 1:
        raise UsageError(f"shards of {max_shard_bytes} bytes; expected at least 1 byte; choose a larger size")
    groups: list[list[TensorSource]] = [[]]
    size = 0
    for tensor in tensors:
        if groups[-1] and size + tensor.nbytes > max_shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.nbytes
    names = shard_names(len(groups))
    return [Shard(name, group, metadata) for name, group in zip(names, groups)]


def shard_names(count: int, stem: str = "model") -> list[str]:
    """The file names of that many shards."""
    if count == 1:
        return [f"{stem}.safetensors"]
    return [f"{stem}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]


def write_shard_files(folder: Path, shards: Sequence[Shard], on_bytes: OnBytes | None = None) -> None:
    """Write the files, and the index if there are several, into a folder that nobody reads yet."""
    for shard in shards:
        header, ordered = lay_out(shard.tensors, shard.metadata)
        with (folder / shard.name).open("xb") as file:
            write_into(file, header, ordered, on_bytes)
    if len(shards) > 1:
        listed = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
        write_index(folder / "model.safetensors.index.json", listed, sum(shard.nbytes for shard in shards))


def write_index(path: Path, listed: Mapping[str, str], total: int) -> None:
    """Write which tensor lies in which file, as Hugging Face does."""
    index = {"metadata": {"total_size": total}, "weight_map": dict(listed)}
    path.write_text(json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
