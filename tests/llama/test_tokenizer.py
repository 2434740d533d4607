"""Text to tokens and back: published vectors, laws, and what special tokens may and may not do."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.llama.vocabularies import make_vocab, scored, token_lines, vectors, vocab_of
from tests.tiny import make_tiny

from selfee.errors import UsageError
from selfee.llama.tokenizer import Tokenizer, load_tokenizer
from selfee.weights.checkpoint import Vocab

PIECES = (
    "▁t",
    "▁th",
    "▁the",
    "he",
    "▁",
    "t",
    "h",
    "e",
    "e▁",
    "▁▁",
    "▁▁▁▁",
    "aa",
    "aaa",
    "aaaa",
    "a",
    "b",
    "ab",
    "ba",
    "é",
)


_TOKENIZERS: dict[int, Tokenizer] = {}


def _loaded(vocab: Vocab) -> Tokenizer:
    """One tokenizer for all examples; the vocabularies live as long as the module."""
    if id(vocab) not in _TOKENIZERS:
        _TOKENIZERS[id(vocab)] = load_tokenizer(vocab)
    return _TOKENIZERS[id(vocab)]


@pytest.fixture(scope="module")
def tiny_spm(tmp_path_factory: pytest.TempPathFactory) -> Vocab:
    path = tmp_path_factory.mktemp("tiny") / "m.gguf"
    make_tiny(path, vocab="spm")
    return vocab_of(path)


@pytest.fixture(scope="module")
def tiny_bpe(tmp_path_factory: pytest.TempPathFactory) -> Vocab:
    path = tmp_path_factory.mktemp("tiny") / "m.gguf"
    make_tiny(path, architecture="qwen2")
    return vocab_of(path)


@pytest.fixture(scope="module")
def tiny_raw(tmp_path_factory: pytest.TempPathFactory) -> Vocab:
    path = tmp_path_factory.mktemp("tiny") / "m.bin"
    make_tiny(path, container="ggjt3")
    return vocab_of(path)


_NORMAL: dict[int, dict[str, int]] = {}


def _normal_ids(key: int, vocab: Vocab) -> dict[str, int]:
    if key not in _NORMAL:
        _NORMAL[key] = {token.decode(): i for i, token in enumerate(vocab.tokens) if (vocab.types or ())[i] == 1}
    return _NORMAL[key]


def slow_spm(vocab: Vocab, text: str) -> list[int]:
    """The definition: again and again join the best-scored neighbours, the leftmost of equals."""
    assert vocab.scores is not None
    ids = _normal_ids(id(vocab), vocab)
    pieces = list(text.replace(" ", "▁"))
    while True:
        joins = [
            (-vocab.scores[ids[left + right]], i)
            for i, (left, right) in enumerate(pairwise(pieces))
            if left + right in ids
        ]
        if not joins:
            break
        _, i = min(joins)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    return [token for piece in pieces for token in ([ids[piece]] if piece in ids else [b + 3 for b in piece.encode()])]


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["llama-spm", "phi-3", "gpt-2", "starcoder"])
def test_ids_equal_every_published_vector(corpus: Path, name: str) -> None:
    tokenizer = load_tokenizer(vocab_of(corpus / f"vocab/ggml-vocab-{name}.gguf"))
    cases = vectors(corpus / f"vocab/ggml-vocab-{name}.gguf.inp")
    assert len(cases) == 46
    for text, tokens in cases:
        assert tokenizer.encode(text, add_bos=False) == tokens, text
        assert tokenizer.decode(tokens) == text


@pytest.mark.corpus
@pytest.mark.parametrize(("prefix", "name"), [("", "raw"), (" ", "space_prefixed")])
def test_ggml_vocabularies_give_the_ids_of_june_2023(corpus: Path, prefix: str, name: str) -> None:
    tokenizer = load_tokenizer(replace(vocab_of(corpus / "vocab/ggml-vocab.bin"), add_space_prefix=False))
    texts = [text for text, _ in vectors(corpus / "vocab/ggml-vocab-llama-spm.gguf.inp")] + [""]
    expected = token_lines(corpus / f"golden/llama2023_tokens_{name}.txt")
    assert [tokenizer.encode(prefix + text, add_bos=False) for text in texts] == expected


@pytest.mark.corpus
def test_a_vocabulary_without_scores_as_in_the_first_files_gives_the_same_ids(corpus: Path) -> None:
    vocab = vocab_of(corpus / "vocab/ggml-vocab.bin")
    with_scores, without = load_tokenizer(vocab), load_tokenizer(replace(vocab, scores=None))
    for text, _ in vectors(corpus / "vocab/ggml-vocab-llama-spm.gguf.inp"):
        assert without.encode(text) == with_scores.encode(text)


@pytest.mark.corpus
def test_the_same_text_has_the_same_ids_in_a_ggml_and_a_gguf_vocabulary(corpus: Path) -> None:
    ggml = load_tokenizer(vocab_of(corpus / "vocab/ggml-vocab.bin"))
    gguf = load_tokenizer(vocab_of(corpus / "vocab/ggml-vocab-llama-spm.gguf"))
    for text, _ in vectors(corpus / "vocab/ggml-vocab-llama-spm.gguf.inp"):
        if text:
            assert ggml.encode(text) == gguf.encode(text)


SMALL = scored(PIECES, add_space_prefix=False)


@given(st.text(alphabet="the ab🦙é\n", max_size=40))
@example("aaaaa")
@example("    the  the")
def test_fast_merging_equals_its_definition(text: str) -> None:
    vocab = SMALL
    assert _loaded(vocab).encode(text, add_bos=False) == slow_spm(vocab, text)


@pytest.mark.corpus
@settings(max_examples=50)
@given(st.text(max_size=60))
def test_fast_merging_equals_its_definition_on_a_real_vocabulary(corpus: Path, text: str) -> None:
    vocab = vocab_of(corpus / "vocab/ggml-vocab-llama-spm.gguf")
    tokenizer = _loaded(vocab)
    assert tokenizer.encode(text, add_bos=False) == (slow_spm(vocab, " " + text) if text else [])


SOMETIMES_SPECIAL = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=8),
        st.sampled_from(["</s>", "<s>", "<unk>", "<|im_end|>", "<|im_start|>", " ", "  ", "<0x0A>", "the sky"]),
    )
).map("".join)


@given(text=SOMETIMES_SPECIAL, parse_special=st.booleans())
@example(text=" a", parse_special=False)
@example(text="</s> a</s>b", parse_special=True)
@pytest.mark.parametrize("kind", ["tiny_spm", "tiny_bpe", "tiny_raw"])
def test_decoding_gives_back_what_was_encoded(
    request: pytest.FixtureRequest, kind: str, text: str, parse_special: bool
) -> None:
    tokenizer = _loaded(request.getfixturevalue(kind))
    assert tokenizer.decode(tokenizer.encode(text, add_bos=False, parse_special=parse_special)) == text


@given(text=SOMETIMES_SPECIAL)
@pytest.mark.parametrize("kind", ["tiny_spm", "tiny_bpe", "tiny_raw"])
def test_words_never_become_control_tokens(request: pytest.FixtureRequest, kind: str, text: str) -> None:
    vocab = request.getfixturevalue(kind)
    tokens = _loaded(vocab).encode(text, add_bos=False)
    assert not {token for token in tokens if vocab.types[token] in (2, 3)}


@given(tokens=st.lists(st.integers(0, 300)), cut=st.integers(0, 50))
@example(tokens=[243, 162, 169], cut=1)
@pytest.mark.parametrize("kind", ["tiny_spm", "tiny_bpe", "tiny_raw"])
def test_streaming_gives_the_same_text_as_all_bytes_at_once(
    request: pytest.FixtureRequest, kind: str, tokens: list[int], cut: int
) -> None:
    tokenizer = _loaded(request.getfixturevalue(kind))
    decoder = tokenizer.stream_decoder(skip_special=False)
    pieces = [decoder.feed(token) for token in tokens] + [decoder.finish()]
    hidden_starts = kind == "tiny_bpe" or not set(tokens) & {0, 1, 2}
    if hidden_starts:
        assert "".join(pieces) == b"".join(map(tokenizer.token_bytes, tokens)).decode("utf-8", errors="replace")
    begun = tokenizer.stream_decoder(skip_special=False, start_of_text=True)
    assert "".join([begun.feed(token) for token in tokens]) + begun.finish() == tokenizer.decode(tokens)


def test_no_character_is_cut_in_a_stream(tiny_spm: Vocab) -> None:
    tokenizer = load_tokenizer(tiny_spm)
    decoder = tokenizer.stream_decoder()
    assert [decoder.feed(3 + byte) for byte in "🦙é".encode()] == ["", "", "", "🦙", "", "é"]
    assert decoder.feed(3 + 0xF0) == ""
    assert decoder.finish() == "\ufffd"


def test_a_continuation_keeps_its_first_space_and_a_text_drops_the_added_one(tiny_spm: Vocab) -> None:
    tokenizer = load_tokenizer(tiny_spm)
    tokens = tokenizer.encode("the sky", add_bos=False)
    assert tokenizer.decode(tokens) == "the sky"
    decoder = tokenizer.stream_decoder()
    assert "".join(map(decoder.feed, tokens)) == " the sky"


def test_byte_level_texts_get_no_space(tiny_bpe: Vocab) -> None:
    tokenizer = load_tokenizer(replace(tiny_bpe, add_space_prefix=True))
    assert tokenizer.decode(tokenizer.encode("the")) == "the"
    assert tokenizer.piece(tokenizer.encode("the")[0]) == "t"


def test_the_beginning_token_comes_naturally_forced_or_never(tiny_spm: Vocab, tiny_bpe: Vocab) -> None:
    wants, wants_not = load_tokenizer(tiny_spm), load_tokenizer(tiny_bpe)
    assert wants.add_bos
    assert not wants_not.add_bos
    assert [wants.encode("a", add_bos=choice)[0] == 1 for choice in (None, True, False)] == [True, True, False]
    assert [wants_not.encode("a", add_bos=choice)[0] == 1 for choice in (None, True, False)] == [False, True, False]
    assert wants.encode("") == [1]
    with pytest.raises(UsageError, match="beginning-of-text"):
        load_tokenizer(replace(tiny_bpe, bos=None)).encode("a", add_bos=True)


def test_markup_is_parsed_only_where_it_is_ours(tiny_spm: Vocab, tiny_bpe: Vocab) -> None:
    for vocab, mark, token in ((tiny_spm, "</s>", 2), (tiny_bpe, "<|im_end|>", 2)):
        tokenizer = load_tokenizer(vocab)
        assert tokenizer.encode(mark, add_bos=False, parse_special=True) == [token]
        assert token not in tokenizer.encode(mark, add_bos=False)
        mixed = tokenizer.encode_parts(
            [(mark[:3], True), (mark[3:], False), (mark, True), (mark, False)], add_bos=False
        )
        assert mixed.count(token) == 1


def test_a_control_token_is_not_merged_together_from_words() -> None:
    vocab = scored(["</", "s>", "</s", "a"])
    assert 2 not in load_tokenizer(vocab).encode("</s>")
    letters = ["<", "/", "s", ">", "</", "s>", "</s>"]
    merged = make_vocab(
        model="gpt2",
        pre="llama-bpe",
        tokens=[letter.encode() for letter in letters],
        types=[1] * 6 + [3],
        merges=["< /", "s >", "</ s>"],
    )
    assert 6 not in load_tokenizer(merged).encode("</s>")
    with_others = replace(merged, pre="gpt-2", types=[1] * 5 + [3, 1])
    assert 5 not in load_tokenizer(with_others).encode("s>")


def test_user_defined_tokens_are_found_in_any_text_longest_first() -> None:
    vocab = scored(["[x]", "[x][y]", "a"])
    vocab = replace(vocab, types=[*(vocab.types or ())[:259], 4, 4, 1], add_space_prefix=False, add_bos=False)
    tokenizer = load_tokenizer(vocab)
    assert tokenizer.encode("a[x][y]a[x]") == [261, 260, 261, 259]
    assert tokenizer.decode([261, 260, 261, 259]) == "a[x][y]a[x]"


def test_an_end_mark_called_user_defined_is_still_a_control_token() -> None:
    vocab = scored(["<|im_end|>", "a"])
    tokenizer = load_tokenizer(replace(vocab, types=[*(vocab.types or ())[:259], 4, 1]))
    assert 259 not in tokenizer.encode("<|im_end|>")
    assert tokenizer.end_tokens == {2, 259}


def test_end_tokens_are_those_of_the_file_and_the_known_control_tokens(tiny_bpe: Vocab) -> None:
    assert load_tokenizer(tiny_bpe).end_tokens == {0, 2}
    assert load_tokenizer(replace(tiny_bpe, eos=None, eot=7)).end_tokens == {0, 2, 7}


def test_lone_surrogates_become_the_replacement_character(tiny_bpe: Vocab, tiny_spm: Vocab) -> None:
    for vocab in (tiny_bpe, tiny_spm):
        tokenizer = load_tokenizer(vocab)
        assert tokenizer.decode(tokenizer.encode("a\ud800b", add_bos=False)) == "a\ufffdb"


@pytest.mark.parametrize("text", ["a" * 200_000, " " * 200_000, "ab" * 100_000, "</s>" * 50_000, "\n " * 100_000])
@pytest.mark.parametrize("kind", ["tiny_spm", "tiny_bpe", "tiny_raw"])
def test_no_text_takes_more_than_proportional_time(request: pytest.FixtureRequest, kind: str, text: str) -> None:
    tokenizer = _loaded(request.getfixturevalue(kind))
    started = time.process_time()
    tokens = tokenizer.encode(text, add_bos=False)
    assert time.process_time() - started < 10  # quadratic work would take minutes
    assert tokenizer.decode(tokens) == text


def test_a_token_that_does_not_exist_is_refused(tiny_spm: Vocab) -> None:
    tokenizer = load_tokenizer(tiny_spm)
    for token in (-1, tokenizer.vocab_size):
        with pytest.raises(UsageError, match="does not exist"):
            tokenizer.decode([token])
