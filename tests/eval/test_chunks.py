"""How a text is cut and which positions are scored: llama.cpp's definitions, today's and that of June 2023."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.eval.prose import prose
from tests.tiny import bpe_vocab, make_tiny, spm_vocab

from selfee.errors import BadFileError, UsageError
from selfee.eval.chunks import Definition, Text, cut, read_text, tokenizer_of
from selfee.llama.tokenizer import Tokenizer, load_tokenizer
from selfee.weights.open import open_checkpoint
from selfee.weights.vocab import vocab_from_metadata

TEXT = Text("t.txt", prose(200), "")


def loaded(metadata: dict[str, Any]) -> Tokenizer:
    from selfee.weights.mapped import StringArray

    packed = {key: StringArray([t.encode() for t in v]) if isinstance(v, list) else v for key, v in metadata.items()}
    return load_tokenizer(vocab_from_metadata(Path("m.gguf"), packed))


BPE, SPM = loaded(bpe_vocab()), loaded(spm_vocab())


def test_chunks_are_the_tokens_in_order_without_the_rest() -> None:
    tokens = BPE.encode(TEXT.content)
    chunks = cut(TEXT, BPE, 32)
    assert len(chunks) == len(tokens) // 32
    assert chunks.tokens.reshape(-1).tolist() == tokens[: len(chunks) * 32]
    assert (chunks.n_ctx, chunks.first, chunks.scored) == (32, 16, 15)


@given(st.integers(4, 40))
def test_position_i_predicts_token_i_plus_one_from_the_middle_on(n_ctx: int) -> None:
    chunks = cut(TEXT, BPE, n_ctx, 2)
    for index in range(len(chunks)):
        assert chunks.targets(index).tolist() == chunks.tokens[index].tolist()[n_ctx // 2 + 1 :]
        assert len(chunks.targets(index)) == chunks.scored == n_ctx - 1 - n_ctx // 2


def test_the_beginning_token_takes_the_place_of_each_chunks_first_token_where_the_model_wants_one() -> None:
    chunks = cut(TEXT, SPM, 16)
    assert chunks.tokens[0, 0] == SPM.bos
    assert chunks.tokens[1, 0] != SPM.bos
    for index in range(len(chunks)):
        assert chunks.evaluated(index)[0] == SPM.bos
        assert chunks.evaluated(index)[1:].tolist() == chunks.tokens[index, 1:].tolist()
    plain = cut(TEXT, BPE, 16)
    assert all((plain.evaluated(index) == plain.tokens[index]).all() for index in range(len(plain)))


@pytest.mark.parametrize(("n_ctx", "today", "then"), [(512, 256, 256), (1024, 512, 512), (2048, 1024, 512)])
def test_the_definition_of_2023_differs_only_for_long_chunks(n_ctx: int, today: int, then: int) -> None:
    assert (Definition.CURRENT.first(n_ctx), Definition.JUNE_2023.first(n_ctx)) == (today, then)


def test_the_definition_of_2023_put_no_space_before_the_text_of_a_ggml_file(tmp_path: Path) -> None:
    text = Text("t.txt", "the of and " * 20, "")
    with open_checkpoint(make_tiny(tmp_path / "m.bin", container="ggjt3")) as model:
        today, then = (cut(text, tokenizer_of(model.vocab, each), 16) for each in Definition)
        assert model.vocab.tokens[today.tokens[0, 1]] == b" the"
        assert model.vocab.tokens[then.tokens[0, 1]] == b"t"
    with open_checkpoint(make_tiny(tmp_path / "m.gguf", vocab="spm")) as model:
        today, then = (cut(text, tokenizer_of(model.vocab, each), 16) for each in Definition)
        assert np.array_equal(today.tokens, then.tokens)


def test_a_limit_takes_the_first_chunks() -> None:
    assert np.array_equal(cut(TEXT, BPE, 16, 2).tokens, cut(TEXT, BPE, 16).tokens[:2])
    assert len(cut(TEXT, BPE, 16, 10**9)) == len(cut(TEXT, BPE, 16))


def test_a_text_too_short_for_one_chunk_is_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match=r"t\.txt: \d+ tokens; expected at least one chunk of 512"):
        cut(Text("t.txt", "the of and", ""), BPE, 512)


@pytest.mark.parametrize("n_ctx", [-1, 0, 3, 1 << 21])
def test_impossible_chunks_are_refused(n_ctx: int) -> None:
    with pytest.raises(UsageError, match=f"context: {n_ctx} tokens"):
        cut(TEXT, BPE, n_ctx)


def test_one_line_break_at_the_end_is_not_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"a\n\n")
    assert read_text(path) == Text("t.txt", "a\n", hashlib.sha256(b"a\n\n").hexdigest())


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"ab\xff", "byte 2: is not UTF-8"), (None, "cannot be read")],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "t.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFileError, match=message):
        read_text(path)


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="cannot be read"):
        read_text(tmp_path)
