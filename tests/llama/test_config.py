"""What is read of a model's configuration, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import make_tiny

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.llama.config import LlamaConfig
from selfee.weights.open import open_checkpoint


def config_of(tmp_path: Path, **arguments: Any) -> LlamaConfig:
    with open_checkpoint(make_tiny(tmp_path / "tiny.gguf", **arguments)) as checkpoint:
        return LlamaConfig.from_checkpoint(checkpoint)


def test_sizes_come_from_the_metadata(tmp_path: Path) -> None:
    config = config_of(tmp_path, n_layer=3, n_embd=96, n_head=6, n_head_kv=2, n_ctx=123)
    assert (config.layers, config.width, config.heads, config.kv_heads, config.head_dim) == (3, 96, 6, 2, 16)
    assert (config.q_width, config.kv_width, config.context_length, config.tied) == (96, 32, 123, False)
    assert config.norm_epsilon == pytest.approx(1e-5)


def test_a_head_may_be_wider_than_its_share_of_the_width(tmp_path: Path) -> None:
    config = config_of(tmp_path, architecture="qwen3", head_dim=32)
    assert (config.width, config.head_dim, config.q_width) == (64, 32, 128)


def test_only_the_llama_architecture_rotates_neighbours(tmp_path: Path) -> None:
    halves = [config_of(tmp_path, architecture=name).rope_halves for name in ("llama", "qwen2", "qwen3")]
    assert halves == [False, True, True]


def test_an_absent_output_matrix_means_that_the_embedding_is_used(tmp_path: Path) -> None:
    assert config_of(tmp_path, tied=True).tied


def test_frequencies_fall_from_one_by_the_base(tmp_path: Path) -> None:
    frequencies = config_of(tmp_path, metadata={"llama.rope.freq_base": 500000.0}).rope_frequencies
    assert frequencies == tuple(500000.0 ** (-2 * i / 16) for i in range(8))


@pytest.mark.parametrize(
    "keys",
    [
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        {"llama.rope.scale_linear": 4.0},
    ],
)
def test_linear_scaling_divides_all_frequencies(tmp_path: Path, keys: dict[str, Any]) -> None:
    plain, scaled = config_of(tmp_path).rope_frequencies, config_of(tmp_path, metadata=keys).rope_frequencies
    assert scaled == tuple(frequency / 4 for frequency in plain)


def test_a_scaling_factor_without_a_kind_of_scaling_means_nothing(tmp_path: Path) -> None:
    keys = {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}
    assert config_of(tmp_path, metadata=keys).rope_frequencies == config_of(tmp_path).rope_frequencies


def test_stored_factors_divide_each_frequency_by_its_own(tmp_path: Path) -> None:
    plain, scaled = config_of(tmp_path).rope_frequencies, config_of(tmp_path, rope_freqs=True).rope_frequencies
    assert np.allclose(np.divide(plain, scaled), np.geomspace(1, 8, 8), rtol=1e-6)


@pytest.mark.parametrize("kind", ["yarn", "longrope", "su", 7])
def test_unknown_rope_scaling_is_refused_by_name(tmp_path: Path, kind: object) -> None:
    with pytest.raises(UnsupportedFileError, match=f"rope scaling '?{kind}'?"):
        config_of(tmp_path, metadata={"llama.rope.scaling.type": kind})


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan, 1e30, "4", None])
def test_a_senseless_scaling_factor_is_refused(tmp_path: Path, factor: object) -> None:
    with pytest.raises(BadFileError, match="factor"):
        config_of(tmp_path, metadata={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": factor})


def test_senseless_stored_factors_are_refused(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", rope_freqs=True)
    with open_checkpoint(path) as checkpoint:
        at = checkpoint.tensors["rope_freqs.weight"].offset
    data = bytearray(path.read_bytes())
    for value in (0.0, -1.0, math.nan, math.inf):
        data[at : at + 4] = np.float32(value).tobytes()
        path.write_bytes(data)
        with open_checkpoint(path) as checkpoint, pytest.raises(BadFileError, match=r"rope_freqs\.weight"):
            LlamaConfig.from_checkpoint(checkpoint)


def test_a_foreign_architecture_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFileError, match="gemma"):
        config_of(tmp_path, metadata={"general.architecture": "gemma"})
