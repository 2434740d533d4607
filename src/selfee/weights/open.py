"""Open a model file, whichever container it uses."""

from __future__ import annotations

from pathlib import Path

from selfee.weights import foreign, ggml, gguf
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.mapped import MappedFile


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a GGUF or GGML file. Raises BadFileError naming file, offset, what was found and what to do.

    Everything but the tensor data is read and checked; the data stays mapped until it is asked for.
    """
    file = MappedFile(path)
    try:
        magic = file.data[:4]
        if magic == gguf.MAGIC:
            return gguf.read_gguf(file)
        if magic in ggml.MAGICS:
            return ggml.read_ggml(file)
        raise foreign.explain(file)
    except BaseException:
        file.close()
        raise
