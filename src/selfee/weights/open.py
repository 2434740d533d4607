"""Open a model, whichever container it uses: a GGUF or GGML file, or the folder of a Hugging Face or Meta model."""

from __future__ import annotations

import os
from pathlib import Path

from selfee.weights import foreign, ggml, gguf
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.mapped import MappedFile


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a GGUF or GGML file, or a folder. Raises BadFileError naming file, place, what was found and what to do.

    Everything but the tensor data is read and checked; the data stays mapped until it is asked for.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, this is no error for a name too long
        from selfee.weights.huggingface.checkpoint import open_folder  # a dozen modules that files do not need

        return open_folder(path)
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
