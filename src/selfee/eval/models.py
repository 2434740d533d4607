"""A model file opened to be measured, with the identity that its results are filed under."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

from selfee.engines.memory import available_memory, has_room_to_pack, require_memory
from selfee.errors import BadFileError
from selfee.llama.cells import CacheType
from selfee.llama.config import LlamaConfig
from selfee.llama.memory import memory_needed
from selfee.llama.model import Model
from selfee.llama.tokenizer import Tokenizer, load_tokenizer
from selfee.weights.open import open_checkpoint


@dataclass(frozen=True)
class FileIdentity:
    """Which bytes a file held when it was looked at."""

    name: str
    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: str | Path) -> FileIdentity:
        """Read the whole file. Raises BadFileError where it cannot be read."""
        path = Path(path)
        if path.is_dir():
            raise BadFileError(f"{path}: is a folder; expected a file to measure; make one with selfee convert")
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            status = path.stat()
        except OSError as error:
            raise BadFileError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        return cls(path.name, status.st_size, status.st_mtime_ns, digest)


@dataclass(frozen=True)
class MeasuredModel:
    """A model ready to compute, and its tokenizer."""

    model: Model
    tokenizer: Tokenizer

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.model.checkpoint.path

    @property
    def bits_per_weight(self) -> float:
        """Bits stored for each value, all tensors together."""
        tensors = self.model.checkpoint.tensors.values()
        return 8 * sum(tensor.nbytes for tensor in tensors) / sum(prod(tensor.shape) for tensor in tensors)


@contextmanager
def open_measured(
    path: str | Path, n_ctx: int, threads: int | None = None, cache_type: CacheType = "f16"
) -> Iterator[MeasuredModel]:
    """Open a model for chunks of ``n_ctx`` tokens.

    Weights are copied into the kernels' faster layout where memory allows. Raises BadFileError,
    UnsupportedFileError, UsageError; ResourceError where the model does not fit into memory.
    """
    with open_checkpoint(path) as checkpoint:
        config, have = LlamaConfig.from_checkpoint(checkpoint), available_memory()
        need = memory_needed(checkpoint, config, n_ctx, cache_type=cache_type)
        require_memory(str(checkpoint.path), need, have, "use a smaller file or a smaller context (-c)")
        tokenizer = load_tokenizer(checkpoint.vocab)
        with Model.load(
            checkpoint,
            context_length=n_ctx,
            threads=threads,
            packed=has_room_to_pack(need, have),
            cache_type=cache_type,
        ) as model:
            yield MeasuredModel(model, tokenizer)
