"""A small random model in every container, architecture and block type: what all rooms' tests run on.

The weights mean nothing, the vocabulary is usable: any text can be written with it, English words and the headings of a
chain take few tokens. The same arguments give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selfee.weights.ggml import Hyper, feed_forward_length
from selfee.weights.ggml_writer import write_ggml
from selfee.weights.gguf_writer import TensorData, write_gguf
from selfee.weights.quantization.quantizers import quantize
from selfee.weights.quants import QuantType

Container = Literal["gguf", "gguf2", "gguf1", "ggjt3", "ggjt2", "ggjt1", "ggmf", "ggml"]
Architecture = Literal["llama", "qwen2", "qwen3"]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
    "+ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_TEXT = (
    "the of and to in is that it was for on are as with his they at be this have from or one had by word but not what "
    "all were we when your can said there use an each which she do how their if will up other about out many then them "
    "Answer Feedback Revision Response Instruction needed revision answer feedback because sky blue light scatters"
)
WORDS = tuple(_TEXT.split())

_FAMILIES = {"ggjt3": ("ggjt", 3), "ggjt2": ("ggjt", 2), "ggjt1": ("ggjt", 1), "ggmf": ("ggmf", 1), "ggml": ("ggml", 0)}
_VERSIONS = {"gguf": 3, "gguf2": 2, "gguf1": 1}
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 11}
_FILE_TYPES |= {"Q4_K": 14, "Q5_K": 16, "Q6_K": 18, "BF16": 32}


def make_tiny(
    path: Path,
    *,
    container: Container = "gguf",
    architecture: Architecture = "llama",
    type: QuantType = QuantType.F32,
    n_layer: int = 2,
    n_embd: int | None = None,
    n_head: int = 4,
    n_head_kv: int | None = None,
    head_dim: int | None = None,
    n_ctx: int = 512,
    tied: bool = False,
    rope_freqs: bool = False,
    vocab: Literal["bpe", "spm"] | None = None,
    n_vocab: int | None = None,
    seed: int = 0,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write a tiny model and return its path.

    Defaults: ``n_embd`` 64 (256 for k-quants), ``n_head_kv`` as ``n_head``, ``vocab`` "bpe" for GGUF ("spm" in GGML
    files, which know no other), ``n_vocab`` all of it (fewer: the first ones, without merges). Matrices are stored as
    ``type`` (k-quants take half a second to make). ``metadata`` is added to a GGUF file's own; None as a value takes a
    key away.
    """
    n_embd = n_embd or (256 if type.block_values == 256 else 64)
    shape = _Shape(
        architecture,
        type,
        n_layer,
        n_embd,
        n_head,
        n_head_kv or n_head,
        head_dim or n_embd // n_head,
        256 if n_embd % 256 == 0 else 32,
    )
    if container in _VERSIONS:
        words = _first(spm_vocab() if vocab == "spm" else bpe_vocab(), n_vocab)
        tensors = list(_tensors(shape, len(words["tokenizer.ggml.tokens"]), tied, rope_freqs, seed))
        keys = _metadata(shape, n_ctx) | words | (metadata or {})
        kept = {key: value for key, value in keys.items() if value is not None}
        write_gguf(path, kept, tensors, version=_VERSIONS[container])
    else:
        _write_ggml(path, container, shape, _first(spm_vocab(), n_vocab), seed)
    return path


def _first(words: dict[str, Any], count: int | None) -> dict[str, Any]:
    """The vocabulary cut to its first tokens."""
    if count is None:
        return words
    lists = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")
    cut = {key: value[:count] if key in lists else value for key, value in words.items()}
    return {key: value for key, value in cut.items() if key != "tokenizer.ggml.merges"}


@dataclass(frozen=True)
class _Shape:
    architecture: str
    type: QuantType
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_mult: int

    @property
    def n_ff(self) -> int:
        return feed_forward_length(self.n_embd, self.n_mult)


def _metadata(shape: _Shape, n_ctx: int) -> dict[str, Any]:
    arch = shape.architecture
    keys: dict[str, Any] = {
        "general.architecture": arch,
        "general.name": "tiny",
        "general.file_type": _FILE_TYPES[shape.type.name],
        "general.quantization_version": 2,
        f"{arch}.context_length": n_ctx,
        f"{arch}.embedding_length": shape.n_embd,
        f"{arch}.block_count": shape.n_layer,
        f"{arch}.feed_forward_length": shape.n_ff,
        f"{arch}.attention.head_count": shape.n_head,
        f"{arch}.attention.head_count_kv": shape.n_head_kv,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{arch}.rope.freq_base": 10000.0,
    }
    if shape.head_dim * shape.n_head != shape.n_embd:
        keys |= {f"{arch}.attention.key_length": shape.head_dim, f"{arch}.attention.value_length": shape.head_dim}
    return keys


