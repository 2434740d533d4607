"""A model described: numbers that add up, texts that cannot hurt a terminal."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import CHATML, make_tiny
from tests.weights.craft import Described, array, gguf, pair, text, u32

from selfee.weights.gguf import ValueType
from selfee.weights.open import open_checkpoint
from selfee.weights.printable import printable
from selfee.weights.quants import QuantType
from selfee.weights.summary import Summary, plan_memory, summarize


def described(path: Path, context: int | None = None) -> Summary:
    with open_checkpoint(path) as checkpoint:
        return summarize(checkpoint, context)


def test_the_numbers_of_a_model_add_up(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf", type=QuantType.Q4_0, n_head_kv=2)
    found = described(path)
    assert (found.container, found.architecture, found.name) == ("gguf v3", "llama", "tiny")
    assert {row.type: row.tensors for row in found.tensors} == {"Q4_0": 16, "F32": 5}
    assert found.parameters == sum(row.values for row in found.tensors)
    assert found.bits_per_weight == round(8 * sum(row.bytes for row in found.tensors) / found.parameters, 4)
    assert found.tensors[0].bytes * 8 / found.tensors[0].values == 4.5
    assert found.memory is not None
    assert found.memory.weights == path.stat().st_size == found.file_bytes
    assert found.memory.context == 512
    # Keys and values of 2 bytes for 2 layers, 2 heads of 16, 512 tokens.
    assert found.memory.kv_cache == 2 * 2 * 2 * 2 * 16 * 512
    assert found.memory.total == found.memory.weights + found.memory.kv_cache + found.memory.scratch
    assert found.warnings == ()
    assert found.chat_template == CHATML


def test_memory_grows_with_the_context(tmp_path: Path) -> None:
    found = described(make_tiny(tmp_path / "m.gguf"))
    assert found.dimensions is not None
    small, large = plan_memory(found.dimensions, 0, 100), plan_memory(found.dimensions, 0, 200)
    assert large.kv_cache == 2 * small.kv_cache
    assert small.scratch < large.scratch


def test_the_vocabulary_is_described(tmp_path: Path) -> None:
    vocab = described(make_tiny(tmp_path / "m.gguf")).vocab
    assert (vocab.kind, vocab.pre, vocab.size) == ("byte-level BPE", "smollm", 462)
    assert [(token.role, token.id, token.text) for token in vocab.special] == [
        ("bos", 1, "<|im_start|>"),
        ("eos", 2, "<|im_end|>"),
        ("unknown", 0, "<|endoftext|>"),
        ("padding", 2, "<|im_end|>"),
    ]


@pytest.mark.parametrize("container", ["gguf", "gguf1", "ggjt3", "ggml"])
def test_a_summary_is_json_without_long_arrays(tmp_path: Path, container: str) -> None:
    found = described(make_tiny(tmp_path / "m", container=container))  # type: ignore[arg-type]
    words = json.dumps(found.as_json(), allow_nan=False)
    assert len(words) < 4000
    assert json.loads(words)["memory"]["total"] > 0


def test_arrays_of_texts_are_counted_not_listed(tmp_path: Path) -> None:
    found = described(make_tiny(tmp_path / "m.gguf", metadata={"x.nan": float("nan"), "x.short": ["a", "b"]}))
    assert found.metadata["tokenizer.ggml.tokens"] == "<array of 462 texts>"
    assert found.metadata["tokenizer.ggml.token_type"] == "<array of 462 numbers>"
    assert found.metadata["x.short"] == ["a", "b"]
    assert found.metadata["x.nan"] == "nan"


def test_a_model_that_cannot_be_run_is_described_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    name = pair("general.architecture", ValueType.STRING, text("rwkv\x1b[31m"))
    path.write_bytes(gguf([name], [Described("w", (256, 2), QuantType.IQ2_XXS)], bytes(132)))
    found = described(path)
    assert found.dimensions is None
    assert found.memory is None
    assert found.tensors[0].type == "IQ2_XXS"
    assert found.warnings[0].startswith(r"cannot be run: architecture 'rwkv\x1b[31m'; selfee runs llama, qwen2, qwen3")
    assert "there is no vocabulary: texts cannot be read or written" in found.warnings


def test_an_empty_gguf_file_is_described(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf())
    assert described(path).parameters == 0


def test_doubtful_vocabularies_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    twice = array("tokenizer.ggml.tokens", ValueType.STRING, 3, text("a") + text("b") + text("a"))
    model = pair("tokenizer.ggml.model", ValueType.STRING, text("gpt2"))
    path.write_bytes(gguf([twice, model, u32("x", 1)]))
    warnings = " / ".join(described(path).warnings)
    assert "1 tokens have the text of another one" in warnings
    assert "there is no end-of-text token" in warnings
    assert "the way to cut text before merging is not named" in warnings
    path.write_bytes(gguf([twice, pair("tokenizer.ggml.model", ValueType.STRING, text("t5"))]))
    assert "the vocabulary is of kind 't5', which selfee does not read" in described(path).warnings
    assert "the tokens have no scores" in " ".join(described(make_tiny(tmp_path / "g", container="ggml")).warnings)


@given(st.text() | st.binary(), st.integers(1, 50))
def test_printable_text_is_one_line_without_control_characters(words: str | bytes, limit: int) -> None:
    shown = printable(words, limit)
    assert len(shown) <= limit
    assert all(char == " " or unicodedata.category(char)[0] not in "CZ" for char in shown)
    shown.encode("utf-8")


@given(st.text("abc äöü漢字 !?<|>", max_size=50))
def test_harmless_text_is_shown_as_it_is(words: str) -> None:
    assert printable(words) == words


def test_escape_codes_line_ends_and_direction_marks_are_spelled_out() -> None:
    assert printable("a\x1b[31m\r\n\u202eb\U000e0001") == "a\\x1b[31m\\x0d\\x0a\\u202eb\\U000e0001"
    assert printable(b"\xff\x9b") == "\\xff\\x9b"
    assert printable("x" * 300) == "x" * 199 + "…"
