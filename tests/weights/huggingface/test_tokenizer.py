"""A folder's tokenizer as a vocabulary: both kinds, added tokens, roles, the chat template, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import CHATML, bpe_vocab, spm_vocab
from tests.tiny_hf import Tokenizer, sentencepiece, spelt_out, write_byte_level, write_tokenizer
from tests.weights.converting import vocab_as_plain

from selfee.errors import BadFileError, UnsupportedFileError, UsageError
from selfee.llama import load_tokenizer
from selfee.weights.checkpoint import Vocab
from selfee.weights.huggingface.pretokenizers import PRE_TOKENIZERS, recognize, written_expression
from selfee.weights.huggingface.tokenizer import FolderVocab, read_tokenizer
from selfee.weights.huggingface.tokenizer_writer import tokenizer_files
from selfee.weights.mapped import StringArray
from selfee.weights.vocab import vocab_from_metadata
from selfee.weights.vocab_keys import vocab_metadata

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def read(folder: Path, rows: int, **options: Any) -> Vocab:
    return read_tokenizer(folder, rows, **options).vocab


def split(expression: str, **more: Any) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False} | more


@pytest.mark.parametrize(
    ("steps", "whole_words", "name"),
    [
        ([BYTES | {"use_regex": True}], False, "gpt-2"),
        ([BYTES], False, "gpt-2"),
        ([{"type": "Digits", "individual_digits": True}, BYTES | {"use_regex": True}], False, "smollm"),
        ([split(LLAMA3), BYTES | {"use_regex": False}], True, "llama-bpe"),
        ([split(LLAMA3, behavior="Removed", invert=True), BYTES | {"use_regex": False}], True, "llama-bpe"),
        ([split(LLAMA3), BYTES | {"use_regex": False}], False, "dbrx"),
        ([split(QWEN2), BYTES | {"use_regex": False}], False, "qwen2"),
        ([split(QWEN2), BYTES | {"use_regex": False}], True, None),
        ([split(r"\w+"), BYTES | {"use_regex": False}], False, None),
        ([split(QWEN2, behavior="MergedWithNext"), BYTES | {"use_regex": False}], False, None),
        ([{"type": "Whitespace"}, BYTES], False, None),
        ([BYTES | {"add_prefix_space": True}], False, None),
        ([split(QWEN2, pattern={"String": "x"}), BYTES], False, None),
        ([], False, None),
    ],
)
def test_the_family_of_cuts_is_recognised_by_its_steps(
    steps: list[dict[str, Any]], whole_words: bool, name: str | None
) -> None:
    assert recognize(steps, whole_words=whole_words) == name


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_every_family_is_recognised_as_it_is_written(name: str) -> None:
    family = PRE_TOKENIZERS[name]
    steps = [split(written_expression(expression)) for expression in family.expressions]
    found = recognize([*steps, BYTES | {"use_regex": False}], whole_words=family.whole_words)
    assert found is not None
    assert PRE_TOKENIZERS[found] == family


def test_a_byte_level_folder_is_read_whole(tmp_path: Path) -> None:
    count = write_tokenizer(tmp_path, "bpe")
    vocab = read(tmp_path, count)
    words = bpe_vocab()
    assert (vocab.model, vocab.pre) == ("gpt2", "smollm")
    assert [bytes(token).decode() for token in vocab.tokens] == words["tokenizer.ggml.tokens"]
    assert list(vocab.merges) == words["tokenizer.ggml.merges"]
    assert list(vocab.types or []) == words["tokenizer.ggml.token_type"].tolist()
    assert (vocab.bos, vocab.eos, vocab.unknown, vocab.padding, vocab.eot) == (1, 2, 0, 2, None)
    assert (vocab.add_bos, vocab.add_space_prefix, vocab.chat_template) == (False, False, CHATML)


def test_merges_as_pairs_are_those_as_texts(tmp_path: Path) -> None:
    words = bpe_vocab()
    texts, merges = words["tokenizer.ggml.tokens"], words["tokenizer.ggml.merges"]
    write_byte_level(tmp_path, texts, [merge.split(" ") for merge in merges], BYTES, special=texts[:3])
    vocab = read(tmp_path, len(texts))
    assert (vocab.pre, list(vocab.merges)) == ("gpt-2", merges)


@pytest.mark.parametrize("kind", ["spm", "spm-json"])
def test_both_forms_of_a_sentencepiece_vocabulary_cut_texts_alike(kind: Tokenizer, tmp_path: Path) -> None:
    count = write_tokenizer(tmp_path, kind)
    vocab = read(tmp_path, count)
    words = spm_vocab()
    assert (vocab.model, vocab.bos, vocab.eos, vocab.unknown) == ("llama", 1, 2, 0)
    assert (vocab.add_bos, vocab.add_space_prefix) == (True, True)
    assert [bytes(token).decode() for token in vocab.tokens] == words["tokenizer.ggml.tokens"]
    assert list(vocab.types or []) == words["tokenizer.ggml.token_type"].tolist()
    if kind == "spm":
        assert list(vocab.scores or []) == words["tokenizer.ggml.scores"].tolist()
    direct = load_tokenizer(vocab_from_metadata(Path("x"), _stored(words)))
    ours = load_tokenizer(vocab)
    for text in ("the word there", "  ### Answer: blue\n\n", "ümläut 😀", "a</s>b"):
        assert ours.encode(text, parse_special=True) == direct.encode(text, parse_special=True)


def _stored(words: dict[str, Any]) -> dict[str, Any]:
    lists = {
        key: StringArray([text.encode() for text in value]) for key, value in words.items() if isinstance(value, list)
    }
    return words | lists


def test_merges_that_scores_cannot_say_are_noted(tmp_path: Path) -> None:
    words = spm_vocab()
    whole = spelt_out(
        words["tokenizer.ggml.tokens"],
        words["tokenizer.ggml.scores"].tolist(),
        words["tokenizer.ggml.token_type"].tolist(),
    )
    whole["model"]["merges"] = whole["model"]["merges"][::2]
    write(tmp_path, "tokenizer.json", whole)
    found = read_tokenizer(tmp_path, len(words["tokenizer.ggml.tokens"]))
    assert any("may be cut into other tokens" in note for note in found.notes)


@pytest.mark.parametrize("file", ["added_tokens.json", "tokenizer_config.json"])
def test_the_pad_token_of_alpaca_is_row_32001(file: str, tmp_path: Path) -> None:
    """SelFee's own form: LLaMA's tokenizer.model and one token after it."""
    count = write_tokenizer(tmp_path, "spm")
    entry = (
        {"[PAD]": count}
        if file == "added_tokens.json"
        else {"added_tokens_decoder": {str(count): {"content": "[PAD]"}}}
    )
    write(tmp_path, file, entry)
    write(tmp_path, "special_tokens_map.json", {"pad_token": "[PAD]", "bos_token": "</s>"})
    vocab = read(tmp_path, count + 1)
    assert (len(vocab.tokens), bytes(vocab.tokens[-1])) == (count + 1, b"[PAD]")
    assert (vocab.scores or [])[-1] == -1000.0
    assert (vocab.types or [])[-1] == 3
    assert vocab.padding == count


def test_rows_without_a_token_get_unused_ones(tmp_path: Path) -> None:
    count = write_tokenizer(tmp_path, "bpe")
    write(tmp_path, "added_tokens.json", {"<|tool|>": count + 2})
    vocab = read(tmp_path, count + 4)
    added = [bytes(token).decode() for token in vocab.tokens[count:]]
    assert added == [f"[PAD{count}]", f"[PAD{count + 1}]", "<|tool|>", f"[PAD{count + 3}]"]
    assert list(vocab.types or [])[count:] == [5, 5, 4, 5]


def test_fewer_rows_than_tokens_say_what_to_do(tmp_path: Path) -> None:
    for kind, folder in (("spm", tmp_path / "a"), ("bpe", tmp_path / "b")):
        folder.mkdir()
        count = write_tokenizer(folder, kind)  # type: ignore[arg-type]
        with pytest.raises(BadFileError, match="--vocab-from"):
            read(folder, count - 1)
        write(folder, "added_tokens.json", {"<x>": count})
        with pytest.raises(BadFileError, match=r"rows.*--vocab-from"):
            read(folder, count)


def test_ends_of_a_turn_come_from_the_generation_config(tmp_path: Path) -> None:
    count = write_tokenizer(tmp_path, "bpe")
    write(tmp_path, "generation_config.json", {"eos_token_id": [2, 0]})
    assert read(tmp_path, count).eot == 0


def test_roles_that_the_tokenizer_leaves_open_come_from_the_config(tmp_path: Path) -> None:
    count = write_tokenizer(tmp_path, "bpe")
    write(tmp_path, "tokenizer_config.json", {"bos_token": None, "eos_token": "<|im_end|>"})
    vocab = read(tmp_path, count, special_ids={"bos": 1, "eos": 0, "padding": 99999})
    assert (vocab.bos, vocab.eos, vocab.padding) == (1, 2, None)


def test_the_template_file_wins_and_the_default_of_several_is_taken(tmp_path: Path) -> None:
    count = write_tokenizer(tmp_path, "bpe")
    several = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    write(tmp_path, "tokenizer_config.json", {"chat_template": several})
    assert read(tmp_path, count).chat_template == "b"
    (tmp_path / "chat_template.jinja").write_text("c {{ x }}", encoding="utf-8")
    assert read(tmp_path, count).chat_template == "c {{ x }}"


def test_an_unknown_cut_needs_its_name(tmp_path: Path) -> None:
    words = bpe_vocab()
    texts, merges = words["tokenizer.ggml.tokens"], words["tokenizer.ggml.merges"]
    cut = {"type": "Sequence", "pretokenizers": [split(r"\w+"), BYTES | {"use_regex": False}]}
    write_byte_level(tmp_path, texts, merges, cut, special=texts[:3])
    with pytest.raises(UnsupportedFileError, match=r"llama-bpe.*--pre NAME"):
        read(tmp_path, len(texts))
    assert read(tmp_path, len(texts), pre="qwen2").pre == "qwen2"
    with pytest.raises(UsageError, match="--pre 'nonsense'"):
        read(tmp_path, len(texts), pre="nonsense")


def test_the_older_pair_of_files_is_read_with_a_name_or_a_known_class(tmp_path: Path) -> None:
    words = bpe_vocab()
    texts, merges = words["tokenizer.ggml.tokens"], words["tokenizer.ggml.merges"]
    write(tmp_path, "vocab.json", {text: token for token, text in enumerate(texts)})
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match="--pre"):
        read(tmp_path, len(texts))
    vocab = read(tmp_path, len(texts), pre="smollm")
    assert (vocab.pre, list(vocab.merges)) == ("smollm", merges)
    write(tmp_path, "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"})
    assert read(tmp_path, len(texts)).pre == "qwen2"


def test_a_folder_without_a_tokenizer_says_which_files_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"tokenizer.model, tokenizer.json, or vocab.json"):
        read(tmp_path, 10)


def test_tiktoken_is_not_taken_for_sentencepiece(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(UnsupportedFileError, match="tiktoken"):
        read(tmp_path, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "'model' is None"),
        ({"model": {"type": "Unigram"}}, "of kind Unigram"),
        ({"model": {"type": "BPE"}}, "'vocab' is None"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}}}, "has id -1"),
        ({"model": {"type": "BPE", "vocab": {"a": 10**12}}}, "has id 1000000000000"),
        ({"model": {"type": "BPE", "vocab": {"a": "0"}}}, "has id '0'"),
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}}}, "share id 0"),
        ({"model": {"type": "BPE", "vocab": {"\ud800": 0}}}, "not Unicode text"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["abc"]}}, "merge 0"),
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}}, "joined text, that are tokens"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", 5]]}}, "merge 0"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": {}}}, "'merges'"),
        ({"added_tokens": [5]}, "'added_tokens'"),
        ({"added_tokens": [{"id": -1, "content": "x"}]}, "id -1"),
        ({"added_tokens": [{"id": 1, "content": ""}]}, "expected a text"),
        ({"added_tokens": [{"id": 10**15, "content": "x"}]}, "tokens; the embedding has"),
        ({"added_tokens": [{"id": 5, "content": "another"}]}, "in one file and"),
        ({"added_tokens": [{"id": 460, "content": "<|im_end|>"}]}, "in one file and|are both"),
        ({"pre_tokenizer": [1]}, "'pre_tokenizer'"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [1]}}, "'pretokenizers'"),
        ({"normalizer": {"type": "Lowercase"}}, "changes texts first"),
    ],
)
def test_damage_in_tokenizer_json_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    count = write_tokenizer(tmp_path, "bpe")
    whole = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    write(tmp_path, "tokenizer.json", whole | change)
    with pytest.raises(BadFileError, match=message) as caught:
        read(tmp_path, count)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 900


@given(
    st.dictionaries(
        st.sampled_from(["bos_token", "added_tokens_decoder", "chat_template", "add_bos_token", "tokenizer_class"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=5)
        | st.dictionaries(st.text(max_size=3), st.integers()),
    )
)
def test_any_settings_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> None:
    folder = tmp_path_factory.getbasetemp() / "settings"
    if not folder.exists():
        folder.mkdir()
        write_tokenizer(folder, "bpe")
    write(folder, "tokenizer_config.json", settings)
    try:
        found = read_tokenizer(folder, 470)
    except BadFileError as error:
        assert str(error).isprintable()  # noqa: PT017  # many examples raise, not all
    else:
        assert isinstance(found, FolderVocab)


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_what_is_written_reads_back(kind: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    count = write_tokenizer(tmp_path / "in", kind)
    write(tmp_path / "in", "added_tokens.json", {"<|tool|>": count, "[PAD]": count + 1})
    vocab = read(tmp_path / "in", count + 5)
    (tmp_path / "out").mkdir()
    for name, content in tokenizer_files("x", vocab, 512).items():
        (tmp_path / "out" / name).write_bytes(content)
    assert vocab_as_plain(read(tmp_path / "out", count + 5)) == vocab_as_plain(vocab)


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_a_vocabulary_survives_the_keys_of_gguf(kind: Tokenizer, tmp_path: Path) -> None:
    vocab = read(tmp_path, write_tokenizer(tmp_path, kind))
    again = vocab_from_metadata(Path("x"), vocab_metadata(vocab))
    assert vocab_as_plain(again) == vocab_as_plain(vocab)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["llama-spm", "gpt-2", "starcoder"])
def test_a_real_vocabulary_survives_a_folder(name: str, corpus: Path, tmp_path: Path) -> None:
    from selfee.weights.open import open_checkpoint

    path = corpus / "vocab" / f"ggml-vocab-{name}.gguf"
    with open_checkpoint(path) as checkpoint:
        vocab = checkpoint.vocab
    for file, content in tokenizer_files("x", vocab, 512).items():
        (tmp_path / file).write_bytes(content)
    again = read(tmp_path, len(vocab.tokens))
    before, after = vocab_as_plain(vocab), vocab_as_plain(again)
    if vocab.pre == "starcoder":
        assert PRE_TOKENIZERS[after.pop("pre")] == PRE_TOKENIZERS[before.pop("pre")]
    if vocab.model == "gpt2":  # no form but tokenizer.json: control or not is all that it says
        before.pop("types"), after.pop("types")
    assert after == before
    tokenizer = load_tokenizer(again)
    texts = path.with_suffix(".gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    wanted = [[int(token) for token in line.split()] for line in path.with_suffix(".gguf.out").read_text().splitlines()]
    for text, tokens in zip(texts, wanted, strict=False):
        assert tokenizer.encode(text, add_bos=False) == tokens


def test_nothing_reads_sentencepiece_of_a_wrong_kind(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece(["<unk>", "a"], [0.0, 0.0], [2, 1], kind=1))
    with pytest.raises(UnsupportedFileError, match="unigram"):
        read(tmp_path, 10)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json", "chat_template.jinja", "merges.txt"])
def test_a_pipe_is_refused_without_waiting_for_a_writer(name: str, tmp_path: Path) -> None:
    count = write_tokenizer(tmp_path, "bpe")
    if name != "chat_template.jinja":
        (tmp_path / "tokenizer.json").unlink()
    if name == "merges.txt":
        write(tmp_path, "vocab.json", {"a": 0})
    os.mkfifo(tmp_path / name)
    with pytest.raises(BadFileError, match="no file of at most"):
        read(tmp_path, count, pre="gpt-2")
