"""Small random models as Hugging Face and Meta publish them, and the same weights in a GGUF file written directly.

Everything here is written by hand from the formats' descriptions, not by the code under test: names, rows of rotated
heads, protobuf.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tests.tiny import CHATML, Architecture, bpe_vocab, spm_vocab
from tests.weights.huggingface.craft_tensors import write_folder, write_state

from selfee.weights.gguf_writer import TensorData, write_gguf
from selfee.weights.huggingface.stored import DType
from selfee.weights.quants import QuantType

Array = npt.NDArray[np.float32]
Tokenizer = Literal["bpe", "spm", "spm-json"]
Form = Literal["safetensors", "bin", "meta"]

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_DTYPES = {DType.F32: "float32", DType.F16: "float16", DType.BF16: "bfloat16"}
_CUT = {"type": "Sequence", "pretokenizers": [
    {"type": "Digits", "individual_digits": True},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
]}  # fmt: skip
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Sizes:
    """The shape of a model."""

    architecture: Architecture = "llama"
    n_layer: int = 2
    n_embd: int = 64
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 16
    n_ff: int = 192
    n_vocab: int = 0
    tied: bool = False


def make_tiny_hf(
    folder: Path,
    *,
    architecture: Architecture = "llama",
    tokenizer: Tokenizer = "bpe",
    dtype: DType = DType.F32,
    form: Form = "safetensors",
    files: int = 1,
    n_head: int = 4,
    n_head_kv: int = 2,
    head_dim: int = 16,
    tied: bool = False,
    more_rows: int = 0,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Array]:
    """Write a model folder; returns its tensors by Hugging Face's names, as the values that are stored.

    ``files`` spreads the tensors over so many; ``more_rows`` are rows of the embedding without a token; ``config`` is
    added to config.json, None as a value takes a key away. The form "meta" is LLaMA with SentencePiece alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = write_tokenizer(folder, tokenizer)
    sizes = Sizes(
        architecture=architecture,
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        n_vocab=count + more_rows,
        tied=tied,
    )
    weights = {name: rounded(value, dtype) for name, value in random_weights(sizes, seed).items()}
    if form == "meta":
        _write_meta(folder, sizes, weights, files)
        return weights
    _write_json(folder / "config.json", _config(sizes, dtype), config)
    _write_json(folder / "generation_config.json", {"eos_token_id": [2, 1], "bos_token_id": 1})
    names = list(weights)
    parts = [names[start::files] for start in range(files)]
    if form == "bin":
        listed: dict[str, str] = {}
        for number, part in enumerate(parts, start=1):
            file = "pytorch_model.bin" if files == 1 else f"pytorch_model-{number:05}-of-{files:05}.bin"
            narrow = np.float16 if dtype is DType.F16 else np.float32
            write_state(folder / file, {name: weights[name].astype(narrow) for name in part})
            listed |= dict.fromkeys(part, file)
        if files > 1:
            _write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": listed})
        return weights
    shards = {
        "model.safetensors" if files == 1 else f"model-{number:05}-of-{files:05}.safetensors": {
            name: (dtype, stored(weights[name], dtype)) for name in part
        }
        for number, part in enumerate(parts, start=1)
    }
    write_folder(folder, shards, {"format": "pt"})
    return weights


