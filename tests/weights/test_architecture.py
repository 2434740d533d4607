"""Models that can be run are told from those that cannot, tensor by tensor and key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import Architecture, make_tiny
from tests.weights.craft import refused

from selfee.errors import UnsupportedFileError
from selfee.weights.architecture import check_architecture, read_dimensions
from selfee.weights.checkpoint import TensorInfo
from selfee.weights.gguf_writer import TensorData, write_gguf
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType

ARCHITECTURES: list[Architecture] = ["llama", "qwen2", "qwen3"]

METADATA: dict[str, tuple[dict[str, Any], str]] = {
    "no architecture": ({"general.architecture": None}, "general.architecture is missing"),
    "architecture 7": ({"general.architecture": 7}, "general.architecture is missing or no text"),
    "another architecture": ({"general.architecture": "mamba"}, "architecture 'mamba'; selfee runs llama, qwen2, qwe"),
    "no context": ({"llama.context_length": None}, "llama.context_length is missing"),
    "context 0": ({"llama.context_length": 0}, "llama.context_length is 0; expected a whole number from 1"),
    "context 2**31": ({"llama.context_length": 2**31}, "llama.context_length is 2147483648"),
    "no embedding length": ({"llama.embedding_length": None}, "llama.embedding_length is missing"),
    "embedding 0": ({"llama.embedding_length": 0}, "llama.embedding_length is 0"),
    "embedding a text": ({"llama.embedding_length": "64"}, "llama.embedding_length is '64'"),
    "embedding true": ({"llama.embedding_length": True}, "llama.embedding_length is True"),
    "embedding not divisible": ({"llama.embedding_length": 66}, "head_count is 4; expected a divisor of .* 66"),
    "embedding too large": ({"llama.embedding_length": 128}, "expected"),
    "layers 0": ({"llama.block_count": 0}, "llama.block_count is 0"),
    "layers -1": ({"llama.block_count": -1}, "llama.block_count is -1"),
    "layers 10**9": ({"llama.block_count": 10**9}, "block_count is 1000000000; expected at most the 21 tensors"),
    "layers 513": ({"llama.block_count": 513}, "block_count is 513; expected at most the 21 tensors"),
    "layers 3": ({"llama.block_count": 3}, "tensors are missing: blk.2.* and 6 more"),
    "layers 1": ({"llama.block_count": 1}, "tensors foreign to llama with 1 layers: blk.1.* and 6 more"),
    "heads 0": ({"llama.attention.head_count": 0}, "llama.attention.head_count is 0"),
    "heads 5": ({"llama.attention.head_count": 5}, "head_count_kv is 4; expected a divisor of the 5 heads"),
    "key heads 0": ({"llama.attention.head_count_kv": 0}, "llama.attention.head_count_kv is 0"),
    "key heads 3": ({"llama.attention.head_count_kv": 3}, "head_count_kv is 3; expected a divisor of the 4 heads"),
    "key heads 2": ({"llama.attention.head_count_kv": 2}, "attn_k.weight': shape 64 x 64; expected 32 x 64"),
    "head of 0": ({"llama.attention.key_length": 17}, "key_length is 17; expected an even number"),
    "value heads of another size": ({"llama.attention.value_length": 8}, "value_length is 8; expected the size of a"),
    "rotation of more than a head": ({"llama.rope.dimension_count": 32}, "rope.dimension_count is 32; expected"),
    "feed forward 0": ({"llama.feed_forward_length": 0}, "llama.feed_forward_length is 0"),
    "feed forward 100": ({"llama.feed_forward_length": 100}, "ffn_gate.weight': shape 192 x 64; expected 100 x 64"),
    "widths that differ": (
        {"llama.feed_forward_length": np.array([192, 128], dtype=np.uint32)},
        "feed_forward_length differs from layer to layer",
    ),
    "no widths": ({"llama.feed_forward_length": np.array([], dtype=np.uint32)}, "feed_forward_length differs"),
    "epsilon missing": ({"llama.attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing"),
    "epsilon NaN": ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "layer_norm_rms_epsilon is nan"),
    "epsilon 0": ({"llama.attention.layer_norm_rms_epsilon": 0.0}, "layer_norm_rms_epsilon is 0.0"),
    "epsilon negative": ({"llama.attention.layer_norm_rms_epsilon": -1.0}, "layer_norm_rms_epsilon is -1.0"),
    "frequency infinite": ({"llama.rope.freq_base": float("inf")}, "rope.freq_base is inf"),
    "frequency 0": ({"llama.rope.freq_base": 0.0}, "rope.freq_base is 0.0"),
    "experts": ({"llama.expert_count": 8}, "is a mixture of experts"),
    "another vocabulary size": ({"llama.vocab_size": 7}, "vocab_size is 7; expected the 462 rows"),
    "vocabulary 0": ({"llama.vocab_size": 0}, "vocab_size is 0; expected a whole number from 1"),
    "vocabulary -1": ({"llama.vocab_size": -1}, "vocab_size is -1"),
    "vocabulary 2**31": ({"llama.vocab_size": 2**31}, "vocab_size is 2147483648"),
    "one of three parts": ({"split.count": np.uint16(3)}, "is one of 3 parts of a model; join them first"),
    "fewer tokens than rows": (
        {"tokenizer.ggml.tokens": ["a", "b", "c"], "tokenizer.ggml.token_type": None},
        "'token_embd.weight': 462 rows for 3 tokens",
    ),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_out_of_range_is_refused_by_name(tmp_path: Path, name: str) -> None:
    metadata, message = METADATA[name]
    refused(make_tiny(tmp_path / "m.gguf", metadata=metadata), message)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("n_head_kv", [4, 2, 1])
@pytest.mark.parametrize("tied", [False, True])
def test_sound_models_pass(tmp_path: Path, architecture: Architecture, n_head_kv: int, tied: bool) -> None:
    path = make_tiny(tmp_path / "m", architecture=architecture, n_head_kv=n_head_kv, tied=tied, rope_freqs=True)
    with open_checkpoint(path) as checkpoint:
        check_architecture(checkpoint)
        found = read_dimensions(checkpoint)
    assert (found.architecture, found.n_head_kv, found.head_dim, found.n_ff) == (architecture, n_head_kv, 16, 192)


def test_heads_may_be_wider_than_the_embedding_divided(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m", architecture="qwen3", head_dim=32)
    with open_checkpoint(path) as checkpoint:
        check_architecture(checkpoint)
        assert read_dimensions(checkpoint).head_dim == 32


def test_a_width_given_for_each_layer_passes_when_all_are_equal(tmp_path: Path) -> None:
    widths = np.array([192, 192], dtype=np.uint32)
    with open_checkpoint(make_tiny(tmp_path / "m", metadata={"llama.feed_forward_length": widths})) as checkpoint:
        check_architecture(checkpoint)
        assert read_dimensions(checkpoint).n_ff == 192


def rewritten(source: Path, target: Path, change: dict[str, TensorData | None], **metadata: Any) -> Path:
    """A copy of a model in which tensors are replaced, removed (None) or added."""
    with open_checkpoint(source) as checkpoint:
        kept = [
            TensorData(tensor.name, tensor.shape, tensor.type, np.array(checkpoint.read(tensor.name)))
            for tensor in checkpoint.tensors.values()
            if tensor.name not in change
        ]
        write_gguf(target, checkpoint.metadata, kept + [tensor for tensor in change.values() if tensor])
    return target


def zeros(name: str, shape: tuple[int, ...], type: QuantType = QuantType.F32) -> TensorData:
    count = int(np.prod(shape)) // type.block_values * type.block_bytes
    return TensorData(name, shape, type, np.zeros(count, dtype=np.uint8))


def test_each_missing_tensor_is_missed(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "sound", architecture="qwen2", n_layer=1)
    with open_checkpoint(source) as checkpoint:
        names = list(checkpoint.tensors)
    for name in set(names) - {"output.weight", "token_embd.weight"}:
        refused(rewritten(source, tmp_path / "m", {name: None}), f"tensors are missing: {name}; the model is incompl")
    refused(rewritten(source, tmp_path / "m", {"token_embd.weight": None}), "'token_embd.weight' is missing")


def test_each_tensor_of_wrong_shape_is_found(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "sound", architecture="qwen3", n_layer=1, rope_freqs=True)
    with open_checkpoint(source) as checkpoint:
        tensors: list[TensorInfo] = list(checkpoint.tensors.values())
    for tensor in tensors:
        shape = (*tensor.shape[:-1], tensor.shape[-1] + 32)
        path = rewritten(source, tmp_path / "m", {tensor.name: zeros(tensor.name, shape)})
        refused(path, f"'{tensor.name}': shape .*; expected")


def test_a_vector_stored_as_a_matrix_is_found(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "sound")
    path = rewritten(source, tmp_path / "m", {"output_norm.weight": zeros("output_norm.weight", (1, 64))})
    refused(path, "'output_norm.weight': shape 1 x 64; expected 64")


def test_extra_tensors_are_listed(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "sound")
    extra = {name: zeros(name, (64,)) for name in ("blk.0.attn_q.bias", "evil\x1b[2J")}
    path = rewritten(source, tmp_path / "m", dict(extra))
    refused(path, r"foreign to llama with 2 layers: blk.0.attn_q.bias, evil\\x1b\[2J;", error=UnsupportedFileError)


def test_a_matrix_in_a_type_we_cannot_compute_with_is_refused(tmp_path: Path) -> None:
    name = "blk.0.attn_q.weight"
    path = rewritten(make_tiny(tmp_path / "sound"), tmp_path / "m", {name: zeros(name, (64, 64), QuantType.IQ4_NL)})
    refused(path, f"'{name}': stored as IQ4_NL, which selfee does not compute with", error=UnsupportedFileError)


def test_a_norm_in_blocks_is_refused(tmp_path: Path) -> None:
    name = "output_norm.weight"
    path = rewritten(make_tiny(tmp_path / "sound"), tmp_path / "m", {name: zeros(name, (64,), QuantType.Q8_0)})
    refused(path, f"'{name}': stored as Q8_0; expected F32, F16 or BF16", error=UnsupportedFileError)


def test_a_ggml_file_without_output_is_incomplete(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "sound", container="ggjt3")
    content = source.read_bytes()
    at = content.index(b"output.weight")
    refused_path = tmp_path / "m.bin"
    refused_path.write_bytes(content[:at] + b"Output" + content[at + 6 :])
    refused(refused_path, "tensors are missing: output.weight")
