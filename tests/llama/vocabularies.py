"""Vocabularies for tests: small ones made in memory, and the shared corpus's files read without our own readers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gguf

from selfee.weights.checkpoint import Vocab


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
def gguf_vocab(path: Path) -> Vocab:
    """The vocabulary of a GGUF file, read with the ``gguf`` package."""
    reader = gguf.GGUFReader(path)

    def value(key: str, default: Any = None) -> Any:
        field = reader.fields.get(f"tokenizer.{key}")
        return default if field is None else field.contents()

    model = value("ggml.model")
    is_spm = model == "llama"
    return make_vocab(
        model=model,
        pre=value("ggml.pre", "default"),
        tokens=[text.encode() for text in value("ggml.tokens")],
        scores=value("ggml.scores"),
        types=value("ggml.token_type"),
        merges=value("ggml.merges", ()),
        bos=value("ggml.bos_token_id", 1 if is_spm else None),
        eos=value("ggml.eos_token_id", 2 if is_spm else None),
        unknown=value("ggml.unknown_token_id", 0 if is_spm else None),
        padding=value("ggml.padding_token_id"),
        eot=value("ggml.eot_token_id"),
        add_bos=value("ggml.add_bos_token", is_spm),
        add_space_prefix=value("ggml.add_space_prefix", is_spm),
        chat_template=value("chat_template"),
    )


@cache
def ggml_vocab(path: Path) -> Vocab:
    """The vocabulary of a ggjt file: after magic, version and seven numbers, a piece and its score for each id."""
    data = path.read_bytes()
    (count,) = struct.unpack_from("<I", data, 8)
    position, tokens, scores = 36, [], []
    for _ in range(count):
        (length,) = struct.unpack_from("<I", data, position)
        tokens.append(data[position + 4 : position + 4 + length])
        scores.append(struct.unpack_from("<f", data, position + 4 + length)[0])
        position += 8 + length
    return make_vocab(tokens=tokens, scores=scores, bos=1, eos=2, unknown=0, add_bos=True, raw_pieces=True)


def vectors(inputs: Path) -> list[tuple[str, list[int]]]:
    """The texts of an ``.inp`` file with the ids of the ``.out`` file beside it."""
    texts = inputs.read_bytes().decode().split("\n__ggml_vocab_test__\n")
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
