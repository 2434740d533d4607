"""Model files of random weights in the shapes that are measured, written once and kept.

    python benchmarks/models.py --scratch FOLDER [--shape 1.1b] [--type q4_K_M ...]

The F16 file of a shape is written first and quantised by `selfee quantize`, so that every file has the mixture of types
that a user's file has. Layers are cut from one pool of Gaussian numbers of a trained model's size: plausible values,
finite logits, and quick to make.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from selfee.weights.gguf_writer import write_gguf
from selfee.weights.quants import QuantType
from selfee.weights.writing import Bytes, TensorData, TensorStream, TensorToWrite

TYPES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K_M", "q4_K_M", "q5_K_M", "q6_K")
_POOL_VALUES = 1 << 24
_ROWS_AT_A_TIME = 1024


@dataclass(frozen=True)
class Shape:
    """Sizes of a LLaMA."""

    width: int
    hidden: int
    layers: int
    heads: int
    key_heads: int
    words: int


SHAPES = {
    # Lies in a last-level cache of 32 MiB whatever its type: there arithmetic is compared free of the memory's moods.
    "one-layer": Shape(2048, 2816, 1, 32, 4, 512),
    "1.1b": Shape(2048, 5632, 22, 32, 4, 32_000),
    "7b": Shape(4096, 11008, 32, 32, 32, 32_000),
}


def model_file(scratch: Path, shape: str, type: str) -> Path:
    """The file of a shape and type in ``scratch``, made if it is not there."""
    scratch.mkdir(parents=True, exist_ok=True)
    path = scratch / f"{shape}-{type}.gguf"
    if path.exists():
        return path
    part = path.with_suffix(".part")
    if type == "f16":
        write_gguf(part, _metadata(shape), list(_tensors(SHAPES[shape])))
    else:
        source = model_file(scratch, shape, "f16")
        start = [sys.executable, "-c", "from selfee.cli import main; main()", "quantize", "--quiet"]
        subprocess.run([*start, str(source), str(part), type], check=True)
    part.rename(path)
    return path


def _metadata(name: str) -> dict[str, Any]:
    shape = SHAPES[name]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, 3, 3, *[6] * 256]
    pieces += [f"▁w{number}" for number in range(shape.words - len(pieces))]
    kinds += [1] * (shape.words - len(kinds))
    return {
        "general.architecture": "llama",
        "general.name": f"random {name}",
        "general.file_type": 1,
        "general.quantization_version": 2,
        "llama.context_length": 4096,
        "llama.embedding_length": shape.width,
        "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.hidden,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.key_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": shape.width // shape.heads,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": -np.arange(shape.words, dtype=np.float32),
        "tokenizer.ggml.token_type": np.array(kinds, dtype=np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def _tensors(shape: Shape) -> Iterator[TensorToWrite]:
    pool = np.random.default_rng(0).standard_normal(_POOL_VALUES, dtype=np.float32) * np.float32(0.02)
    halves = pool.astype(np.float16)
    keys = shape.width // shape.heads * shape.key_heads
    begin = 0

    def matrix(name: str, rows: int, columns: int) -> TensorStream:
        nonlocal begin
        begin = (begin + 7919 * 256) % _POOL_VALUES
        return TensorStream(name, (rows, columns), QuantType.F16, partial(_rows, halves, begin, rows, columns))

    yield matrix("token_embd.weight", shape.words, shape.width)
    yield _ones("output_norm.weight", shape.width)
    yield matrix("output.weight", shape.words, shape.width)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        yield _ones(block + "attn_norm.weight", shape.width)
        yield matrix(block + "ffn_down.weight", shape.width, shape.hidden)
        yield matrix(block + "ffn_gate.weight", shape.hidden, shape.width)
        yield matrix(block + "ffn_up.weight", shape.hidden, shape.width)
        yield _ones(block + "ffn_norm.weight", shape.width)
        yield matrix(block + "attn_k.weight", keys, shape.width)
        yield matrix(block + "attn_output.weight", shape.width, shape.width)
        yield matrix(block + "attn_q.weight", shape.width, shape.width)
        yield matrix(block + "attn_v.weight", keys, shape.width)


def _rows(pool: np.ndarray[Any, np.dtype[np.float16]], start: int, rows: int, columns: int) -> Iterator[Bytes]:
    for first in range(0, rows, _ROWS_AT_A_TIME):
        count = min(_ROWS_AT_A_TIME, rows - first) * columns
        at = (start + first * columns) % (len(pool) - count)
        yield pool[at : at + count].view(np.uint8).reshape(-1, 2 * columns)


def _ones(name: str, size: int) -> TensorData:
    return TensorData(name, (size,), QuantType.F32, np.ones(size, dtype=np.float32).view(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the files")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: 1.1b")
    parser.add_argument("--type", action="append", metavar="TYPE", help="default: all ten")
    options = parser.parse_args()
    for shape in options.shape or ["1.1b"]:
        for type in options.type or TYPES:
            print(model_file(options.scratch, shape, type), flush=True)


if __name__ == "__main__":
    main()
