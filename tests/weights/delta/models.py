"""A base model and one trained from it, as folders: sharded, of several number types, with a grown vocabulary."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from tests.weights.huggingface.craft_tensors import Array, Shards, write_folder

from selfee.weights.huggingface.shards import open_tensors
from selfee.weights.huggingface.stored import DType

Model = dict[str, tuple[DType, Array]]
VOCAB, DIM = 40, 16


def bf16(values: Array) -> Array:
    """Rounded to nearest, ties to even, as uint16."""
    bits = values.astype("<f4").view("<u4")
    rounded: Array = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return rounded


def to_f32(bits: Array) -> Array:
    return (bits.astype("<u4") << 16).view("<f4")


def trained(bits: Array, rng: np.random.Generator, size: float = 1e-3) -> Array:
    """bf16 weights after a random walk of training."""
    return bf16(to_f32(bits) + rng.normal(0, size, bits.shape).astype("<f4"))


def base_and_target(seed: int = 0, layers: int = 2, vocab: int = VOCAB, dim: int = DIM) -> tuple[Model, Model]:
    """bf16 matrices; one tensor only in the base, one only in the target, one of another type, one unchanged."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Array:
        return bf16(rng.normal(0, 0.02, (rows, columns)))

    base: Model = {"model.embed_tokens.weight": (DType.BF16, matrix(vocab, dim))}
    for layer in range(layers):
        base[f"model.layers.{layer}.self_attn.q_proj.weight"] = (DType.BF16, matrix(dim, dim))
        base[f"model.layers.{layer}.mlp.up_proj.weight"] = (DType.BF16, matrix(3 * dim, dim))
        base[f"model.layers.{layer}.input_layernorm.weight"] = (DType.F32, np.ones(dim, "<f4"))
    base["model.norm.weight"] = (DType.F16, rng.normal(1, 0.1, dim).astype("<f2"))
    base["lm_head.weight"] = (DType.BF16, matrix(vocab, dim))
    base["model.layers.0.self_attn.rotary_emb.inv_freq"] = (DType.F32, np.arange(4, dtype="<f4"))
    target = {
        name: (dtype, trained(array, rng) if dtype is DType.BF16 else array) for name, (dtype, array) in base.items()
    }
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        grown = np.concatenate([target[name][1], matrix(1, dim)])
        target[name] = (DType.BF16, grown)
    target["model.norm.weight"] = (DType.BF16, bf16(base["model.norm.weight"][1].astype("<f4")))
    del target["model.layers.0.self_attn.rotary_emb.inv_freq"]
    target["score.weight"] = (DType.F64, rng.normal(size=(2, dim)))
    target["position_ids"] = (DType.I64, np.arange(6, dtype="<i8").reshape(1, 6))
    return base, target


def spread(model: Model, count: int) -> Shards:
    """Over that many files, or one."""
    if count == 1:
        return {"model.safetensors": model}
    names = list(model)
    return {
        f"model-{number + 1:05}-of-{count:05}.safetensors": {name: model[name] for name in names[number::count]}
        for number in range(count)
    }


def write_model(folder: Path, model: Model, count: int = 1, **small_files: str) -> Path:
    """A folder with config.json and tokenizer.json (or other contents, by name with _ for .)."""
    write_folder(folder, spread(model, count), {"format": "pt"})
    files = {"config.json": json.dumps({"vocab_size": len(model["lm_head.weight"][1])}), "tokenizer.json": "{}"}
    files |= {name.replace("_json", ".json"): content for name, content in small_files.items()}
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def tensors_of(folder: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """What a model is to whoever loads it: type, shape and bytes of each tensor."""
    with open_tensors(folder) as opened:
        return {
            name: (found.dtype.value, found.shape, hashlib.sha256(opened.read(name).data).hexdigest())
            for name, found in opened.tensors.items()
        }


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
