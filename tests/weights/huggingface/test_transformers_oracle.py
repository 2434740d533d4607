"""What Hugging Face's transformers compute from the folders that we read and write, if it is installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import Architecture, make_tiny
from tests.tiny_hf import LLAMA3_ROPE, Tokenizer, make_tiny_hf
from tests.weights.converting import converted

from selfee.llama import Model, load_tokenizer
from selfee.weights.huggingface.stored import DType
from selfee.weights.open import open_checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = [
    "Hello world",
    "  two spaces  and\ttab\n\nnewlines\n",
    " leading",
    "trailing ",
    "emoji 😀👩‍👩‍👧 é ö 中文字",
    "12345 3.14159 1,000",
    "don't we'll I'M THEY'RE",
    "the of and to in ### Answer: blue light",
    "a<|im_start|>user\nhi<|im_end|>b",
    "x</s>y <s> z",
    "Ġ ▁ weird ▁▁ x",
    "\r\n\r\n  \x00\x01\x7f",
    "",
]
IDS = list(range(5, 45))
# Ours keeps keys and values in half precision; logits here have a standard deviation of 1 (qwen2: 4).
LARGEST_DIFFERENCE = 0.01


def their_logits(folder: Path) -> np.ndarray[Any, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        found: np.ndarray[Any, Any] = model(torch.tensor([IDS])).logits[0].numpy()
    return found


def our_logits(path: Path) -> np.ndarray[Any, Any]:
    with Model.load(path) as model:
        return model.new_session().forward(IDS, "all")


def assert_same_tokens(folder: Path, path: Path) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    with open_checkpoint(path) as checkpoint:
        ours = load_tokenizer(checkpoint.vocab)
    for text in TEXTS:
        assert ours.encode(text, parse_special=True) == theirs(text)["input_ids"], text


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16])
def test_a_folder_of_theirs_gives_the_logits_and_tokens_that_they_give(
    architecture: Architecture, dtype: DType, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    make_tiny_hf(folder, architecture=architecture, dtype=dtype, files=2, tied=architecture == "qwen2")
    path = converted(folder, tmp_path / "out.gguf", type="f32")
    assert np.abs(our_logits(path) - their_logits(folder)).max() < LARGEST_DIFFERENCE
    assert_same_tokens(folder, path)


@pytest.mark.parametrize("rope", [LLAMA3_ROPE, {"rope_type": "linear", "factor": 4.0}])
def test_scaled_positions_are_those_of_theirs(rope: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    make_tiny_hf(folder, n_head_kv=4, config={"rope_scaling": rope, "rope_theta": 5000.0})
    path = converted(folder, tmp_path / "out.gguf")
    assert np.abs(our_logits(path) - their_logits(folder)).max() < LARGEST_DIFFERENCE
    back = converted(path, tmp_path / "back", force=True) if rope["rope_type"] == "linear" else None
    assert back is None or np.array_equal(their_logits(back), their_logits(folder))


@pytest.mark.parametrize("tokenizer", ["spm", "spm-json"])
def test_both_forms_of_a_sentencepiece_vocabulary_give_the_tokens_of_sentencepiece(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    make_tiny_hf(folder, tokenizer=tokenizer)
    path = converted(folder, tmp_path / "out.gguf")
    with open_checkpoint(path) as checkpoint:
        ours = load_tokenizer(checkpoint.vocab)
    if tokenizer == "spm-json":
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        for text in TEXTS:
            assert ours.encode(text, parse_special=True) == theirs(text)["input_ids"], text
    else:
        sentencepiece = pytest.importorskip("sentencepiece")
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        for text in TEXTS:
            # It reads U+0000 as the end of a text, and U+2581 as what it is.
            if "\0" not in text and "<s>" not in text:
                assert ours.encode(text, add_bos=False) == model.encode(text) or not text, text


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("vocab", ["bpe", "spm"])
def test_they_load_the_folders_that_we_write(architecture: Architecture, vocab: Any, tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "in.gguf", architecture=architecture, vocab=vocab, n_head_kv=2)
    folder = converted(path, tmp_path / "folder", max_shard_bytes=100_000)
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert np.abs(our_logits(path) - their_logits(folder)).max() < LARGEST_DIFFERENCE
    if (architecture, vocab) != ("qwen2", "spm"):  # they read any qwen2's vocabulary as Qwen's own kind
        assert_same_tokens(folder, path)


def test_sentencepiece_reads_the_model_that_we_write(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    path = make_tiny(tmp_path / "in.gguf", vocab="spm")
    folder = converted(path, tmp_path / "folder")
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    with open_checkpoint(path) as checkpoint:
        vocab = checkpoint.vocab
        assert [model.id_to_piece(token) for token in range(len(vocab.tokens))] == [
            bytes(token).decode() for token in vocab.tokens
        ]
        assert [model.get_score(token) for token in range(len(vocab.tokens))] == list(vocab.scores or [])
        assert (model.unk_id(), model.bos_id(), model.eos_id(), model.pad_id()) == (0, 1, 2, -1)
        assert [model.is_byte(token) for token in range(len(vocab.tokens))] == [kind == 6 for kind in vocab.types or []]


def test_a_folder_that_they_save_is_read(tmp_path: Path) -> None:
    """Config keys and index of today's transformers, several shards, bfloat16."""
    make_tiny_hf(tmp_path / "source", tokenizer="bpe", config={"rope_scaling": LLAMA3_ROPE})
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "source", dtype=torch.bfloat16)
    saved = tmp_path / "saved"
    model.save_pretrained(saved, max_shard_size="100KB")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "source").save_pretrained(saved)
    path = converted(saved, tmp_path / "out.gguf", type="f32")
    assert len(list(saved.glob("*.safetensors"))) > 1
    assert np.abs(our_logits(path) - their_logits(saved)).max() < LARGEST_DIFFERENCE
    assert_same_tokens(saved, path)


@pytest.mark.slow
def test_a_real_model_says_the_same_in_both(tmp_path: Path) -> None:
    """SELFEE_TEST_MODEL is a .gguf file such as the built-in one; it goes to a folder and back."""
    model = Path(os.environ.get("SELFEE_TEST_MODEL", ""))
    if not model.is_file():
        pytest.skip("SELFEE_TEST_MODEL names no model file; set it to a .gguf file")
    folder = converted(model, tmp_path / "folder", type="f16")
    path = converted(folder, tmp_path / "again.gguf")
    assert_same_tokens(folder, path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with Model.load(path) as ours:
        tokenizer = load_tokenizer(ours.checkpoint.vocab)
        for text in ("The capital of France is", "def fibonacci(n):\n", "Once upon a time, in a small village"):
            prompt = tokenizer.encode(text)
            found = theirs.generate(torch.tensor([prompt]), max_new_tokens=32, do_sample=False)[0].tolist()
            session, tokens = ours.new_session(), list(prompt)
            logits = session.forward(tokens)
            while len(tokens) < len(found):
                tokens.append(int(np.argmax(logits[-1])))
                logits = session.forward(tokens[-1:])
            assert tokens == found