def _tensors(shape: _Shape, n_vocab: int, tied: bool, rope_freqs: bool, seed: int) -> Iterator[TensorData]:
    rng = np.random.default_rng(seed)
    n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim

    def matrix(name: str, rows: int, columns: int, size: float | None = None) -> TensorData:
        blocks = quantize(shape.type, rng.normal(0, size or columns**-0.5, rows * columns))
        return TensorData(name, (rows, columns), shape.type, blocks)

    def vector(name: str, size: int, around: float, spread: float = 0.1) -> TensorData:
        values = rng.normal(around, spread, size)
        return TensorData(name, (size,), QuantType.F32, quantize(QuantType.F32, values))

    yield matrix("token_embd.weight", n_vocab, shape.n_embd, 0.5)
    yield vector("output_norm.weight", shape.n_embd, 1)
    if not tied:
        yield matrix("output.weight", n_vocab, shape.n_embd)
    if rope_freqs:
        factors = np.geomspace(1, 8, shape.head_dim // 2)
        yield TensorData("rope_freqs.weight", factors.shape, QuantType.F32, quantize(QuantType.F32, factors))
    for layer in range(shape.n_layer):
        block = f"blk.{layer}."
        yield matrix(block + "attn_q.weight", n_q, shape.n_embd)
        yield matrix(block + "attn_k.weight", n_kv, shape.n_embd)
        yield matrix(block + "attn_v.weight", n_kv, shape.n_embd)
        if shape.architecture == "qwen2":
            yield vector(block + "attn_q.bias", n_q, 0)
            yield vector(block + "attn_k.bias", n_kv, 0)
            yield vector(block + "attn_v.bias", n_kv, 0)
        if shape.architecture == "qwen3":
            yield vector(block + "attn_q_norm.weight", shape.head_dim, 1)
            yield vector(block + "attn_k_norm.weight", shape.head_dim, 1)
        yield matrix(block + "attn_output.weight", shape.n_embd, n_q)
        yield vector(block + "attn_norm.weight", shape.n_embd, 1)
        yield matrix(block + "ffn_gate.weight", shape.n_ff, shape.n_embd)
        yield matrix(block + "ffn_down.weight", shape.n_embd, shape.n_ff)
        yield matrix(block + "ffn_up.weight", shape.n_ff, shape.n_embd)
        yield vector(block + "ffn_norm.weight", shape.n_embd, 1)


def _write_ggml(path: Path, container: Container, shape: _Shape, words: dict[str, Any], seed: int) -> None:
    pieces = [_raw_piece(piece, kind) for piece, kind in zip(words["tokenizer.ggml.tokens"], words[_TYPES])]
    hyper = Hyper(
        n_vocab=len(pieces),
        n_embd=shape.n_embd,
        n_mult=shape.n_mult,
        n_head=shape.n_head,
        n_layer=shape.n_layer,
        n_rot=shape.head_dim,
        file_type=_FILE_TYPES[shape.type.name],
    )
    family, version = _FAMILIES[container]
    tensors = list(_tensors(shape, len(pieces), tied=False, rope_freqs=False, seed=seed))
    write_ggml(path, hyper, pieces, words["tokenizer.ggml.scores"].tolist(), tensors, family=family, version=version)


_TYPES = "tokenizer.ggml.token_type"
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6


def _raw_piece(piece: str, kind: int) -> bytes:
    if kind == _BYTE:
        return bytes([int(piece[3:5], 16)])
    return {_UNKNOWN: " \u2047 ", _CONTROL: ""}.get(kind, piece.replace("▁", " ")).encode()


def spm_vocab() -> dict[str, Any]:
    """Metadata of a SentencePiece-style vocabulary: bytes, characters, the words above and all their beginnings."""
    pieces: dict[str, int] = {"<unk>": _UNKNOWN, "<s>": _CONTROL, "</s>": _CONTROL}
    pieces |= {f"<0x{byte:02X}>": _BYTE for byte in range(256)}
    first_word = len(pieces)
    for word in WORDS:
        pieces |= {f"▁{word[:end]}": _NORMAL for end in range(1, len(word) + 1)}
    pieces |= {"##": _NORMAL, "###": _NORMAL, "▁": _NORMAL, "\n": _NORMAL}
    pieces |= {chr(code): _NORMAL for code in range(0x21, 0x7F)}
    scores = [0.0 if index < first_word else float(first_word - index) for index in range(len(pieces))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(pieces),
        "tokenizer.ggml.scores": np.array(scores, dtype=np.float32),
        _TYPES: np.array(list(pieces.values()), dtype=np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def bpe_vocab() -> dict[str, Any]:
    """Metadata of a byte-level vocabulary: three control tokens, GPT-2's 256 letters, merges for the words above."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    kinds = [_CONTROL] * len(tokens)
    tokens += gpt2_alphabet()
    merges: dict[str, str] = {}
    for word in WORDS:
        for end in range(1, len(word) + 1):
            merges[f"Ġ{word[:end]}"] = f"Ġ{word[: end - 1]} {word[end - 1]}"
    merges |= {"##": "# #", "###": "## #"}
    tokens += list(merges)
    kinds += [_NORMAL] * (len(tokens) - len(kinds))
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        _TYPES: np.array(kinds, dtype=np.int32),
        "tokenizer.ggml.merges": list(merges.values()),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }


def gpt2_alphabet() -> list[str]:
    """GPT-2's letter for each byte: the byte itself where it can be seen, else the next code point from 256 on."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) if byte in seen else chr(256 + hidden.index(byte)) for byte in range(256)]
