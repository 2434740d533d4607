"""An adapter added to a model is what the model trained with it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.tiny import make_tiny

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.adapter import FILE, TRAINED_ON_CHAINS, read_adapter, with_adapter
from selfee.weights.convert import ConvertOptions, Format, plan_conversion
from selfee.weights.huggingface.safetensors import TensorSource, write_safetensors
from selfee.weights.huggingface.stored import DType
from selfee.weights.open import open_checkpoint
from selfee.weights.quantize import Quantizer, dequantize
from selfee.weights.quants import QuantType

RANK = 2


def _hf_name(part: str) -> str:
    return f"base_model.model.model.layers.0.{part}"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.gguf"
    make_tiny(path)
    return path


def write_adapter(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> Path:
    def source(name: str, values: np.ndarray) -> TensorSource:
        raw = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
        return TensorSource(name, values.shape, DType.F32, lambda: [raw])

    write_safetensors(path, [source(name, values) for name, values in tensors.items()], metadata)
    return path


def pair(part: str, rows: int, columns: int, seed: int = 1) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        f"{_hf_name(part)}.lora_A.weight": draw.normal(size=(RANK, columns)),
        f"{_hf_name(part)}.lora_B.weight": draw.normal(size=(rows, RANK)),
    }


SCALES = {"r": str(RANK), "lora_alpha": "4"}


def values_of(checkpoint: object, name: str) -> np.ndarray:
    info = checkpoint.tensors[name]  # type: ignore[attr-defined]
    return dequantize(info.type, checkpoint.read(name)).reshape(info.shape)  # type: ignore[attr-defined]


def test_a_matrix_becomes_itself_and_the_scaled_product(base: Path, tmp_path: Path) -> None:
    with open_checkpoint(base) as model:
        rows, columns = model.tensors["blk.0.ffn_up.weight"].shape
        tensors = pair("mlp.up_proj", rows, columns)
        adapter = read_adapter(write_adapter(tmp_path / "a.safetensors", tensors, SCALES))
        adapted = with_adapter(model, adapter)
        down, up = (values.astype(np.float32).astype(np.float64) for values in tensors.values())
        expected = values_of(model, "blk.0.ffn_up.weight") + 4 / RANK * (up @ down)
        np.testing.assert_allclose(values_of(adapted, "blk.0.ffn_up.weight"), expected, rtol=1e-6)
        assert adapted.tensors["blk.0.ffn_up.weight"].type is QuantType.F32


def test_what_the_adapter_does_not_touch_is_the_bases_byte_for_byte(base: Path, tmp_path: Path) -> None:
    with open_checkpoint(base) as model:
        rows, columns = model.tensors["blk.0.ffn_up.weight"].shape
        adapter = read_adapter(write_adapter(tmp_path / "a.safetensors", pair("mlp.up_proj", rows, columns), SCALES))
        adapted = with_adapter(model, adapter)
        for name, info in model.tensors.items():
            if name != "blk.0.ffn_up.weight":
                assert adapted.tensors[name] == info
                assert np.array_equal(adapted.read(name), model.read(name))


@pytest.mark.parametrize("part", ["q_proj", "k_proj"])
def test_rows_of_heads_are_turned_as_the_file_has_them(base: Path, tmp_path: Path, part: str) -> None:
    # The same through a Hugging Face folder, where the adapter's rows lie as they are.
    name = f"blk.0.attn_{part[0]}.weight"
    folder, adapted_file = tmp_path / "hf", tmp_path / "adapted.gguf"
    with open_checkpoint(base) as model:
        plan_conversion(model, Format.SAFETENSORS, ConvertOptions(type="f32"), quantizer=Quantizer(1)).write(folder)
        rows, columns = model.tensors[name].shape
        tensors = pair(f"self_attn.{part}", rows, columns)
        adapter = read_adapter(write_adapter(tmp_path / "a.safetensors", tensors, SCALES))
        adapted = with_adapter(model, adapter)
        plan_conversion(adapted, Format.GGUF, ConvertOptions(), quantizer=Quantizer(1)).write(adapted_file)
    again = tmp_path / "hf2"
    with open_checkpoint(adapted_file) as model:
        plan_conversion(model, Format.SAFETENSORS, ConvertOptions(type="f32"), quantizer=Quantizer(1)).write(again)
    from selfee.weights.huggingface.shards import open_tensors

    hf = f"model.layers.0.self_attn.{part}.weight"
    with open_tensors(folder) as old, open_tensors(again) as new:
        before, after = (np.frombuffer(one.read(hf).tobytes(), np.float32).reshape(rows, columns) for one in (old, new))
    down, up = tensors.values()
    np.testing.assert_allclose(after - before, 4 / RANK * (up @ down), rtol=1e-4, atol=1e-5)


def test_a_file_made_with_an_adapter_trained_on_chains_says_so(base: Path, tmp_path: Path) -> None:
    with open_checkpoint(base) as model:
        rows, columns = model.tensors["blk.0.ffn_up.weight"].shape
        said = {**SCALES, TRAINED_ON_CHAINS: "true"}
        adapter = read_adapter(write_adapter(tmp_path / "a.safetensors", pair("mlp.up_proj", rows, columns), said))
        target = tmp_path / "made.gguf"
        adapted = with_adapter(model, adapter)
        plan_conversion(adapted, Format.GGUF, ConvertOptions(), quantizer=Quantizer(1)).write(target)
        old = dict(model.metadata)
    with open_checkpoint(target) as made:
        assert made.metadata[TRAINED_ON_CHAINS] is True
        assert {key: made.metadata[key] for key in ("general.architecture", "llama.block_count")} == {
            key: old[key] for key in ("general.architecture", "llama.block_count")
        }


def test_an_adapter_of_another_model_is_refused(base: Path, tmp_path: Path) -> None:
    with open_checkpoint(base) as model:
        adapter = read_adapter(write_adapter(tmp_path / "a.safetensors", pair("mlp.up_proj", 7, 5), SCALES))
        with pytest.raises(BadFileError, match="trained beside"):
            with_adapter(model, adapter)


def test_what_is_more_than_lora_is_refused(tmp_path: Path) -> None:
    tensors = pair("mlp.up_proj", 8, 8) | {"base_model.model.lm_head.weight": np.zeros((2, 2))}
    with pytest.raises(UnsupportedFileError, match="no half of a LoRA pair"):
        read_adapter(write_adapter(tmp_path / "a.safetensors", tensors, SCALES))
    half = dict(list(pair("mlp.up_proj", 8, 8).items())[1:])
    with pytest.raises(BadFileError, match="pairs"):
        read_adapter(write_adapter(tmp_path / "b.safetensors", half, SCALES))


def test_a_folder_of_peft_is_read_with_its_settings(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    write_adapter(folder / FILE, pair("mlp.up_proj", 8, 8), {})
    settings = {"r": RANK, "lora_alpha": 6, "use_dora": False, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    assert read_adapter(folder).scale == 3
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "use_dora": True}))
    with pytest.raises(UnsupportedFileError, match="DoRA"):
        read_adapter(folder)


def test_a_file_without_its_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="lora_alpha"):
        read_adapter(write_adapter(tmp_path / "a.safetensors", pair("mlp.up_proj", 8, 8), {}))
