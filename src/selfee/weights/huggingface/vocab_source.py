"""The vocabulary of a model taken from elsewhere: the folder of its tokenizer, or another file of the same model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from selfee.errors import BadFileError
from selfee.weights.huggingface.tokenizer import FolderVocab, read_tokenizer
from selfee.weights.open import open_checkpoint
from selfee.weights.vocab_keys import require_distinct, written_vocab


def vocab_of(
    path: Path, rows: int, *, special_ids: Mapping[str, int] | None = None, pre: str | None = None
) -> FolderVocab:
    """Read the vocabulary of a folder or model file for a model whose embedding has ``rows`` rows.

    ``special_ids`` and ``pre`` are ``read_tokenizer``'s. Raises BadFileError where it does not fit.
    """
    if os.path.isdir(path):
        return read_tokenizer(path, rows, special_ids=special_ids, pre=pre)
    with open_checkpoint(path) as other:
        vocab = written_vocab(other.vocab) if other.vocab.raw_pieces else other.vocab
    if len(vocab.tokens) != rows:
        raise BadFileError(
            f"{path}: {len(vocab.tokens)} tokens; the embedding has {rows} rows; expected one for each; name the "
            "tokenizer of this very model"
        )
    require_distinct(path, vocab)
    return FolderVocab(vocab)
