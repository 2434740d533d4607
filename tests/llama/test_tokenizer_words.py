"""How pre-tokenizers cut texts into words: the cases in which the families differ."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llama.vocabularies import make_vocab
from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence, Split

from selfee.errors import UnsupportedFileError
from selfee.llama.bpe import BYTE_ALPHABET, MergeList
from selfee.llama.tokenizer import load_tokenizer
from selfee.llama.vocabulary import check_vocab
from selfee.weights.huggingface.pretokenizers import PRE_TOKENIZERS, pre_tokenizer


def words(name: str, text: str) -> list[str]:
    cuts = Sequence([Split(Regex(expression), "isolated") for expression in pre_tokenizer(name).expressions])
    return [word for word, _ in cuts.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gpt-2", "I'm 12345 x", ["I", "'m", " 12345", " x"]),
        ("gpt-2", "I'M  sure\n\n x", ["I", "'", "M", " ", " sure", "\n\n", " x"]),
        ("smollm", "a 123", ["a", " ", "1", "2", "3"]),
        ("starcoder", "x=10;", ["x", "=", "1", "0", ";"]),
        ("llama-bpe", "I'M 12345", ["I", "'M", " ", "123", "45"]),
        ("llama-bpe", "a\n\n b\n", ["a", "\n\n", " b", "\n"]),
        ("llama-bpe", "(word) ...\n\nnext", ["(word", ")", " ...\n\n", "next"]),
        ("llama-bpe", "a   b \n c", ["a", "  ", " b", " \n", " c"]),
        ("llama-bpe", "'ſ", ["'ſ"]),
        ("qwen2", "I'LL 123", ["I", "'LL", " ", "1", "2", "3"]),
        ("qwen2", "x\n\n\ny", ["x", "\n\n\n", "y"]),
        ("default", "(a), 12345", ["(", "a", "),", " ", "123", "45"]),
        ("default", "I'm `x`", ["I", "'", "m", " `", "x", "`"]),
        ("falcon", "I'm `x` 1234", ["I", "'", "m", " ", "`", "x", "`", " ", "123", "4"]),
    ],
)
def test_each_family_cuts_as_its_models_were_trained(name: str, text: str, expected: list[str]) -> None:
    assert words(name, text) == expected


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
@pytest.mark.parametrize("text", ["", "  \n\t x's 12,345 +=\u00a0`é🦙`\r\n\r\n", "\u2028\u0085 \ufeff٣½"])
def test_cutting_loses_nothing(name: str, text: str) -> None:
    assert "".join(words(name, text)) == text


def test_a_name_that_is_not_known_is_refused() -> None:
    with pytest.raises(UnsupportedFileError, match=r"tokenizer\.ggml\.pre"):
        pre_tokenizer("my-own")


def test_only_families_that_say_so_take_whole_words_before_merges() -> None:
    letters = [letter.encode() for letter in BYTE_ALPHABET]
    ids = {letter: token for token, letter in enumerate(BYTE_ALPHABET)}
    merges = ["b c"]
    vocab = make_vocab(model="gpt2", pre="llama-bpe", tokens=[*letters, b"bc", b"abc"], merges=merges)
    assert load_tokenizer(vocab).encode("abc") == [257]
    other = make_vocab(model="gpt2", pre="qwen2", tokens=[*letters, b"bc", b"abc"], merges=merges)
    assert load_tokenizer(other).encode("abc") == [ids["a"], 256]


@given(st.text(alphabet="aB 1.'\n\ts é`(\u00a0", max_size=40))
@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
def test_stretches_encoded_alone_give_the_ids_of_the_whole(name: str, text: str) -> None:
    merges = ["a B", "Ġ a", "1 1", "Ġ Ġ", "Ċ Ċ", "' s", "Ġ '"]
    tokens = [*BYTE_ALPHABET, *(merge.replace(" ", "") for merge in merges)]
    if name not in _ENCODERS:
        vocab = make_vocab(model="gpt2", pre=name, tokens=[token.encode() for token in tokens], merges=merges)
        _ENCODERS[name] = MergeList(vocab, check_vocab(vocab))
    encoder = _ENCODERS[name]
    assert encoder.encode(text) == encoder._words.encode(text, add_special_tokens=False).ids


_ENCODERS: dict[str, MergeList] = {}


def test_the_byte_alphabet_has_a_letter_for_every_byte() -> None:
    assert len(set(BYTE_ALPHABET)) == 256
    assert BYTE_ALPHABET[ord("a")] == "a"
    assert BYTE_ALPHABET[ord(" ")] == "Ġ"
    assert all(a < b for a, b in pairwise(BYTE_ALPHABET[:33]))
