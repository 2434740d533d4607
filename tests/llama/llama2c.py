"""A trained model that fits into a test: a llama2.c checkpoint (seven numbers, then float32 tensors) as a GGUF file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from selfee.weights.gguf_writer import TensorData, write_gguf
from selfee.weights.quantization.quantizers import quantize
from selfee.weights.quants import QuantType


def read_pieces(path: Path, count: int) -> list[bytes]:
    """The texts of a llama2.c tokenizer file: longest length, then score, length and bytes of each."""
    data, at, pieces = path.read_bytes(), 4, []
    for _ in range(count):
        (length,) = struct.unpack_from("<i", data, at + 4)
        pieces.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return pieces


def convert(source: Path, target: Path) -> Path:
    """Write the checkpoint as GGUF, all tensors in F32; the vocabulary is left out."""
    data = source.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocabulary, context = struct.unpack_from("<7i", data)
    kv_width = dim // heads * kv_heads
    values = np.frombuffer(data, "<f4", offset=28)
    tensors: list[TensorData] = []
    at = 0

    def take(name: str, *shape: int) -> None:
        nonlocal at
        count = int(np.prod(shape))
        tensors.append(TensorData(name, shape, QuantType.F32, quantize(QuantType.F32, values[at : at + count])))
        at += count

    take("token_embd.weight", vocabulary, dim)
    for name, *shape in (
        ("attn_norm", dim),
        ("attn_q", dim, dim),
        ("attn_k", kv_width, dim),
        ("attn_v", kv_width, dim),
        ("attn_output", dim, dim),
        ("ffn_norm", dim),
        ("ffn_gate", hidden, dim),
        ("ffn_down", dim, hidden),
        ("ffn_up", hidden, dim),
    ):
        for layer in range(layers):
            take(f"blk.{layer}.{name}.weight", *shape)
    take("output_norm.weight", dim)
    keys = {
        "general.architecture": "llama",
        "llama.context_length": context,
        "llama.embedding_length": dim,
        "llama.block_count": layers,
        "llama.feed_forward_length": hidden,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "no_vocab",
    }
    write_gguf(target, keys, tensors)
    return target
