"""The vocabulary of a GGUF file: its ``tokenizer.*`` keys, checked against each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from selfee.errors import BadFileError
from selfee.weights.checkpoint import Vocab
from selfee.weights.mapped import StringArray
from selfee.weights.printable import printable

NO_VOCAB = "no_vocab"
BYTE = 6

_KEY = "tokenizer.ggml."
_BYTE_PIECE = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
# llama.cpp begins every text of these byte-level vocabularies with BOS although it does not for others.
_BPE_WITH_BOS = frozenset({"llama-bpe", "llama3", "llama-v3"})


def vocab_from_metadata(path: Path, metadata: Mapping[str, Any]) -> Vocab:
    """Collect the vocabulary of a GGUF file; without one the model is "no_vocab" and there are no tokens.

    Raises BadFileError where the keys have wrong types, lengths that differ, ids outside the vocabulary, scores
    that are not finite, or byte tokens that name no byte.
    """
    return _Reader(path, metadata).vocab()


class _Reader:
    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.metadata = metadata

    def vocab(self) -> Vocab:
        model = self.text("model") or NO_VOCAB
        pre = self.text("pre") or "default"
        tokens = self.strings("tokens").raw
        is_llama = model == "llama"
        self.count = len(tokens)
        types = self.types(tokens if is_llama else [])
        return Vocab(
            model=model,
            pre=pre,
            tokens=tokens,
            scores=self.scores(),
            types=types,
            merges=self.merges(),
            bos=self.id("bos_token_id", 1 if is_llama else None),
            eos=self.id("eos_token_id", 2 if is_llama else None),
            unknown=self.id("unknown_token_id", 0 if is_llama else None),
            padding=self.id("padding_token_id", None),
            eot=self.id("eot_token_id", None),
            add_bos=self.flag("add_bos_token", is_llama or (model == "gpt2" and pre in _BPE_WITH_BOS)),
            add_eos=self.flag("add_eos_token", False),
            add_space_prefix=self.flag("add_space_prefix", is_llama),
            chat_template=self.text("chat_template", "tokenizer."),
            raw_pieces=False,
        )

    def bad(self, key: str, found: str) -> BadFileError:
        return BadFileError(f"{self.path}: {_KEY}{key}: {found}; the vocabulary is damaged; use another copy")

    def text(self, key: str, prefix: str = _KEY) -> str | None:
        value = self.metadata.get(prefix + key)
        if value is not None and not isinstance(value, str):
            raise self.bad(key, f"is a {type(value).__name__}; expected a text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.metadata.get(_KEY + key, default)
        if not isinstance(value, bool):
            raise self.bad(key, f"is a {type(value).__name__}; expected true or false")
        return value

    def strings(self, key: str) -> StringArray:
        value = self.metadata.get(_KEY + key)
        if value is None:
            return StringArray([])
        if not isinstance(value, StringArray):
            raise self.bad(key, f"is a {type(value).__name__}; expected a list of texts")
        return value

    def numbers(self, key: str, kind: str) -> np.ndarray[Any, Any] | None:
        value = self.metadata.get(_KEY + key)
        if value is None or not self.count:
            return None
        if not isinstance(value, np.ndarray) or value.dtype.kind not in kind:
            raise self.bad(key, "is not a list of numbers of the right kind")
        if len(value) != self.count:
            raise self.bad(key, f"has {len(value)} entries for {self.count} tokens")
        return value

    def scores(self) -> list[float] | None:
        values = self.numbers("scores", "f")
        if values is None:
            return None
        wrong = np.flatnonzero(~np.isfinite(values))
        if wrong.size:
            raise self.bad("scores", f"entry {wrong[0]} is {values[wrong[0]]}; expected a finite number")
        scores: list[float] = values.tolist()
        return scores

    def types(self, sentencepieces: list[bytes]) -> list[int] | None:
        values = self.numbers("token_type", "iu")
        if values is None:
            return None
        wrong = np.flatnonzero((values < 0) | (values > BYTE))
        if wrong.size:
            raise self.bad("token_type", f"entry {wrong[0]} is {values[wrong[0]]}; expected 0 to {BYTE}")
        if sentencepieces:
            for index in np.flatnonzero(values == BYTE):
                if not _BYTE_PIECE.fullmatch(sentencepieces[index]):
                    piece = printable(sentencepieces[index], 40)
                    raise self.bad("tokens", f"byte token {index} is '{piece}'; expected <0x00> to <0xFF>")
        types: list[int] = values.tolist()
        return types

    def merges(self) -> StringArray:
        merges = self.strings("merges")
        for index, merge in enumerate(merges.raw):
            if b" " not in merge:
                raise self.bad("merges", f"entry {index} is '{printable(merge, 40)}'; expected two pieces and a blank")
        return merges

    def id(self, key: str, default: int | None) -> int | None:
        value = self.metadata.get(_KEY + key)
        if value is None:
            return default if default is not None and default < self.count else None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.bad(key, f"is a {type(value).__name__}; expected the number of a token")
        if 0 <= value < self.count:
            return value
        if key == "padding_token_id" or not self.count:
            return None  # nothing is ever padded here, and published files name padding tokens that were cut away
        raise self.bad(key, f"is {value}; expected 0 to {self.count - 1}")
