"""Whoever a model is compared with: another model, computed alongside, or a file of saved log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from selfee.errors import UsageError
from selfee.eval.chunks import Chunks, Definition, Text, cut, tokenizer_of
from selfee.eval.logits_file import LogitsFile, is_logits_file
from selfee.eval.models import open_measured
from selfee.eval.perplexity import Evaluator, blocks, log_softmax
from selfee.weights.mapped import MappedFile

LogProbabilities = npt.NDArray[np.floating]


class Base(Protocol):
    """Whoever knows the log-probabilities to compare with."""

    vocabulary: int
    tokens: npt.NDArray[np.int32]  # [chunks, n_ctx] of the text, as the base has them

    def slices(self, chunks: Chunks, index: int) -> Iterator[LogProbabilities]:
        """ln p of a chunk's scored positions: [rows, vocabulary], in order, in any portions."""
        ...


class BaseModel:
    """A base that is computed alongside: the whole distribution counts."""

    def __init__(self, evaluator: Evaluator, vocabulary: int, tokens: npt.NDArray[np.int32]) -> None:
        self._evaluator = evaluator
        self.vocabulary = vocabulary
        self.tokens = tokens

    def slices(self, chunks: Chunks, index: int) -> Iterator[LogProbabilities]:
        """See ``Base.slices``."""
        for logits, _ in self._evaluator.slices(chunks, index):
            for part in blocks(*logits.shape):
                yield log_softmax(logits[part])


class SavedBase:
    """A base read from a file of log-probabilities: tokens below e^-16 do not count, as in llama.cpp."""

    def __init__(self, file: LogitsFile) -> None:
        self._file = file
        self.vocabulary = file.vocabulary
        self.tokens = file.tokens

    def slices(self, chunks: Chunks, index: int) -> Iterator[LogProbabilities]:
        """See ``Base.slices``."""
        for part in blocks(chunks.scored, self.vocabulary):
            yield self._file.log_probabilities(index, part.start, part.stop)


def saved_context(path: str | Path) -> int | None:
    """Tokens of a chunk in a file of log-probabilities; None for any other file."""
    file = MappedFile(path)
    try:
        if not is_logits_file(file):
            return None
    finally:
        file.close()
    saved = LogitsFile(path)
    try:
        return int(saved.tokens.shape[1])
    finally:
        saved.close()


@contextmanager
def open_base(
    path: str | Path, text: Text, n_ctx: int, limit: int | None, definition: Definition, threads: int | None
) -> Iterator[Base]:
    """Open a model, or a file of log-probabilities, to compare others with on a text.

    Raises UsageError where such a file was saved with other chunks, and as opening a model does.
    """
    if (saved := saved_context(path)) is None:
        with open_measured(path, n_ctx, threads) as measured:
            chunks = cut(text, tokenizer_of(measured.model.checkpoint.vocab, definition), n_ctx, limit, definition)
            vocabulary = measured.model.config.vocabulary
            evaluator = Evaluator(measured.model.new_session(), vocabulary, str(path))
            yield BaseModel(evaluator, vocabulary, chunks.tokens)
        return
    if saved != n_ctx or definition.first(n_ctx) != Definition.CURRENT.first(n_ctx):
        raise UsageError(
            f"{path}: was saved with chunks of {saved} tokens, scored from the middle; expected the same of this run; "
            f"use -c {saved}, or save it again"
        )
    file = LogitsFile(path)
    try:
        yield SavedBase(file)
    finally:
        file.close()


def require_same_text(base: Base, chunks: Chunks, model: str, name: str) -> None:
    """Raise UsageError unless a model has the same tokens as its base: else their predictions cannot be compared."""
    count = len(chunks)
    if base.tokens[:count].shape != chunks.tokens.shape or not np.array_equal(base.tokens[:count], chunks.tokens):
        raise UsageError(
            f"{name}: the base has other tokens for this text than {model}; expected the same text and vocabulary; "
            "name the model that it was made of, or save its log-probabilities again with this text"
        )