def _config(sizes: Sizes, dtype: DType) -> dict[str, Any]:
    return {
        "architectures": [_CLASSES[sizes.architecture]],
        "model_type": sizes.architecture,
        "torch_dtype": _DTYPES[dtype],
        "hidden_size": sizes.n_embd,
        "intermediate_size": sizes.n_ff,
        "num_hidden_layers": sizes.n_layer,
        "num_attention_heads": sizes.n_head,
        "num_key_value_heads": sizes.n_head_kv,
        "head_dim": sizes.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": sizes.tied,
        "vocab_size": sizes.n_vocab,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def random_weights(sizes: Sizes, seed: int) -> dict[str, Array]:
    """Tensors by Hugging Face's names."""
    rng = np.random.default_rng(seed)
    queries, keys = sizes.n_head * sizes.head_dim, sizes.n_head_kv * sizes.head_dim

    def matrix(rows: int, columns: int, size: float | None = None) -> Array:
        return rng.normal(0, size or columns**-0.5, (rows, columns)).astype(np.float32)

    def vector(size: int, around: float) -> Array:
        return rng.normal(around, 0.1, size).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(sizes.n_vocab, sizes.n_embd, 0.5)}
    for layer in range(sizes.n_layer):
        attention, block = f"model.layers.{layer}.self_attn", f"model.layers.{layer}"
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            weights[f"{attention}.{name}_proj.weight"] = matrix(rows, sizes.n_embd)
            if sizes.architecture == "qwen2":
                weights[f"{attention}.{name}_proj.bias"] = vector(rows, 0)
        if sizes.architecture == "qwen3":
            weights[f"{attention}.q_norm.weight"] = vector(sizes.head_dim, 1)
            weights[f"{attention}.k_norm.weight"] = vector(sizes.head_dim, 1)
        weights[f"{attention}.o_proj.weight"] = matrix(sizes.n_embd, queries)
        weights[f"{block}.mlp.gate_proj.weight"] = matrix(sizes.n_ff, sizes.n_embd)
        weights[f"{block}.mlp.up_proj.weight"] = matrix(sizes.n_ff, sizes.n_embd)
        weights[f"{block}.mlp.down_proj.weight"] = matrix(sizes.n_embd, sizes.n_ff)
        weights[f"{block}.input_layernorm.weight"] = vector(sizes.n_embd, 1)
        weights[f"{block}.post_attention_layernorm.weight"] = vector(sizes.n_embd, 1)
    weights["model.norm.weight"] = vector(sizes.n_embd, 1)
    if not sizes.tied:
        weights["lm_head.weight"] = matrix(sizes.n_vocab, sizes.n_embd)
    return weights


def rounded(values: Array, dtype: DType) -> Array:
    """The values that storing in ``dtype`` leaves."""
    if dtype is DType.F16:
        return values.astype(np.float16).astype(np.float32)
    if dtype is DType.BF16:
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return values


def stored(values: Array, dtype: DType) -> npt.NDArray[Any]:
    """Rounded values as the bits of a file."""
    if dtype is DType.F16:
        return values.astype(np.float16)
    return (values.view(np.uint32) >> 16).astype(np.uint16) if dtype is DType.BF16 else values


_TENSORS = {
    "model.embed_tokens.weight": ("token_embd.weight", "tok_embeddings.weight"),
    "model.norm.weight": ("output_norm.weight", "norm.weight"),
    "lm_head.weight": ("output.weight", "output.weight"),
}
_LAYER_TENSORS = {
    "self_attn.q_proj": ("attn_q", "attention.wq"),
    "self_attn.k_proj": ("attn_k", "attention.wk"),
    "self_attn.v_proj": ("attn_v", "attention.wv"),
    "self_attn.o_proj": ("attn_output", "attention.wo"),
    "self_attn.q_norm": ("attn_q_norm", ""),
    "self_attn.k_norm": ("attn_k_norm", ""),
    "mlp.gate_proj": ("ffn_gate", "feed_forward.w1"),
    "mlp.up_proj": ("ffn_up", "feed_forward.w3"),
    "mlp.down_proj": ("ffn_down", "feed_forward.w2"),
    "input_layernorm": ("attn_norm", "attention_norm"),
    "post_attention_layernorm": ("ffn_norm", "ffn_norm"),
}


def other_names(name: str) -> tuple[str, str]:
    """GGUF's and Meta's name of a tensor."""
    if name in _TENSORS:
        return _TENSORS[name]
    _, _, layer, middle = name.split(".", 3)
    stem, ending = middle.rsplit(".", 1)
    gguf, meta = _LAYER_TENSORS[stem]
    return f"blk.{layer}.{gguf}.{ending}", f"layers.{layer}.{meta}.{ending}"


def for_neighbours(values: Array, heads: int) -> Array:
    """Rows of q or k in the order of programs that turn neighbouring values, spelt out row by row."""
    half = len(values) // heads // 2
    rows = [values[head * 2 * half + s * half + j] for head in range(heads) for j in range(half) for s in (0, 1)]
    return np.stack(rows)


def write_direct_gguf(
    path: Path, weights: Mapping[str, Array], metadata: Mapping[str, Any], heads: tuple[int, int]
) -> Path:
    """The same weights in F32 as a GGUF file, written without the converter."""
    tensors = []
    for name, values in weights.items():
        gguf, _ = other_names(name)
        if metadata["general.architecture"] == "llama" and gguf.endswith(("attn_q.weight", "attn_k.weight")):
            values = for_neighbours(values, heads["attn_k" in gguf])
        tensors.append(TensorData(gguf, values.shape, QuantType.F32, values.view(np.uint8)))
    write_gguf(path, metadata, tensors)
    return path


