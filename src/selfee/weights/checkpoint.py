"""One view of a model file, whichever container it uses; ``weights/open.py`` makes one.

Tensor and metadata names are GGUF's (``blk.0.attn_q.weight``, ``llama.block_count``) also for GGML files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from selfee.weights.quants import QuantType


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape and type of one tensor. ``shape`` is NumPy's order (rows first): a matrix is (rows, columns)."""

    name: str
    shape: tuple[int, ...]
    type: QuantType
    offset: int  # of the first byte in the file
    nbytes: int


@dataclass(frozen=True)
class Vocab:
    """The vocabulary of a model: ids are indices into ``tokens``."""

    model: str  # "llama" = SentencePiece-style BPE by scores, "gpt2" = byte-level BPE by merges
    pre: str  # pre-tokenizer name of byte-level BPE ("default" where the file names none)
    tokens: Sequence[bytes]  # GGUF: UTF-8 of the piece as stored; GGML: raw bytes of the piece as stored
    scores: Sequence[float] | None  # one per token, model "llama"
    types: Sequence[int] | None  # 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    merges: Sequence[str]  # "left right", best first, model "gpt2"
    bos: int | None
    eos: int | None
    unknown: int | None
    padding: int | None
    eot: int | None  # end of turn, where it differs from eos
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    chat_template: str | None
    raw_pieces: bool  # True for GGML files: plain text with spaces, byte tokens are the single raw byte (ids 3..258)


class Checkpoint(Protocol):
    """A model file, memory-mapped. Use as a context manager or call ``close``."""

    path: Path
    size: int  # of the file in bytes
    container: str  # "gguf v3", "ggjt v3", "ggml", ...
    metadata: Mapping[str, Any]  # GGUF keys, also for GGML files (filled from the hyper-parameters)
    vocab: Vocab
    tensors: Mapping[str, TensorInfo]

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        """The raw blocks of a tensor: a read-only memory-mapped uint8 array of shape (rows, bytes per row)."""
        ...

    def release(self, name: str, begin: int = 0, end: int | None = None) -> None:
        """Let the system take back the memory behind bytes ``begin`` to ``end`` (None: the end) of a tensor."""
        ...

    def verify_unchanged(self) -> None:
        """Raise BadFileError if the file was changed in place since it was opened; call before a piece of work."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
