"""Vocabularies: what the keys say is checked against each other; what they leave open gets the known default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import make_tiny
from tests.weights.craft import refused

from selfee.weights.checkpoint import Vocab
from selfee.weights.open import open_checkpoint

KEY = "tokenizer.ggml."


def changed(path: Path, vocab: str = "spm", **changes: Any) -> Path:
    """A tiny model in which tokenizer keys are replaced; None takes one away."""
    metadata = {KEY + key: value for key, value in changes.items()}
    return make_tiny(path, vocab=vocab, metadata=metadata)  # type: ignore[arg-type]


def opened(path: Path) -> Vocab:
    with open_checkpoint(path) as checkpoint:
        return checkpoint.vocab


def scores_with(value: float) -> np.ndarray[Any, Any]:
    scores = np.zeros(558, dtype=np.float32)
    scores[7] = value
    return scores


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "model is a number": ({"model": 5}, "tokenizer.ggml.model: is a int; expected a text"),
    "pre is a list": ({"pre": ["a"]}, "tokenizer.ggml.pre: is a StringArray; expected a text"),
    "tokens are numbers": ({"tokens": np.zeros(4, dtype=np.int32)}, "tokens: is a ndarray; expected a list of texts"),
    "NaN score": ({"scores": scores_with(float("nan"))}, "scores: entry 7 is nan; expected a finite number"),
    "infinite score": ({"scores": scores_with(float("-inf"))}, "scores: entry 7 is -inf"),
    "scores are whole numbers": ({"scores": np.zeros(558, dtype=np.int32)}, "is not a list of numbers of the right ki"),
    "scores are texts": ({"scores": ["0"] * 558}, "is not a list of numbers of the right kind"),
    "too many scores": ({"scores": np.zeros(559, dtype=np.float32)}, "has 559 entries for 558 tokens"),
    "token type 9": ({"token_type": np.full(558, 9, dtype=np.int32)}, "entry 0 is 9; expected 0 to 6"),
    "token type -1": ({"token_type": np.full(558, -1, dtype=np.int32)}, "entry 0 is -1; expected 0 to 6"),
    "bos beyond the vocabulary": ({"bos_token_id": 558}, "bos_token_id: is 558; expected 0 to 557"),
    "eos 2**32-1": ({"eos_token_id": 2**32 - 1}, "eos_token_id: is 4294967295"),
    "eos negative": ({"eos_token_id": -1}, "eos_token_id: is -1"),
    "eot a text": ({"eot_token_id": "</s>"}, "eot_token_id: is a str; expected the number of a token"),
    "unknown true": ({"unknown_token_id": True}, "unknown_token_id: is a bool"),
    "add_bos a number": ({"add_bos_token": 1}, "add_bos_token: is a int; expected true or false"),
    "merge without a blank": ({"merges": ["a b", "\x1bab"]}, r"merges: entry 1 is '\\x1bab'; expected two pieces"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_vocabulary_is_refused_by_name(tmp_path: Path, name: str) -> None:
    changes, message = DAMAGED[name]
    refused(changed(tmp_path / "m.gguf", **changes), message)


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf", metadata={"tokenizer.chat_template": 7})
    refused(path, "tokenizer.chat_template: is a int; expected a text|chat_template: is a int")


def test_sentencepiece_style_defaults(tmp_path: Path) -> None:
    vocab = opened(changed(tmp_path / "m", bos_token_id=None, eos_token_id=None, unknown_token_id=None))
    assert (vocab.model, vocab.bos, vocab.eos, vocab.unknown) == ("llama", 1, 2, 0)
    assert (vocab.add_bos, vocab.add_eos, vocab.add_space_prefix, vocab.raw_pieces) == (True, False, True, False)
    assert vocab.scores is not None
    assert vocab.types is not None
    assert vocab.types[:4] == [2, 3, 3, 6]


def test_byte_level_defaults(tmp_path: Path) -> None:
    vocab = opened(changed(tmp_path / "m", "bpe", bos_token_id=None, eos_token_id=None, add_bos_token=None, pre=None))
    assert (vocab.model, vocab.pre, vocab.bos, vocab.eos) == ("gpt2", "default", None, None)
    assert (vocab.add_bos, vocab.add_space_prefix, vocab.scores) == (False, False, None)
    assert vocab.merges[0] == "Ġ t"


def test_llama_3_texts_begin_with_bos_although_the_file_does_not_say_so(tmp_path: Path) -> None:
    assert opened(changed(tmp_path / "m", "bpe", add_bos_token=None, pre="llama-bpe")).add_bos


def test_what_the_file_says_wins(tmp_path: Path) -> None:
    vocab = opened(changed(tmp_path / "m", add_bos_token=False, add_space_prefix=False, add_eos_token=True))
    assert (vocab.add_bos, vocab.add_space_prefix, vocab.add_eos) == (False, False, True)


def test_a_padding_token_that_was_cut_away_is_none(tmp_path: Path) -> None:
    assert opened(changed(tmp_path / "m", padding_token_id=32000)).padding is None


def test_pieces_that_are_not_utf8_are_kept_as_they_are(tmp_path: Path) -> None:
    tokens = [b"\xff\xfe", b"\xc3", *[f"t{index}".encode() for index in range(460)]]
    vocab = opened(changed(tmp_path / "m", "bpe", tokens=tokens))
    assert list(vocab.tokens[:2]) == [b"\xff\xfe", b"\xc3"]


def test_a_file_without_vocabulary_has_no_tokens(tmp_path: Path) -> None:
    gone = ["model", "tokens", "scores", "token_type", "merges", "bos_token_id", "eos_token_id"]
    vocab = opened(make_tiny(tmp_path / "m", vocab="spm", metadata={KEY + key: None for key in gone}))
    assert (vocab.model, list(vocab.tokens), vocab.bos) == ("no_vocab", [], None)


def test_ggml_pieces_are_raw_text_and_single_bytes(tmp_path: Path) -> None:
    vocab = opened(make_tiny(tmp_path / "m", container="ggjt3"))
    assert vocab.raw_pieces
    assert vocab.tokens[3 + 0x41] == b"A"
    assert b" the" in vocab.tokens
    assert vocab.types is not None
    assert vocab.types[:4] == [2, 3, 3, 6]
    assert opened(make_tiny(tmp_path / "n", container="ggml")).scores is None


@pytest.mark.corpus
def test_the_2023_vocabulary_equals_todays_up_to_spelling(corpus: Path) -> None:
    old = opened(corpus / "vocab/ggml-vocab.bin")
    new = opened(corpus / "vocab/ggml-vocab-llama-spm.gguf")
    assert old.scores == new.scores
    assert old.types == new.types
    spelled = [piece.replace(b" ", "▁".encode()) for piece in old.tokens]
    assert spelled[259:] == list(new.tokens[259:])
    assert [b"<0x%02X>" % piece[0] for piece in old.tokens[3:259]] == list(new.tokens[3:259])
