"""Writing GGML files: ``ggjt`` v3 for old programs, the earlier containers for tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from selfee.errors import UsageError
from selfee.weights.ggml import ALIGNMENT, MAGICS, VERSIONS, Hyper
from selfee.weights.gguf import padded
from selfee.weights.names import gguf_to_ggml
from selfee.weights.writing import OnBytes, Sized, TensorToWrite, replacing, write_parts


def write_ggml(
    path: str | Path,
    hyper: Hyper,
    tokens: Sequence[bytes],
    scores: Sequence[float],
    tensors: Sequence[TensorToWrite],
    *,
    family: str = "ggjt",
    version: int = 3,
    on_bytes: OnBytes | None = None,
) -> None:
    """Write a GGML file; it appears complete or not at all. Tensors may have GGUF or GGML names.

    ``on_bytes`` hears of each part of tensor data written. ``family`` is "ggjt", "ggmf" or "ggml" (without version and
    scores). Raises UsageError if there is no such container or the vocabulary does not have ``hyper.n_vocab`` entries.
    """
    if version not in VERSIONS.get(family, ()):
        raise UsageError(f"{family} version {version}: there is no such container; use ggjt version 3")
    if not len(tokens) == len(scores) == hyper.n_vocab:
        raise UsageError(f"{path}: {len(tokens)} tokens and {len(scores)} scores; the model has {hyper.n_vocab}")
    magic = next(magic for magic, name in MAGICS.items() if name == family)
    with replacing(Path(path), needed=ggml_size(tokens, tensors, family=family)) as file:
        file.write(magic)
        if family != "ggml":
            file.write(struct.pack("<I", version))
        file.write(struct.pack("<7I", *astuple(hyper)))
        for token, score in zip(tokens, scores, strict=True):
            file.write(struct.pack("<I", len(token)) + token)
            if family != "ggml":
                file.write(struct.pack("<f", score))
        for tensor in tensors:
            name = (gguf_to_ggml(tensor.name) or tensor.name).encode()
            sizes = tuple(reversed(tensor.shape))
            file.write(struct.pack(f"<{3 + len(sizes)}I", len(sizes), len(name), tensor.type, *sizes) + name)
            if family == "ggjt":
                file.write(bytes(-file.tell() % ALIGNMENT))
            write_parts(file, tensor, on_bytes)


def ggml_size(tokens: Sequence[bytes], tensors: Sequence[Sized], *, family: str = "ggjt") -> int:
    """The exact size in bytes of the file that ``write_ggml`` would write; no tensor data is made."""
    has_scores = family != "ggml"
    size = (36 if has_scores else 32) + sum((8 if has_scores else 4) + len(token) for token in tokens)
    for tensor in tensors:
        size += 12 + 4 * len(tensor.shape) + len((gguf_to_ggml(tensor.name) or tensor.name).encode())
        size = padded(size, ALIGNMENT) if family == "ggjt" else size
        size += tensor.nbytes
    return size
