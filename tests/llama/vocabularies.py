"""Vocabularies for tests: small ones made in memory, and the shared corpus's files read without our own readers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from selfee.weights.checkpoint import Vocab
from selfee.weights.open import open_checkpoint

SEPARATOR = "\n__ggml_vocab_test__\n"


def make_vocab(**changes: Any) -> Vocab:
    """A Vocab with harmless values for everything that ``changes`` does not name."""
    values: dict[str, Any] = {
        "model": "llama",
        "pre": "default",
        "tokens": (),
        "scores": None,
        "types": None,
        "merges": (),
        "bos": None,
        "eos": None,
        "unknown": None,
        "padding": None,
        "eot": None,
        "add_bos": False,
        "add_eos": False,
        "add_space_prefix": False,
        "chat_template": None,
        "raw_pieces": False,
    }
    return Vocab(**(values | changes))


@cache
def vocab_of(path: Path) -> Vocab:
    """The vocabulary of a model file."""
    with open_checkpoint(path) as checkpoint:
        return checkpoint.vocab


def vectors(inputs: Path) -> list[tuple[str, list[int]]]:
    """The texts of an ``.inp`` file with the ids of the ``.out`` file beside it."""
    texts = inputs.read_bytes().decode().removesuffix(SEPARATOR).split(SEPARATOR)
    return list(zip(texts, token_lines(inputs.with_suffix(".out")), strict=True))


def token_lines(path: Path) -> list[list[int]]:
    """One list of ids a line."""
    return [[int(token) for token in line.split()] for line in path.read_text().removesuffix("\n").split("\n")]


def scored(pieces: Sequence[str], **changes: Any) -> Vocab:
    """A small SentencePiece vocabulary: <unk>, <s>, </s>, 256 byte tokens, then ``pieces``, better ones first."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    values = {
        "tokens": [text.encode() for text in tokens],
        "scores": [0.0] * 259 + [-float(i) for i in range(len(pieces))],
        "types": [2, 3, 3] + [6] * 256 + [1] * len(pieces),
        "bos": 1,
        "eos": 2,
        "unknown": 0,
        "add_bos": True,
        "add_space_prefix": True,
    }
    return make_vocab(**(values | changes))
