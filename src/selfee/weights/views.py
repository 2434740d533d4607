"""A model seen under other names, in another order, or with the rows of its heads in another order.

Whoever writes a file asks a view for tensors as that file wants them; nothing is copied before its turn comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from selfee.weights.checkpoint import Checkpoint, TensorInfo, Vocab


@dataclass(frozen=True)
class Seen:
    """One tensor of a view: its name there, its name in the source, and the order of its rows (None: as they are)."""

    name: str
    source: str
    order: npt.NDArray[np.intp] | None = None


class View:
    """A checkpoint over another one: ``Checkpoint`` without data of its own. Closing it closes the source."""

    def __init__(
        self,
        source: Checkpoint,
        seen: Iterable[Seen],
        *,
        metadata: Mapping[str, Any] | None = None,
        vocab: Vocab | None = None,
    ) -> None:
        self.source = source
        self._seen = {item.name: item for item in seen}
        self.path: Path = source.path
        self.size = source.size
        self.container = source.container
        self.metadata: Mapping[str, Any] = source.metadata if metadata is None else metadata
        self.vocab = source.vocab if vocab is None else vocab
        self.notes: Sequence[str] = getattr(source, "notes", ())
        self.tensors: Mapping[str, TensorInfo] = {
            item.name: replace(source.tensors[item.source], name=item.name) for item in self._seen.values()
        }

    def source_of(self, name: str) -> str:
        """The name that a tensor has in the source."""
        return self._seen[name].source

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        """The raw blocks of a tensor, rows in the view's order."""
        item = self._seen[name]
        raw = self.source.read(item.source)
        return raw if item.order is None else raw[item.order]

    def release(self, name: str, begin: int = 0, end: int | None = None) -> None:
        """See ``Checkpoint.release``."""
        item = self._seen[name]
        if item.order is None:
            self.source.release(item.source, begin, end)
        elif end is None or end >= self.tensors[name].nbytes:
            self.source.release(item.source)  # a copy was read: the source's pages are not needed part by part

    def verify_unchanged(self) -> None:
        """See ``Checkpoint.verify_unchanged``."""
        self.source.verify_unchanged()

    def close(self) -> None:
        """Close the source."""
        self.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def halves_to_neighbours(rows: int, heads: int) -> npt.NDArray[np.intp]:
    """For each row of a llama's q or k in GGUF the row it has in a Hugging Face folder.

    Hugging Face turns value i of a head with value i + n/2, GGUF, GGML and Meta turn neighbours: row 2j + s of a head
    is row s * n/2 + j there.
    """
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(-1)


def neighbours_to_halves(rows: int, heads: int) -> npt.NDArray[np.intp]:
    """The way back: for each row in a Hugging Face folder the row it has in GGUF."""
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)
