"""Folders of Hugging Face and Meta as checkpoints: the same model as a GGUF file written directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.tiny import Architecture
from tests.tiny_hf import LLAMA3_ROPE, Form, Tokenizer, make_tiny_hf, stored, write_direct_gguf
from tests.weights.converting import converted
from tests.weights.huggingface.craft_tensors import write_folder

from selfee.errors import BadFileError, UnsupportedFileError, UsageError
from selfee.llama import LlamaConfig, Model
from selfee.weights.architecture import check_architecture
from selfee.weights.huggingface.checkpoint import HfCheckpoint, open_folder
from selfee.weights.huggingface.stored import DType
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType
from selfee.weights.summary import summarize

IDS = list(range(5, 25))


def logits(path: Path) -> npt.NDArray[np.float32]:
    with Model.load(path, threads=1) as model:
        return model.new_session().forward(IDS, "all")


def edit(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: item for key, item in value.items() if item is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize(
    ("form", "dtype", "files"),
    [
        ("safetensors", DType.F32, 1),
        ("safetensors", DType.F16, 3),
        ("safetensors", DType.BF16, 2),
        ("bin", DType.F32, 1),
        ("bin", DType.F16, 2),
    ],
)
def test_a_folder_computes_what_a_gguf_file_of_the_same_weights_computes(
    architecture: Architecture, form: Form, dtype: DType, files: int, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    weights = make_tiny_hf(folder, architecture=architecture, form=form, dtype=dtype, files=files)
    with open_checkpoint(folder) as checkpoint:
        check_architecture(checkpoint)
        direct = write_direct_gguf(tmp_path / "direct.gguf", weights, checkpoint.metadata, (4, 2))
        assert {tensor.type.name for tensor in checkpoint.tensors.values()} <= {dtype.value, "F32"}
        assert next(iter(checkpoint.tensors)) == "token_embd.weight"
    through = converted(folder, tmp_path / "through.gguf", type="f32")
    with open_checkpoint(direct) as one, open_checkpoint(through) as other:
        for name in one.tensors:
            assert one.read(name).tobytes() == other.read(name).tobytes(), name
    assert np.array_equal(logits(direct), logits(through))
    if dtype is DType.F32:  # the engine rounds activations for F16 weights
        assert np.array_equal(logits(folder), logits(direct))


@pytest.mark.parametrize("files", [1, 2])
def test_metas_parts_are_the_same_model(files: int, tmp_path: Path) -> None:
    tokenizer: Tokenizer = "spm"
    weights = make_tiny_hf(tmp_path / "meta", form="meta", tokenizer=tokenizer, dtype=DType.F16, files=files)
    with open_checkpoint(tmp_path / "meta") as checkpoint:
        assert checkpoint.container == "pytorch"
        direct = write_direct_gguf(tmp_path / "direct.gguf", weights, checkpoint.metadata, (4, 2))
        assert checkpoint.metadata["llama.feed_forward_length"] == 192
        assert checkpoint.metadata["llama.attention.head_count_kv"] == 2
        assert checkpoint.metadata["llama.context_length"] == 2048
    through = converted(tmp_path / "meta", tmp_path / "through.gguf", type="f32")
    assert np.array_equal(logits(direct), logits(through))


def test_metas_tokenizer_may_lie_beside_the_folder(tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "meta", form="meta", tokenizer="spm")
    (tmp_path / "meta" / "tokenizer.model").rename(tmp_path / "tokenizer.model")
    with open_checkpoint(tmp_path / "meta") as checkpoint:
        assert checkpoint.vocab.model == "llama"


def test_llama_3_1_gets_its_factors_as_a_tensor(tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "folder", config={"rope_scaling": LLAMA3_ROPE, "rope_theta": 5000.0})
    path = converted(tmp_path / "folder", tmp_path / "out.gguf")
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensors["rope_freqs.weight"].type is QuantType.F32
        frequencies = LlamaConfig.from_checkpoint(checkpoint).rope_frequencies
    plain = 5000.0 ** (-np.arange(8) / 8)
    assert frequencies[0] == plain[0]
    assert frequencies[-1] == pytest.approx(plain[-1] / 8)


def test_a_tied_model_may_store_its_output_all_the_same(tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "folder", config={"tie_word_embeddings": True})
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        assert "output.weight" not in checkpoint.tensors


def test_tables_that_anybody_can_compute_are_passed_over(tmp_path: Path) -> None:
    weights = make_tiny_hf(tmp_path / "folder")
    tensors = {name: (DType.F32, value) for name, value in weights.items()}
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = (DType.F32, np.ones(8, np.float32))
    write_folder(tmp_path / "folder", {"model.safetensors": tensors})
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        check_architecture(checkpoint)


def test_inspecting_a_folder_tells_what_it_is(tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "folder", dtype=DType.BF16, files=2)
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        summary = summarize(checkpoint)
    assert (summary.container, summary.architecture, summary.name) == ("safetensors", "llama", "folder")
    assert summary.warnings == ()
    assert summary.file_bytes > 2 * summary.parameters


def test_a_folder_changed_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "folder")
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        checkpoint.verify_unchanged()
        path = tmp_path / "folder" / "model.safetensors"
        with path.open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"x")
        with pytest.raises(BadFileError, match="changed"):
            checkpoint.verify_unchanged()


def test_a_missing_tensor_and_pages_given_back(tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "folder")
    with open_folder(tmp_path / "folder") as checkpoint:
        assert isinstance(checkpoint, HfCheckpoint)
        with pytest.raises(BadFileError, match="has no tensor 'x'"):
            checkpoint.read("x")
        before = checkpoint.read("blk.0.attn_q.weight").tobytes()
        checkpoint.release("blk.0.attn_q.weight")
        assert checkpoint.read("blk.0.attn_q.weight").tobytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 463}, "vocab_size"),
        ({"num_hidden_layers": 3}, "tensors are missing: blk.2"),
        ({"num_hidden_layers": 1}, "tensors foreign"),
        ({"num_hidden_layers": 2**31 - 1}, "block_count"),
        ({"intermediate_size": 200}, r"ffn_gate.weight.*192 x 64; expected 200 x 64"),
        ({"hidden_size": 128, "head_dim": 16}, "shape"),
        ({"num_key_value_heads": 4}, r"attn_k.weight"),
        ({"num_key_value_heads": 3}, "head_count_kv"),
        ({"head_dim": 15}, "even"),
        ({"rms_norm_eps": 0}, "layer_norm_rms_epsilon"),
        ({"model_type": "qwen3"}, "attn_q_norm"),
        ({"model_type": "qwen2"}, "attn_q.bias"),
    ],
)
def test_a_config_that_does_not_fit_the_tensors_is_refused_and_nothing_is_written(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    make_tiny_hf(tmp_path / "folder")
    edit(tmp_path / "folder" / "config.json", **changes)
    with pytest.raises(BadFileError, match=message) as caught:
        converted(tmp_path / "folder", tmp_path / "out.gguf")
    assert str(caught.value).startswith(str(tmp_path / "folder"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_tensors_of_another_kind_are_refused(tmp_path: Path) -> None:
    weights = make_tiny_hf(tmp_path / "folder")
    tensors: dict[str, tuple[DType, npt.NDArray[Any]]] = {name: (DType.F32, value) for name, value in weights.items()}
    odd = tensors | {"model.norm.weight": (DType.I8, np.ones(64, np.int8))}
    write_folder(tmp_path / "folder", {"model.safetensors": odd})
    with pytest.raises(UnsupportedFileError, match=r"model.norm.weight.*I8"):
        open_checkpoint(tmp_path / "folder")
    odd = tensors | {"model.extra.weight": (DType.F32, np.ones(3, np.float32))}
    write_folder(tmp_path / "folder", {"model.safetensors": odd})
    with pytest.raises(UnsupportedFileError, match=r"model.extra.weight"):
        converted(tmp_path / "folder", tmp_path / "out.gguf")


def test_a_matrix_of_one_dimension_is_a_wrong_shape(tmp_path: Path) -> None:
    weights = make_tiny_hf(tmp_path / "folder")
    tensors = {name: (DType.F16, stored(value, DType.F16)) for name, value in weights.items()}
    for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"):
        flat = tensors | {name: (DType.F16, tensors[name][1].reshape(-1))}
        write_folder(tmp_path / "folder", {"model.safetensors": flat})
        with pytest.raises(BadFileError, match=r"no matrix|shape"):
            converted(tmp_path / "folder", tmp_path / "out.gguf")


def test_folders_without_a_model_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"config.json nor params.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="safetensors"):
        open_checkpoint(tmp_path)


def test_the_tokenizer_of_another_folder_is_taken(tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "folder")
    other = tmp_path / "other"
    other.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "folder" / name).rename(other / name)
    with pytest.raises(BadFileError, match="--vocab-from"):
        open_checkpoint(tmp_path / "folder")
    with open_folder(tmp_path / "folder", vocab_from=other) as checkpoint:
        assert len(checkpoint.vocab.tokens) == 462
