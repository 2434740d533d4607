"""Vocabularies as an attacker or a broken converter would write them: one clear error, never a crash."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llama.vocabularies import make_vocab, scored

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.llama.bpe import BYTE_ALPHABET
from selfee.llama.tokenizer import load_tokenizer

GOOD = scored(["a", "b", "ab", "▁"])


def byte_level(**changes: Any) -> Any:
    tokens = [letter.encode() for letter in BYTE_ALPHABET] + [b"ab", b"<|im_end|>"]
    values = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "types": [1] * 257 + [3],
        "merges": ["a b"],
        "eos": 257,
    }
    return make_vocab(**(values | changes))


def with_token(token: int, text: bytes) -> Any:
    return replace(GOOD, tokens=[*GOOD.tokens[:token], text, *GOOD.tokens[token + 1 :]])


@pytest.mark.parametrize(
    ("vocab", "told"),
    [
        (make_vocab(), "no tokens"),
        (with_token(261, b"\xff\xfe"), "UTF-8"),
        (with_token(261, b"a"), "both 'a'"),
        (with_token(13, b"<0x-1>"), "<0x-1>"),
        (with_token(13, b"<0xZZ>"), "<0xZZ>"),
        (with_token(13, b""), "byte token"),
        (replace(GOOD, scores=None), "no scores"),
        (replace(GOOD, scores=[0.0] * 3), "3 scores for 263 tokens"),
        (replace(GOOD, scores=[float("nan")] * 263), "score nan"),
        (replace(GOOD, scores=[float("inf")] * 263), "score inf"),
        (replace(GOOD, types=[1] * 262), "262 token types"),
        (replace(GOOD, types=[*(GOOD.types or ())[:262], 7]), "type 7"),
        (replace(GOOD, types=[*(GOOD.types or ())[:262], -1]), "type -1"),
        (replace(GOOD, bos=263), "beginning token is 263"),
        (replace(GOOD, eos=-1), "end token is -1"),
        (replace(GOOD, eot=1 << 40), "end of turn token"),
        (replace(GOOD, unknown=None, types=[2, 3, 3] + [1] * 260), "byte 0x00"),
        (replace(GOOD, raw_pieces=True, tokens=[b"a"] * 5, scores=[0.0] * 5, types=None), "at least 259"),
        (byte_level(merges=["ab"]), "two pieces"),
        (byte_level(merges=[" ab"]), "two pieces"),
        (byte_level(merges=["a nowhere"]), "that are tokens"),
        (byte_level(merges=["a c"]), "that are tokens"),
    ],
)
def test_a_damaged_vocabulary_is_refused_by_name(vocab: Any, told: str) -> None:
    with pytest.raises(BadFileError, match=told) as caught:
        load_tokenizer(vocab)
    assert "expected" in str(caught.value)


def test_a_pre_tokenizer_that_is_not_known_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(UnsupportedFileError, match=r"'tekken2'.*llama-bpe.*qwen2.*smollm"):
        load_tokenizer(byte_level(pre="tekken2"))


@pytest.mark.parametrize("model", ["bert", "t5", "no_vocab", "", "\x1b[31m"])
def test_another_kind_of_vocabulary_is_refused(model: str) -> None:
    with pytest.raises(UnsupportedFileError, match="expected 'llama'") as caught:
        load_tokenizer(make_vocab(model=model, tokens=[b"a"]))
    assert "\x1b" not in str(caught.value)


def test_missing_special_tokens_are_no_fault() -> None:
    tokenizer = load_tokenizer(replace(GOOD, bos=None, eos=None))
    assert tokenizer.encode("ab") == tokenizer.encode("ab", add_bos=False)
    assert tokenizer.bos is None
    bare = load_tokenizer(byte_level(eos=None, types=[1] * 258))
    assert bare.end_tokens == {257}  # <|im_end|> ends a turn also where nobody says so


def test_missing_types_are_inferred() -> None:
    tokenizer = load_tokenizer(replace(GOOD, types=None))
    assert tokenizer.decode(tokenizer.encode("é ab", add_bos=False)) == "é ab"
    assert tokenizer.encode("<s>", add_bos=False, parse_special=True) == [1]


def test_texts_without_byte_tokens_become_the_unknown_token() -> None:
    vocab = make_vocab(tokens=[b"<unk>", b"a"], scores=[0.0, 0.0], types=[2, 1], unknown=0)
    assert load_tokenizer(vocab).encode("aé") == [1, 0, 0]


def test_empty_pieces_are_no_duplicates_of_each_other() -> None:
    vocab = make_vocab(tokens=[b"<unk>", b"a", b"", b""], scores=[0.0] * 4, types=[2, 1, 1, 3], unknown=0)
    tokenizer = load_tokenizer(vocab)
    assert tokenizer.decode([1, 2, 3, 1]) == "aa"


@given(
    tokens=st.lists(st.binary(max_size=4), max_size=8),
    scores=st.none() | st.lists(st.floats(), max_size=8),
    types=st.none() | st.lists(st.integers(-1, 8), max_size=8),
    merges=st.lists(st.text(max_size=4), max_size=4),
    model=st.sampled_from(["llama", "gpt2"]),
    special=st.none() | st.integers(-2, 9),
    raw=st.booleans(),
)
def test_any_vocabulary_loads_or_is_refused(
    tokens: list[bytes], scores: Any, types: Any, merges: list[str], model: str, special: int | None, raw: bool
) -> None:
    vocab = make_vocab(
        model=model,
        tokens=tokens,
        scores=scores,
        types=types,
        merges=merges,
        bos=special,
        eos=special,
        unknown=special,
        raw_pieces=raw,
        add_bos=True,
    )
    try:
        tokenizer = load_tokenizer(vocab)
    except BadFileError:
        return
    for text in ("", "a b", "\x00é🦙</s>"):
        for parse_special in (False, True):
            tokenizer.decode(tokenizer.encode(text, parse_special=parse_special))
