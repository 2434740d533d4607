"""Whether a file holds a model that can be run: sizes within range, every tensor there in its right shape.

Known: ``llama`` (one key head for each query head or for several, tied output, rope factors), ``qwen2`` (biases on q, k
and v), ``qwen3`` (norms on q and k). Other architectures can be inspected, not run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.checkpoint import Checkpoint, TensorInfo
from selfee.weights.printable import printable
from selfee.weights.quants import QuantType

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""The architectures that can be run."""

_VECTOR_TYPES = frozenset({QuantType.F32, QuantType.F16, QuantType.BF16})
_LARGEST = (1 << 31) - 1
_SHOWN = 3


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a model, read from its metadata and checked against each other."""

    architecture: str
    n_vocab: int
    n_ctx: int  # tokens the model was trained to look back over
    n_embd: int
    n_layer: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    norm_epsilon: float
    rope_base: float


def check_architecture(checkpoint: Checkpoint) -> None:
    """Make sure that the model can be run.

    Raises UnsupportedFileError for other architectures, tensor types or tensors that this one does not have,
    BadFileError for metadata out of range and for tensors that are missing or of wrong shape. Values are not looked
    at: see ``check_finite``.
    """
    _refuse_parts(checkpoint)
    dimensions = read_dimensions(checkpoint)
    vectors, matrices = _expected(dimensions)
    expected = vectors | matrices
    optional = {"output.weight", "rope_freqs.weight"}
    if checkpoint.container.startswith(("ggml", "ggmf", "ggjt")):
        optional = set()  # GGML knows neither tied output nor rope factors
        del vectors["rope_freqs.weight"], expected["rope_freqs.weight"]
    missing = [name for name in expected if name not in checkpoint.tensors and name not in optional]
    if missing:
        raise BadFileError(f"{checkpoint.path}: tensors are missing: {_some(missing)}; the model is incomplete")
    extra = [name for name in checkpoint.tensors if name not in expected]
    if extra:
        raise UnsupportedFileError(
            f"{checkpoint.path}: tensors foreign to {dimensions.architecture} with {dimensions.n_layer} layers: "
            f"{_some(extra)}; the file is damaged or a variant that selfee does not run"
        )
    for tensor in checkpoint.tensors.values():
        _check_tensor(checkpoint, tensor, expected[tensor.name], is_vector=tensor.name in vectors)


def _refuse_parts(checkpoint: Checkpoint) -> None:
    count = checkpoint.metadata.get("split.count", 1)
    if type(count) is int and count > 1:
        raise UnsupportedFileError(
            f"{checkpoint.path}: is one of {count} parts of a model; join them first (llama-gguf-split --merge)"
        )


def read_dimensions(checkpoint: Checkpoint) -> Dimensions:
    """The model's sizes. Raises as ``check_architecture`` does; the tensors' own shapes are only used for counts."""
    keys = _Keys(checkpoint)
    n_embd = keys.size("embedding_length")
    n_head = keys.size("attention.head_count")
    n_head_kv = keys.size("attention.head_count_kv", n_head)
    n_layer = keys.size("block_count")
    # Each layer has tensors of its own: this bounds all work on a hostile count.
    if n_layer > len(checkpoint.tensors):
        raise keys.bad("block_count", n_layer, f"at most the {len(checkpoint.tensors)} tensors of the file")
    if n_head % n_head_kv:
        raise keys.bad("attention.head_count_kv", n_head_kv, f"a divisor of the {n_head} heads")
    head_dim = keys.optional_size("attention.key_length")
    if head_dim is None:
        if n_embd % n_head:
            raise keys.bad("attention.head_count", n_head, f"a divisor of the embedding length {n_embd}")
        head_dim = n_embd // n_head
    if head_dim % 2:
        raise keys.bad("attention.key_length", head_dim, "an even number")
    for key in ("attention.value_length", "rope.dimension_count"):
        if keys.size(key, head_dim) != head_dim:
            raise keys.bad(key, keys.size(key), f"the size of a head, {head_dim}")
    if keys.optional_size("expert_count"):
        raise UnsupportedFileError(f"{checkpoint.path}: is a mixture of experts; selfee runs dense models only")
    return Dimensions(
        architecture=keys.architecture,
        n_vocab=keys.vocabulary(),
        n_ctx=keys.size("context_length"),
        n_embd=n_embd,
        n_layer=n_layer,
        n_ff=keys.size("feed_forward_length"),
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        norm_epsilon=keys.number("attention.layer_norm_rms_epsilon", None, 1.0),
        rope_base=keys.number("rope.freq_base", 10000.0, 1e12),
    )


class _Keys:
    """Typed access to ``<architecture>.<key>``."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        name = checkpoint.metadata.get("general.architecture")
        if not isinstance(name, str):
            raise BadFileError(f"{checkpoint.path}: general.architecture is missing or no text; use another copy")
        if name not in ARCHITECTURES:
            raise UnsupportedFileError(
                f"{checkpoint.path}: architecture '{printable(name, 40)}'; selfee runs {', '.join(ARCHITECTURES)}"
            )
        self.architecture = name

    def bad(self, key: str, value: object, expected: str) -> BadFileError:
        shown = printable(repr(value), 40)
        return BadFileError(
            f"{self.checkpoint.path}: {self.architecture}.{key} is {shown}; expected {expected}; use another copy"
        )

    def get(self, key: str, default: float | None) -> Any:
        value = self.checkpoint.metadata.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise BadFileError(f"{self.checkpoint.path}: {self.architecture}.{key} is missing; use another copy")
        if not isinstance(value, np.ndarray):
            return value
        # One entry for each layer: models whose layers differ are another architecture.
        if not value.size or (value != value[0]).any():
            raise UnsupportedFileError(f"{self.checkpoint.path}: {self.architecture}.{key} differs from layer to layer")
        return value[0].item()

    def size(self, key: str, default: int | None = None) -> int:
        value = self.get(key, default)
        if type(value) is not int or not 0 < value <= _LARGEST:
            raise self.bad(key, value, f"a whole number from 1 to {_LARGEST}")
        return value

    def optional_size(self, key: str) -> int | None:
        present = self.checkpoint.metadata.get(f"{self.architecture}.{key}") not in (None, 0)
        return self.size(key) if present else None

    def number(self, key: str, default: float | None, largest: float) -> float:
        value = self.get(key, default)
        if type(value) not in (int, float) or not math.isfinite(value) or not 0 < value <= largest:
            raise self.bad(key, value, f"a number above 0, at most {largest:g}")
        return float(value)

    def vocabulary(self) -> int:
        embedding = self.checkpoint.tensors.get("token_embd.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise BadFileError(
                f"{self.checkpoint.path}: tensor 'token_embd.weight' is missing; the model is incomplete"
            )
        rows = embedding.shape[0]
        tokens = len(self.checkpoint.vocab.tokens)
        if tokens and tokens != rows:
            raise BadFileError(
                f"{self.checkpoint.path}: tensor 'token_embd.weight': {rows} rows for {tokens} tokens; use another copy"
            )
        if self.size("vocab_size", rows) != rows:
            raise self.bad("vocab_size", self.size("vocab_size"), f"the {rows} rows of token_embd.weight")
        return rows