def _write_meta(folder: Path, sizes: Sizes, weights: Mapping[str, Array], files: int) -> None:
    """Meta's form: rows of q and k for neighbours, matrices split over the files."""
    parts: list[dict[str, npt.NDArray[Any]]] = [{} for _ in range(files)]
    for name, values in weights.items():
        gguf, meta = other_names(name)
        if gguf.endswith(("attn_q.weight", "attn_k.weight")):
            values = for_neighbours(values, sizes.n_head_kv if "attn_k" in gguf else sizes.n_head)
        columns = meta.endswith(("wo.weight", "w2.weight")) or meta.startswith("tok_")
        pieces = [values] * files if values.ndim == 1 else np.split(values, files, axis=1 if columns else 0)
        for part, piece in zip(parts, pieces, strict=True):
            part[meta] = np.ascontiguousarray(piece).astype(np.float16 if values.ndim > 1 else np.float32)
    for number, part in enumerate(parts):
        write_state(folder / f"consolidated.{number:02}.pth", part)
    params = {"dim": sizes.n_embd, "multiple_of": 32, "n_heads": sizes.n_head, "n_kv_heads": sizes.n_head_kv}
    _write_json(folder / "params.json", params | {"n_layers": sizes.n_layer, "norm_eps": 1e-06, "vocab_size": -1})


def write_tokenizer(folder: Path, kind: Tokenizer) -> int:
    """The tokenizer's files as other programs write them; returns the number of tokens."""
    if kind == "bpe":
        words = bpe_vocab()
        texts = words["tokenizer.ggml.tokens"]
        write_byte_level(folder, texts, words["tokenizer.ggml.merges"], _CUT, special=texts[:3])
        settings = {"bos_token": texts[1], "eos_token": texts[2], "unk_token": texts[0], "pad_token": texts[2]}
        _write_json(folder / "tokenizer_config.json", settings | {"chat_template": CHATML, "add_bos_token": False})
        return len(texts)
    words = spm_vocab()
    texts, scores = words["tokenizer.ggml.tokens"], words["tokenizer.ggml.scores"].tolist()
    types = words["tokenizer.ggml.token_type"].tolist()
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>", "pad_token": None}
    _write_json(folder / "tokenizer_config.json", settings | {"tokenizer_class": "LlamaTokenizer", "legacy": True})
    if kind == "spm":
        (folder / "tokenizer.model").write_bytes(sentencepiece(texts, scores, types))
    else:
        _write_json(folder / "tokenizer.json", spelt_out(texts, scores, types))
    return len(texts)


def write_byte_level(
    folder: Path,
    texts: Sequence[str],
    merges: Sequence[Any],
    cut: Mapping[str, Any],
    *,
    special: Sequence[str],
    **model: Any,
) -> None:
    """A tokenizer.json of bytes."""
    added = [_added(list(texts).index(text), text) for text in special]
    vocab = {text: token for token, text in enumerate(texts)}
    whole = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": cut,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": list(merges)} | model,
    }
    _write_json(folder / "tokenizer.json", whole)


def _added(token: int, text: str, *, special: bool = True) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token, "content": text, **plain, "special": special}


def spelt_out(texts: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> dict[str, Any]:
    """A SentencePiece vocabulary as merges, as Hugging Face's converter makes it."""
    normal = {text: token for token, (text, type) in enumerate(zip(texts, types, strict=True)) if type == 1}
    merges = []
    for text in sorted(normal, key=lambda text: -scores[normal[text]]):
        merges += [
            f"{text[:cut]} {text[cut:]}" for cut in range(1, len(text)) if text[:cut] in normal and text[cut:] in normal
        ]
    added = [_added(token, texts[token]) for token in range(3)]
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {text: token for token, text in enumerate(texts)},
            "merges": merges,
        },
    }


def sentencepiece(texts: Sequence[str], scores: Sequence[float], types: Sequence[int], kind: int = 2) -> bytes:
    """A tokenizer.model: protobuf by hand."""

    def varint(value: int) -> bytes:
        return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])

    def field(number: int, value: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(value)) + value

    def entry(text: str, score: float, type: int) -> bytes:
        return field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(type)

    pieces = b"".join(field(1, entry(*piece)) for piece in zip(texts, scores, types, strict=True))
    trainer = b"\x18" + varint(kind) + b"\x20" + varint(len(texts)) + varint(35 << 3) + b"\x01"
    normalizer = field(1, b"identity") + b"\x18\x01\x20\x00\x28\x01"
    return pieces + field(2, trainer) + field(3, normalizer)


def _write_json(path: Path, value: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> None:
    kept = {key: item for key, item in (dict(value) | dict(more or {})).items() if item is not None or more is None}
    path.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
