"""config.json and params.json in GGUF's words, and what of them is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.huggingface.config import HfConfig, Llama3Scaling, config_json, meta_metadata, read_config, short
from selfee.weights.huggingface.json_file import JsonFile, read_json

PLAIN: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-06,
    "vocab_size": 32000,
}


def config(**changes: Any) -> HfConfig:
    return read_config(JsonFile(Path("config.json"), {**PLAIN, **changes}))


def test_llama_1_is_read_as_its_gguf_files_have_it() -> None:
    assert dict(config().metadata) == {
        "general.architecture": "llama",
        "llama.context_length": 2048,
        "llama.embedding_length": 4096,
        "llama.block_count": 32,
        "llama.feed_forward_length": 11008,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 32,
        "llama.attention.layer_norm_rms_epsilon": 1e-06,
        "llama.rope.freq_base": 10000.0,
        "llama.rope.dimension_count": 128,
        "llama.vocab_size": 32000,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 500000.0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}, "rope_theta": 1.0},
        {"rope_theta": 500000.0, "rope_scaling": None},
        {"rope_theta": 500000, "rope_scaling": {"type": "default"}},
    ],
)
def test_the_base_of_positions_stands_in_old_and_new_places(changes: dict[str, Any]) -> None:
    read = config(**changes)
    assert read.metadata["llama.rope.freq_base"] == 500000.0
    assert read.scaling is None


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_linear_scaling_is_two_keys(key: str) -> None:
    read = config(rope_scaling={key: "linear", "factor": 2})
    assert read.metadata["llama.rope.scaling.type"] == "linear"
    assert read.metadata["llama.rope.scaling.factor"] == 2.0


def test_the_factors_of_llama_3_1_are_those_of_its_formula() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    read = config(rope_theta=500000.0, rope_scaling=scaling | {"original_max_position_embeddings": 8192})
    assert read.scaling is not None
    factors = read.scaling.factors(128, 500000.0)
    for pair, factor in enumerate(factors):
        wavelength = 2 * math.pi * 500000.0 ** (2 * pair / 128)
        if wavelength < 8192 / 4:
            expected = 1.0
        elif wavelength > 8192:
            expected = 8.0
        else:
            share = (8192 / wavelength - 1) / 3
            expected = 1 / ((1 - share) / 8 + share)
        assert factor == np.float32(expected)
    assert sorted(factors) == list(factors)


def test_qwen3_has_heads_of_128_unless_it_says_otherwise() -> None:
    assert config(model_type="qwen3").metadata["qwen3.rope.dimension_count"] == 128
    odd = config(model_type="qwen3", head_dim=64)
    assert odd.metadata["qwen3.attention.key_length"] == odd.metadata["qwen3.attention.value_length"] == 64


def test_mistral_is_a_llama_whose_window_is_noted() -> None:
    read = config(model_type="mistral", sliding_window=1024, num_key_value_heads=8)
    assert read.architecture == "llama"
    assert "1024 tokens" in read.notes[0]
    assert not config(model_type="qwen2", sliding_window=1024, use_sliding_window=False).notes
    assert not config(sliding_window=4096).notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gemma"}, r"'gemma'.*llama, mistral, qwen2, qwen3"),
        ({"model_type": None}, "model_type is 'None'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"num_local_experts": 8}, "mixture of experts"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'"),
    ],
)
def test_what_selfee_does_not_compute_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedFileError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": None},
        {"hidden_size": "4096"},
        {"hidden_size": -1},
        {"hidden_size": True},
        {"hidden_size": 1 << 40},
        {"num_attention_heads": 0},
        {"rms_norm_eps": "x"},
        {"rms_norm_eps": float("nan")},
        {"rope_theta": -1.0},
        {"rope_scaling": "linear"},
        {"rope_scaling": {"rope_type": "linear"}},
        {"rope_scaling": {"rope_type": "linear", "factor": 0}},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"tie_word_embeddings": "yes"},
        {"model_type": 5},
        {"quantization_config": [1]},
    ],
)
def test_values_of_a_wrong_kind_or_size_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadFileError, match=r"config.json: .*; expected"):
        config(**changes)


@given(
    eps=st.sampled_from([1e-5, 1e-6, 5e-6]),
    heads=st.sampled_from([(8, 8), (8, 2)]),
    base=st.sampled_from([10000.0, 500000.0, 1000000.0]),
    scaling=st.sampled_from([None, {"rope_type": "linear", "factor": 4.0}]),
    architecture=st.sampled_from(["llama", "qwen2", "qwen3"]),
)
def test_what_is_written_reads_back(
    eps: float, heads: tuple[int, int], base: float, scaling: dict[str, Any] | None, architecture: str
) -> None:
    changes = {"hidden_size": 64, "num_attention_heads": heads[0], "num_key_value_heads": heads[1], "head_dim": 8}
    read = config(model_type=architecture, rms_norm_eps=eps, rope_theta=base, rope_scaling=scaling, **changes)
    stored = {key: short(value) if isinstance(value, float) else value for key, value in read.metadata.items()}
    written = config_json(stored, dtype="float16", tied=False, factors=None, where="x")
    again = read_config(JsonFile(Path("config.json"), json.loads(json.dumps(written))))
    assert dict(again.metadata) == dict(read.metadata)
    assert written["rms_norm_eps"] == eps


@given(factor=st.sampled_from([2.0, 8.0, 32.0]), original=st.sampled_from([4096, 8192]))
def test_llama_3_1s_settings_are_found_again_from_its_factors(factor: float, original: int) -> None:
    factors = Llama3Scaling(factor, 1.0, 4.0, original).factors(128, 500000.0)
    stored = {**config(rope_theta=500000.0).metadata}
    written = config_json(stored, dtype="float16", tied=False, factors=factors, where="x")
    assert written["rope_scaling"]["factor"] == factor
    assert written["rope_scaling"]["original_max_position_embeddings"] == original


@pytest.mark.parametrize(
    ("params", "context"),
    [
        ({"norm_eps": 1e-06}, 2048),
        ({"norm_eps": 1e-05}, 4096),
        ({"norm_eps": 1e-05, "rope_theta": 1000000.0}, 16384),
        ({"norm_eps": 1e-05, "rope_theta": 500000.0}, 8192),
    ],
)
def test_metas_params_leave_the_context_to_be_guessed(params: dict[str, Any], context: int) -> None:
    file = JsonFile(Path("params.json"), {"dim": 4096, "n_heads": 32, "n_layers": 32, "multiple_of": 256} | params)
    read = meta_metadata(file, n_ff=11008, n_vocab=32000, context=None)
    assert read.metadata["llama.context_length"] == context
    assert "--context" in read.notes[0]
    told = meta_metadata(file, n_ff=11008, n_vocab=32000, context=77)
    assert told.metadata["llama.context_length"] == 77
    assert not told.notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[1]", "holds a list"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_a_file_that_is_no_json_object_is_one_clear_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=message) as caught:
        read_json(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@given(st.dictionaries(st.sampled_from([*PLAIN, "rope_scaling", "head_dim"]), st.none() | st.integers() | st.text()))
def test_any_values_are_read_or_refused(changes: dict[str, Any]) -> None:
    try:
        config(**changes)
    except BadFileError as error:
        assert str(error).isprintable()  # noqa: PT017  # most examples raise, not all
