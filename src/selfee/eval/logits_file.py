"""Files of a base model's log-probabilities, in llama.cpp's form (``llama-perplexity --kl-divergence-base``).

Layout, little-endian: ``_logits_``, u32 n_ctx, i32 vocabulary, i32 chunks, chunks * n_ctx i32 tokens; then for each
scored position (n_ctx/2 to n_ctx-2 of each chunk) a row of u16: two float32, scale and minimum, then one code for each
token and one more where the vocabulary is odd. ln p = scale * code + minimum; what is more than 16 below the likeliest
token has code 0, and probabilities below e^-16 count as none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError, UsageError
from selfee.eval.chunks import SMALLEST_CHUNK, Chunks, Definition, Tokens, chunks_of
from selfee.eval.perplexity import Logits, blocks
from selfee.llama.tokenizer import Tokenizer
from selfee.weights.mapped import AGAIN, MappedFile
from selfee.weights.writing import replacing

MAGIC = b"_logits_"
_HEADER = struct.Struct("<Iii")
_DEPTH = np.float32(16)  # nats below the likeliest token that codes reach
_CODES = np.float32(65535)
_LARGEST_SCALE, _SMALLEST_MINIMUM = 1e-3, -100  # twice what 16 nats need: huge logits round in large steps
_LARGEST = 1 << 20  # tokens of a chunk; also more than any vocabulary's

Codes = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]


def row_codes(vocabulary: int) -> int:
    """u16 values of a row."""
    return 2 * ((vocabulary + 1) // 2) + 4


def encode_rows(logits: Logits) -> Codes:
    """Logits [rows, vocabulary] as the rows of a file, step by step as llama.cpp does it in float32."""
    rows, vocabulary = logits.shape
    codes = np.zeros((rows, row_codes(vocabulary)), dtype="<u2")
    for part in blocks(rows, vocabulary):
        some = np.asarray(logits[part], dtype=np.float32)
        top = some.max(axis=1, keepdims=True)
        bottom = np.maximum(some.min(axis=1, keepdims=True), top - _DEPTH)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            total = np.exp(some - top).sum(axis=1, keepdims=True, dtype=np.float64)
            minimum = bottom - top - np.log(total).astype(np.float32)
            scale = (top - bottom) / _CODES
            steps = np.rint((np.float32(1) / scale) * (some - bottom))
        is_coded = (scale > 0) & (some > bottom)
        codes[part, :4] = np.concatenate([scale, minimum], axis=1).astype("<f4").view("<u2")
        codes[part, 4 : 4 + vocabulary] = np.where(is_coded, np.clip(steps, 0, 65535), 0)
    return codes


@contextmanager
def writing(path: str | Path, chunks: Chunks, vocabulary: int) -> Iterator[LogitsWriter]:
    """A file to which the logits of every scored position are added in order; it appears when the block ends well.

    Raises ResourceError where the disk has no room (that is asked first) or the file cannot be written, UsageError for
    chunks scored in the old way, which the form cannot say.
    """
    if chunks.first != Definition.CURRENT.first(chunks.n_ctx):
        raise UsageError(f"{path}: log-probabilities can be saved for the current definition only; leave 2023 out")
    size = len(MAGIC) + _HEADER.size + 4 * chunks.tokens.size
    size += 2 * row_codes(vocabulary) * chunks.scored * len(chunks)
    with replacing(Path(path), needed=size) as file:
        file.write(MAGIC + _HEADER.pack(chunks.n_ctx, vocabulary, len(chunks)))
        file.write(chunks.tokens.astype("<i4").tobytes())
        yield LogitsWriter(file)


class LogitsWriter:
    """Made by ``writing``."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, logits: Logits) -> None:
        """Add rows of logits [rows, vocabulary]."""
        self._file.write(encode_rows(logits).data)


class LogitsFile:
    """A file of log-probabilities, opened: ``tokens`` [chunks, n_ctx], ``vocabulary`` entries in each row."""

    def __init__(self, path: str | Path) -> None:
        """Map the file and check everything but the rows. Raises BadFileError."""
        self._file = file = MappedFile(path)
        try:
            self.path = file.path
            if not is_logits_file(file):
                raise file.bad(
                    0, f"no {MAGIC.decode()} there; expected what llama-perplexity or selfee perplexity saved"
                )
            start = len(MAGIC)
            if file.size < start + _HEADER.size:
                raise file.bad(start, f"the header is cut short; {AGAIN}")
            n_ctx, self.vocabulary, chunks = _HEADER.unpack_from(file.data, start)
            self._check_header(n_ctx, chunks)
            begin = start + _HEADER.size
            self._rows_at = begin + 4 * n_ctx * chunks
            self._scored = n_ctx - 1 - n_ctx // 2
            self._check_size(chunks)
            self.tokens: Tokens = (
                file.array(begin, 4 * n_ctx * chunks).view("<i4").reshape(chunks, n_ctx).astype(np.int32)
            )
            wrong = self.tokens[(self.tokens < 0) | (self.tokens >= self.vocabulary)]
            if wrong.size:
                raise file.bad(begin, f"token {wrong[0]} in a vocabulary of {self.vocabulary}; {AGAIN}")
        except BaseException:
            file.close()
            raise

    def _check_header(self, n_ctx: int, chunks: int) -> None:
        values = (("tokens of a chunk", n_ctx, SMALLEST_CHUNK), ("tokens of the vocabulary", self.vocabulary, 1))
        for what, value, least in (*values, ("chunks", chunks, 1)):
            if not least <= value <= _LARGEST:
                raise self._file.bad(len(MAGIC), f"{value} {what}; expected {least} to {_LARGEST}; {AGAIN}")

    def _check_size(self, chunks: int) -> None:
        expected = self._rows_at + chunks * self._scored * 2 * row_codes(self.vocabulary)
        if self._file.size != expected:
            raise BadFileError(
                f"{self.path}: {self._file.size} bytes; expected {expected} for {chunks} chunks; the file is cut short "
                "or damaged (is the program that saves it still running?)"
            )

    def chunks(self, tokenizer: Tokenizer, limit: int | None = None) -> Chunks:
        """The text it was computed on, or the first ``limit`` chunks of it, for another model to be measured on."""
        return chunks_of(self.tokens[:limit].reshape(-1), self.tokens.shape[1], tokenizer)

    def log_probabilities(self, index: int, start: int, end: int) -> Floats:
        """ln p [end - start, vocabulary] of scored positions of a chunk. Raises BadFileError for impossible numbers."""
        width = row_codes(self.vocabulary)
        self._file.verify_unchanged()
        begin = self._rows_at + 2 * width * (index * self._scored + start)
        rows = self._file.array(begin, 2 * width * (end - start)).view("<u2").reshape(-1, width)
        numbers = np.ascontiguousarray(rows[:, :4]).view("<f4")
        scales, minimums = numbers[:, 0], numbers[:, 1]
        is_possible = (scales >= 0) & (scales <= _LARGEST_SCALE) & (minimums <= 0) & (minimums >= _SMALLEST_MINIMUM)
        if not is_possible.all():  # also false for NaN
            raise self._file.bad(begin, f"a scale or minimum in chunk {index + 1} is impossible; {AGAIN}")
        codes = rows[:, 4 : 4 + self.vocabulary].astype(np.float32)
        found: Floats = numbers[:, :1] * codes + numbers[:, 1:]
        return found

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def is_logits_file(file: MappedFile) -> bool:
    """Whether a file begins as one of log-probabilities does."""
    return file.data[: len(MAGIC)] == MAGIC
