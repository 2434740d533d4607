"""The tiny model that the rooms' tests run on: sound in every form, and the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tiny import bpe_vocab, gpt2_alphabet, make_tiny, spm_vocab

from selfee.weights.architecture import check_architecture
from selfee.weights.finite import check_finite
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType, dequantize

READABLE = [type for type in QuantType if type.readable]


@pytest.mark.parametrize("type", READABLE, ids=lambda type: type.name)
def test_every_block_type_gives_a_sound_model_with_weights_of_sane_size(tmp_path: Path, type: QuantType) -> None:
    with open_checkpoint(make_tiny(tmp_path / "m.gguf", type=type)) as checkpoint:
        check_architecture(checkpoint)
        check_finite(checkpoint)
        for name, tensor in checkpoint.tensors.items():
            values = dequantize(tensor.type, checkpoint.read(name))
            assert np.abs(values).max() < 5
            if len(tensor.shape) == 2:
                assert 0.02 < values.std() < 0.8


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first = make_tiny(tmp_path / "a", type=QuantType.Q4_K).read_bytes()
    assert make_tiny(tmp_path / "b", type=QuantType.Q4_K).read_bytes() == first
    assert make_tiny(tmp_path / "c", type=QuantType.Q4_K, seed=1).read_bytes() != first


def test_the_byte_level_vocabulary_can_spell_every_byte_and_every_merge() -> None:
    words = bpe_vocab()
    tokens = words["tokenizer.ggml.tokens"]
    assert len(tokens) == len(set(tokens)) == len(words["tokenizer.ggml.token_type"])
    assert set(gpt2_alphabet()) <= set(tokens)
    assert len(set(gpt2_alphabet())) == 256
    for merge in words["tokenizer.ggml.merges"]:
        left, right = merge.split(" ")
        assert {left, right, left + right} <= set(tokens)


def test_the_sentencepiece_style_vocabulary_reaches_its_words_step_by_step() -> None:
    words = spm_vocab()
    tokens = words["tokenizer.ggml.tokens"]
    assert len(tokens) == len(set(tokens)) == len(words["tokenizer.ggml.scores"])
    assert {"▁", "▁t", "▁th", "▁the", "###", "\n"} <= set(tokens)
    assert tokens[3 + 0xFF] == "<0xFF>"


def test_a_shortened_vocabulary_shortens_the_matrices(tmp_path: Path) -> None:
    for container in ("gguf", "ggjt3"):
        path = make_tiny(tmp_path / "m", container=container, n_vocab=8)
        with open_checkpoint(path) as checkpoint:
            check_architecture(checkpoint)
            assert checkpoint.tensors["output.weight"].shape == (8, 64)
