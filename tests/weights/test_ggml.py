"""GGML written here reads back, and says under GGUF's keys what the file itself leaves out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.requantize import requantize
from tests.tiny import make_tiny

from selfee.errors import UsageError
from selfee.weights.architecture import check_architecture
from selfee.weights.ggml import Hyper, feed_forward_length
from selfee.weights.ggml_writer import write_ggml
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType

HYPER = Hyper(n_vocab=3, n_embd=64, n_mult=32, n_head=4, n_layer=1, n_rot=16, file_type=0)

pieces = st.lists(st.binary(max_size=20), min_size=3, max_size=3)
scores = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=3, max_size=3)


@given(tokens=pieces, scores=scores, family=st.sampled_from(["ggjt", "ggmf", "ggml"]))
def test_vocabularies_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[bytes], scores: list[float], family: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "law.bin"
    version = {"ggjt": 3, "ggmf": 1, "ggml": 0}[family]
    write_ggml(path, HYPER, tokens, scores, [], family=family, version=version)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.vocab.tokens) == tokens
        assert checkpoint.vocab.scores == (None if family == "ggml" else scores)


def test_what_the_file_leaves_out_is_filled_in(tmp_path: Path) -> None:
    with open_checkpoint(make_tiny(tmp_path / "old.bin", container="ggjt3", n_head_kv=2)) as checkpoint:
        found = {key: value for key, value in checkpoint.metadata.items() if not key.startswith("tokenizer")}
    assert found == {
        "general.architecture": "llama",
        "general.name": "old",
        "general.file_type": 0,
        "llama.vocab_size": 558,
        "llama.context_length": 2048,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "llama.rope.dimension_count": 16,
        "llama.feed_forward_length": 192,
    }


@pytest.mark.parametrize(("n_embd", "n_ff"), [(4096, 11008), (5120, 13824), (6656, 17920), (8192, 22016)])
def test_feed_forward_widths_of_the_published_models(n_embd: int, n_ff: int) -> None:
    assert feed_forward_length(n_embd, 256) == n_ff


def test_feed_forward_width_of_llama_2_70b() -> None:
    assert feed_forward_length(8192, 4096, 1.3) == 28672


def test_tensor_data_of_ggjt_begins_at_multiples_of_32(tmp_path: Path) -> None:
    with open_checkpoint(make_tiny(tmp_path / "m", container="ggjt3")) as checkpoint:
        assert all(tensor.offset % 32 == 0 for tensor in checkpoint.tensors.values())
    with open_checkpoint(make_tiny(tmp_path / "m", container="ggmf")) as checkpoint:
        assert any(tensor.offset % 32 for tensor in checkpoint.tensors.values())


def test_containers_and_vocabularies_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ggjt version 4: there is no such container"):
        write_ggml(tmp_path / "m", HYPER, [b""] * 3, [0] * 3, [], version=4)
    with pytest.raises(UsageError, match="2 tokens and 3 scores; the model has 3"):
        write_ggml(tmp_path / "m", HYPER, [b""] * 2, [0] * 3, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["q5_1", "q2_K", "q4_K_M"])
def test_a_requantised_model_is_sound_and_as_large_as_its_types_say(tmp_path: Path, name: str) -> None:
    source = make_tiny(tmp_path / "f16", container="ggjt1", n_layer=1, n_embd=256, n_vocab=64, type=QuantType.F16)
    with open_checkpoint(requantize(source, tmp_path / "m", name)) as checkpoint:
        check_architecture(checkpoint)
        types = {tensor.type for tensor in checkpoint.tensors.values() if len(tensor.shape) == 2}
        sizes = [int(np.prod(t.shape)) * t.type.block_bytes // t.type.block_values for t in checkpoint.tensors.values()]
        assert sizes == [tensor.nbytes for tensor in checkpoint.tensors.values()]
    expected = {"q5_1": "Q5_1", "q2_K": "Q2_K Q4_K", "q4_K_M": "Q4_K Q6_K"}
    assert types == {QuantType[part] for part in expected[name].split()}


@pytest.mark.corpus
def test_the_vocabulary_file_of_2023_opens_without_tensors(corpus: Path) -> None:
    with open_checkpoint(corpus / "vocab/ggml-vocab.bin") as checkpoint:
        assert checkpoint.container == "ggjt v1"
        assert len(checkpoint.vocab.tokens) == 32000
        assert checkpoint.vocab.tokens[29909] == b"A" == checkpoint.vocab.tokens[68]
        assert not checkpoint.tensors
