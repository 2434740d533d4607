"""Importance matrices computed: what flows into each weight matrix while a model reads a text.

The text is cut into chunks as for perplexity; every token of a chunk counts. Sums over a chunk are made in double
precision and added to float32 totals, which is what the file holds: going on from a file gives the same bits as never
having stopped.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from selfee import __version__
from selfee.errors import BadFileError, UsageError
from selfee.eval.chunks import Chunks, Text
from selfee.eval.models import FileIdentity
from selfee.llama.importance import InputSquares
from selfee.llama.model import Model
from selfee.weights.quantization.imatrix import Importance, InputSums

OUTPUT = "output.weight"
_MODEL, _TEXT, _VERSION = "selfee.imatrix.model_sha256", "selfee.imatrix.text_sha256", "selfee.version"


class Collector:
    """Reads chunks with a model and adds up; ``chunks`` are read so far."""

    def __init__(
        self, model: Model, identity: FileIdentity, text: Text, n_ctx: int, *, with_output: bool = False
    ) -> None:
        """``with_output``: also the output matrix, which llama.cpp leaves out unless asked."""
        self._model = model
        self._session = model.new_session()
        self._squares = InputSquares(model.config)
        self._text = text
        self._n_ctx = n_ctx
        self._notes = {_MODEL: identity.sha256, _TEXT: text.sha256, _VERSION: __version__}
        self._totals: dict[str, npt.NDArray[np.float32]] = {
            name: sums.astype(np.float32) for name, sums in self._squares.by_tensor() if name != OUTPUT or with_output
        }
        self.chunks = 0

    def go_on(self, earlier: Importance) -> None:
        """Take over what an earlier run saved. Raises UsageError where it was of another model, text or settings."""
        wrong = [
            what for what, key in (("model", _MODEL), ("text", _TEXT)) if earlier.notes.get(key) != self._notes[key]
        ]
        if earlier.chunk_size != self._n_ctx:
            wrong.append(f"context ({earlier.chunk_size} tokens)")
        if set(earlier.sums) != set(self._totals):
            wrong.append("choice of tensors")
        expected = earlier.chunks * self._n_ctx
        if not wrong and any((sums.counts != expected).any() for sums in earlier.sums.values()):
            wrong.append("number of tokens")
        if wrong:
            raise UsageError(
                f"{earlier.path}: is of another {' and another '.join(wrong)}; expected what this very command saved; "
                "choose another name, or leave --resume out to begin again"
            )
        self.chunks = earlier.chunks
        self._totals = {name: earlier.sums[name].squares[0].copy() for name in self._totals}

    def read(self, chunks: Chunks, on_chunk: Callable[[int], None] | None = None) -> None:
        """Read the chunks not read yet; may be interrupted between or within chunks, which are then not counted.

        Raises BadFileError where the model computes no numbers.
        """
        for index in range(self.chunks, len(chunks)):
            self._squares.clear()
            self._session.truncate(0)
            self._session.forward(chunks.evaluated(index).tolist(), "none", squares=self._squares)
            if not np.isfinite(self._squares.sums).all():
                raise BadFileError(
                    f"{self._model.checkpoint.path}: what it computes in chunk {index + 1} is not finite; expected "
                    "numbers; the weights are damaged or too large: fetch or convert the file again"
                )
            added = {name: sums.astype(np.float32) for name, sums in self._squares.by_tensor()}
            totals = {name: total + added[name] for name, total in self._totals.items()}
            self._totals, self.chunks = totals, index + 1
            if on_chunk is not None:
                on_chunk(self.chunks)

    def result(self) -> Importance:
        """What was collected, by tensor."""
        counts = np.array([self.chunks * self._n_ctx], dtype=np.float32)
        return Importance(
            {name: InputSums(total[None], counts) for name, total in self._totals.items()},
            datasets=[self._text.name],
            chunks=self.chunks,
            chunk_size=self._n_ctx,
            notes=self._notes,
        )