Shapes = dict[str, tuple[int, ...]]


def _expected(model: Dimensions) -> tuple[Shapes, Shapes]:
    """Vectors and matrices of the model by name."""
    vectors: Shapes = {"output_norm.weight": (model.n_embd,), "rope_freqs.weight": (model.head_dim // 2,)}
    matrices: Shapes = {
        "token_embd.weight": (model.n_vocab, model.n_embd),
        "output.weight": (model.n_vocab, model.n_embd),
    }
    for layer in range(model.n_layer):
        vectors |= {f"blk.{layer}.{name}": shape for name, shape in _layer_vectors(model)}
        matrices |= {f"blk.{layer}.{name}": shape for name, shape in _layer_matrices(model)}
    return vectors, matrices


def _layer_vectors(model: Dimensions) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "attn_norm.weight", (model.n_embd,)
    yield "ffn_norm.weight", (model.n_embd,)
    if model.architecture == "qwen2":
        yield "attn_q.bias", (model.n_head * model.head_dim,)
        yield "attn_k.bias", (model.n_head_kv * model.head_dim,)
        yield "attn_v.bias", (model.n_head_kv * model.head_dim,)
    if model.architecture == "qwen3":
        yield "attn_q_norm.weight", (model.head_dim,)
        yield "attn_k_norm.weight", (model.head_dim,)


def _layer_matrices(model: Dimensions) -> Iterator[tuple[str, tuple[int, ...]]]:
    queries, keys = model.n_head * model.head_dim, model.n_head_kv * model.head_dim
    yield "attn_q.weight", (queries, model.n_embd)
    yield "attn_k.weight", (keys, model.n_embd)
    yield "attn_v.weight", (keys, model.n_embd)
    yield "attn_output.weight", (model.n_embd, queries)
    yield "ffn_gate.weight", (model.n_ff, model.n_embd)
    yield "ffn_up.weight", (model.n_ff, model.n_embd)
    yield "ffn_down.weight", (model.n_embd, model.n_ff)


def _check_tensor(checkpoint: Checkpoint, tensor: TensorInfo, shape: tuple[int, ...], *, is_vector: bool) -> None:
    where = f"{checkpoint.path}: tensor '{tensor.name}'"
    if tensor.shape != shape:
        raise BadFileError(f"{where}: shape {_by(tensor.shape)}; expected {_by(shape)}; the metadata or it is damaged")
    if not tensor.type.readable:
        raise UnsupportedFileError(
            f"{where}: stored as {tensor.type.name}, which selfee does not compute with; use a file in q4_0 … q8_0, "
            "q2_K … q6_K, F16, BF16 or F32"
        )
    if is_vector and tensor.type not in _VECTOR_TYPES:
        raise UnsupportedFileError(f"{where}: stored as {tensor.type.name}; expected F32, F16 or BF16")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)


def _some(names: list[str]) -> str:
    shown = ", ".join(printable(name, 70) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
