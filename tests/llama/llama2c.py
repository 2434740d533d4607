"""A trained model that fits into a test: a llama2.c checkpoint (seven numbers, then float32 tensors) as a GGUF file."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from selfee.weights.ggml import Hyper, feed_forward_length
from selfee.weights.ggml_writer import write_ggml
from selfee.weights.gguf_writer import TensorData, write_gguf
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.quantizers import quantize
from selfee.weights.quants import QuantType

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # types of tokens in GGUF files


def read_pieces(path: Path, count: int) -> list[bytes]:
    """The texts of a llama2.c tokenizer file: longest length, then score, length and bytes of each."""
    data, at, pieces = path.read_bytes(), 4, []
    for _ in range(count):
        (length,) = struct.unpack_from("<i", data, at + 4)
        pieces.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return pieces


def convert(source: Path, target: Path, tokenizer: Path | None = None) -> Path:
    """Write the checkpoint as GGUF, all tensors in F32; without a tokenizer file, the vocabulary is left out."""
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
    keys: dict[str, Any] = {
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
    if tokenizer is not None:
        keys |= vocabulary_keys(tokenizer, vocabulary)
    write_gguf(target, keys, tensors)
    return target


def vocabulary_keys(tokenizer: Path, count: int) -> dict[str, Any]:
    """The vocabulary as GGUF files hold it: spaces as U+2581, three special tokens, then bytes, then pieces."""
    pieces = read_pieces(tokenizer, count)[3:]
    is_byte = [re.fullmatch(rb"<0x[0-9A-F]{2}>", piece) is not None for piece in pieces]
    texts = ["<unk>", "<s>", "</s>", *(piece.decode().replace(" ", "\u2581") for piece in pieces)]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *(_BYTE if byte else _NORMAL for byte in is_byte)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": np.array(read_scores(tokenizer, count), "<f4"),
        "tokenizer.ggml.token_type": np.array(kinds, "<i4"),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def read_scores(path: Path, count: int) -> list[float]:
    """The scores of a llama2.c tokenizer file."""
    data, at, scores = path.read_bytes(), 4, []
    for _ in range(count):
        score, length = struct.unpack_from("<fi", data, at)
        scores.append(score)
        at += 8 + length
    return scores


def convert_to_ggml(source: Path, tokenizer: Path, target: Path) -> Path:
    """Write the checkpoint with its vocabulary as a GGML v3 file, as those of June 2023 are.

    GGML files know no keys and values that heads share, so each head gets a copy of its own: the same arithmetic.
    """
    data = source.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocabulary, _ = struct.unpack_from("<7i", data)
    with open_checkpoint(convert(source, target.with_suffix(".gguf"))) as checkpoint:
        tensors = []
        for name, tensor in checkpoint.tensors.items():
            values = checkpoint.read(name).view("<f4").reshape(tensor.shape)
            if "attn_k." in name or "attn_v." in name:
                shared = values.reshape(kv_heads, dim // heads, dim)
                values = np.repeat(shared, heads // kv_heads, axis=0).reshape(dim, dim)
            blocks = quantize(QuantType.F32, values.reshape(-1))
            tensors.append(TensorData(name, values.shape, QuantType.F32, blocks))
            if name == "token_embd.weight":
                tensors.append(TensorData("output.weight", values.shape, QuantType.F32, blocks))
    multiple = next(n for n in range(1, hidden + 1) if feed_forward_length(dim, n) == hidden)
    pieces = [b" \xe2\x81\x87 ", b"", b""]
    for piece in read_pieces(tokenizer, vocabulary)[3:]:
        is_byte = re.fullmatch(rb"<0x([0-9A-F]{2})>", piece)
        pieces.append(bytes([int(is_byte[1], 16)]) if is_byte else piece)
    hyper = Hyper(vocabulary, dim, multiple, heads, layers, dim // heads, 0)
    write_ggml(target, hyper, pieces, read_scores(tokenizer, vocabulary), tensors)
    return target
