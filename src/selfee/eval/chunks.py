"""A text cut into chunks of tokens, and which positions of each are scored: llama.cpp's definitions.

A chunk has ``n_ctx`` tokens and is evaluated alone; what is left of the text at the end is not used. The model's
beginning token, where its vocabulary wants one, takes the place of a chunk's first token. At position i the model
predicts token i + 1; positions from ``first`` to ``n_ctx`` - 2 are scored, so that each has some text before it.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError, UsageError
from selfee.llama.tokenizer import Tokenizer, load_tokenizer
from selfee.weights.checkpoint import Vocab

Tokens = npt.NDArray[np.int32]
SMALLEST_CHUNK = 4  # tokens; below that nothing would be scored
_LARGEST_CHUNK = 1 << 20


class Definition(enum.Enum):
    """Which positions of a chunk count.

    ``CURRENT``: the second half, from n_ctx / 2 (llama-perplexity since late 2023). ``JUNE_2023``: from
    min(512, n_ctx / 2), what llama.cpp's ``perplexity`` of that summer printed: other figures above 1,024 tokens, and
    for GGML files (it put no space before the text).
    """

    CURRENT = "current"
    JUNE_2023 = "2023"

    def first(self, n_ctx: int) -> int:
        """The first position scored."""
        return n_ctx // 2 if self is Definition.CURRENT else min(512, n_ctx // 2)


@dataclass(frozen=True, eq=False)
class Chunks:
    """The tokens of a text, [chunks, n_ctx], as the vocabulary cut them; ``bos`` begins each chunk, None = nothing."""

    tokens: Tokens
    bos: int | None
    first: int

    @property
    def n_ctx(self) -> int:
        """Tokens of a chunk."""
        return int(self.tokens.shape[1])

    @property
    def scored(self) -> int:
        """Positions scored in each chunk."""
        return self.n_ctx - 1 - self.first

    def __len__(self) -> int:
        return len(self.tokens)

    def evaluated(self, index: int) -> Tokens:
        """What the model sees of a chunk."""
        tokens: Tokens = self.tokens[index].copy()
        if self.bos is not None:
            tokens[0] = self.bos
        return tokens

    def targets(self, index: int) -> Tokens:
        """The token that should be predicted at each scored position of a chunk."""
        targets: Tokens = self.tokens[index, self.first + 1 :]
        return targets


@dataclass(frozen=True)
class Text:
    """A text file: its name without folders, what is in it, the hash of its bytes."""

    name: str
    content: str
    sha256: str


def read_text(path: str | Path) -> Text:
    """Read a text file. One line break at its end is not part of the text, as in llama.cpp.

    Raises BadFileError for a file that cannot be read, is empty or is not UTF-8.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadFileError(
            f"{path}: cannot be read ({error.strerror}); expected a text file; check the path"
        ) from error
    try:
        content = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadFileError(
            f"{path}: byte {error.start}: is not UTF-8; expected a text file; convert it to UTF-8 first"
        ) from None
    if not content.strip():
        raise BadFileError(f"{path}: is empty; expected a text to evaluate")
    return Text(path.name, content.removesuffix("\n"), hashlib.sha256(data).hexdigest())


def tokenizer_of(vocab: Vocab, definition: Definition) -> Tokenizer:
    """A vocabulary at work as the definition has it: the perplexity of June 2023 put no space before the text."""
    if definition is Definition.JUNE_2023 and vocab.raw_pieces:
        vocab = replace(vocab, add_space_prefix=False)
    return load_tokenizer(vocab)


def cut(
    text: Text,
    tokenizer: Tokenizer,
    n_ctx: int,
    limit: int | None = None,
    definition: Definition = Definition.CURRENT,
) -> Chunks:
    """Cut a text into chunks of ``n_ctx`` tokens, the first ``limit`` of them.

    Raises UsageError where the text has fewer tokens than one chunk.
    """
    if not SMALLEST_CHUNK <= n_ctx <= _LARGEST_CHUNK:
        raise UsageError(f"context: {n_ctx} tokens; expected {SMALLEST_CHUNK} to {_LARGEST_CHUNK}")
    tokens = tokenizer.encode(text.content)
    count = len(tokens) // n_ctx if limit is None else min(limit, len(tokens) // n_ctx)
    if count < 1:
        raise UsageError(
            f"{text.name}: {len(tokens)} tokens; expected at least one chunk of {n_ctx}; use a longer text or a "
            "smaller context (-c)"
        )
    return chunks_of(tokens[: count * n_ctx], n_ctx, tokenizer, definition)


def chunks_of(
    tokens: Sequence[int] | Tokens, n_ctx: int, tokenizer: Tokenizer, definition: Definition = Definition.CURRENT
) -> Chunks:
    """Chunks of tokens that are a multiple of ``n_ctx``."""
    rows = np.asarray(tokens, dtype=np.int32).reshape(-1, n_ctx)
    return Chunks(rows, tokenizer.bos if tokenizer.add_bos else None, definition.first(n_ctx))
