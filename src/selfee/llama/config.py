"""What a model file says about its shape, read once and checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.llama.rope import plain_frequencies
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.quantize import dequantize

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""Transformers of the LLaMA family: qwen2 adds biases to queries, keys and values, qwen3 norms for queries and keys."""

_MAX_SIZE = 1 << 31


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes and constants of one model."""

    architecture: str
    layers: int
    width: int  # of the stream between layers
    heads: int  # of queries
    kv_heads: int  # of keys and values; each serves heads / kv_heads heads of queries
    head_dim: int
    hidden: int  # width of the feed-forward layer
    vocabulary: int
    context_length: int  # tokens the model was trained to look back on
    norm_epsilon: float
    rope_frequencies: tuple[float, ...]  # radians per position, one for each rotated pair of a head
    tied: bool  # the output matrix is the embedding

    @property
    def rope_halves(self) -> bool:
        """True if a head's pairs are (i, i + n/2), as Hugging Face stores them; False if they are neighbours."""
        return self.architecture != "llama"

    @property
    def q_width(self) -> int:
        """Values of all queries of one token."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Values of all keys (or values) of one token."""
        return self.kv_heads * self.head_dim

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> LlamaConfig:
        """Read the configuration of an open model file.

        Raises UnsupportedFileError for another architecture or an unknown kind of rope scaling, BadFileError where a
        value is missing, of the wrong kind or out of range.
        """
        keys = _Keys(checkpoint)
        width, heads = keys.size("embedding_length"), keys.size("attention.head_count")
        kv_heads = keys.size("attention.head_count_kv", heads)
        if heads % kv_heads:
            raise keys.bad("attention.head_count_kv", kv_heads, f"a divisor of the {heads} heads")
        if width % heads and "attention.key_length" not in keys:
            raise keys.bad("attention.head_count", heads, f"a divisor of the width {width}")
        head_dim = keys.size("attention.key_length", width // heads)
        if keys.size("attention.value_length", head_dim) != head_dim:
            raise keys.unsupported("attention.value_length differs from key_length")
        if keys.number("expert_count", 0.0):
            raise keys.unsupported("is a mixture of experts")
        embedding = checkpoint.tensors.get("token_embd.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise BadFileError(
                f"{checkpoint.path}: has no token_embd.weight matrix; expected a language model; choose another file"
            )
        return cls(
            architecture=keys.architecture,
            layers=keys.size("block_count"),
            width=width,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            hidden=keys.size("feed_forward_length"),
            vocabulary=embedding.shape[0],
            context_length=keys.size("context_length"),
            norm_epsilon=keys.positive("attention.layer_norm_rms_epsilon"),
            rope_frequencies=_rope_frequencies(keys, checkpoint, head_dim),
            tied="output.weight" not in checkpoint.tensors,
        )


def _rope_frequencies(keys: _Keys, checkpoint: Checkpoint, head_dim: int) -> tuple[float, ...]:
    rotated = keys.size("rope.dimension_count", head_dim)
    if rotated > head_dim or rotated % 2:
        raise keys.bad("rope.dimension_count", rotated, f"an even number up to the head's {head_dim}")
    scaling = keys.text("rope.scaling.type", "linear" if "rope.scale_linear" in keys else "none")
    if scaling not in ("none", "linear"):
        raise keys.unsupported(f"uses rope scaling '{scaling}' (selfee knows linear and Llama 3.1's factors)")
    factor = keys.positive("rope.scaling.factor", keys.positive("rope.scale_linear", 1.0)) if scaling != "none" else 1.0
    frequencies = plain_frequencies(rotated, keys.positive("rope.freq_base", 10000.0)) / factor
    if "rope_freqs.weight" in checkpoint.tensors:
        tensor = checkpoint.tensors["rope_freqs.weight"]
        if math.prod(tensor.shape) != rotated // 2:
            raise BadFileError(
                f"{checkpoint.path}: tensor 'rope_freqs.weight' has shape {tensor.shape}; expected ({rotated // 2},); "
                "the file is damaged; fetch it again"
            )
        factors = dequantize(tensor.type, checkpoint.read(tensor.name), rotated // 2).astype(np.float64)
        if not (np.isfinite(factors).all() and (factors > 0).all()):
            raise BadFileError(
                f"{checkpoint.path}: tensor 'rope_freqs.weight' holds zero, negative or infinite factors; expected "
                "positive ones; the file is damaged; fetch it again"
            )
        frequencies = frequencies / factors
    return tuple(frequencies.tolist())


class _Keys:
    """The metadata under one architecture's prefix, each value checked for its kind and range."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._path = checkpoint.path
        self._metadata: Mapping[str, Any] = checkpoint.metadata
        architecture = self._metadata.get("general.architecture")
        if architecture not in ARCHITECTURES:
            raise UnsupportedFileError(
                f"{self._path}: architecture {str(architecture)[:40]!r}; selfee runs {', '.join(ARCHITECTURES)}; "
                "choose a model of one of these"
            )
        self.architecture: str = architecture

    def __contains__(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self._metadata

    def bad(self, key: str, found: object, expected: str) -> BadFileError:
        return BadFileError(
            f"{self._path}: {self.architecture}.{key} is {str(found)[:60]}; expected {expected}; the file is damaged "
            "or made by a faulty converter"
        )

    def unsupported(self, what: str) -> UnsupportedFileError:
        return UnsupportedFileError(f"{self._path}: {what}; expected a plain {self.architecture}; choose another model")

    def _get(self, key: str, default: Any) -> Any:
        value = self._metadata.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise self.bad(key, "missing", "a number")
        if isinstance(value, np.ndarray | list | tuple):  # one value for each layer
            values = {float(item) for item in value if isinstance(item, int | float | np.number)}
            if len(values) != 1 or len(value) == 0:
                raise self.unsupported(f"{key} differs from layer to layer")
            value = value[0]
        return value.item() if isinstance(value, np.generic) else value

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number from 1 to 2^31 - 1."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MAX_SIZE:
            raise self.bad(key, value, "a whole number from 1 to 2147483647")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.bad(key, value, "a finite number")
        return float(value)

    def positive(self, key: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self.number(key, default)
        if value <= 0:
            raise self.bad(key, value, "a number above 0")
        return value

    def text(self, key: str, default: str) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.bad(key, value, "a text")
        return value
