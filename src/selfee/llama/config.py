"""What a model file says about its shape and its positions, read once and checked before anything is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.llama.rope import plain_frequencies
from selfee.weights.architecture import check_architecture, read_dimensions
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.printable import printable
from selfee.weights.quantize import dequantize

_ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes and constants of one model of the LLaMA family (llama; qwen2: biases; qwen3: norms of q and k)."""

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
    rope_frequencies: tuple[float, ...]  # radians per position, one for each pair of a head's values
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
        """Read the configuration of an open model file and check that every tensor fits it.

        Raises UnsupportedFileError for another architecture or an unknown kind of rope scaling, BadFileError where a
        value is missing, of the wrong kind or out of range, or a tensor missing or of wrong shape.
        """
        check_architecture(checkpoint)
        sizes = read_dimensions(checkpoint)
        frequencies = plain_frequencies(sizes.head_dim, sizes.rope_base) / _linear_factor(checkpoint)
        return cls(
            architecture=sizes.architecture,
            layers=sizes.n_layer,
            width=sizes.n_embd,
            heads=sizes.n_head,
            kv_heads=sizes.n_head_kv,
            head_dim=sizes.head_dim,
            hidden=sizes.n_ff,
            vocabulary=sizes.n_vocab,
            context_length=sizes.n_ctx,
            norm_epsilon=sizes.norm_epsilon,
            rope_frequencies=tuple((frequencies / _factors(checkpoint, sizes.head_dim // 2)).tolist()),
            tied="output.weight" not in checkpoint.tensors,
        )


def _linear_factor(checkpoint: Checkpoint) -> float:
    """By how much positions are pressed together (linear scaling; Chen et al. 2023)."""
    prefix = f"{checkpoint.metadata['general.architecture']}.rope"
    old = checkpoint.metadata.get(f"{prefix}.scale_linear")  # the key of 2023
    kind = checkpoint.metadata.get(f"{prefix}.scaling.type", "none" if old is None else "linear")
    if kind == "none":
        return 1.0
    if kind != "linear":
        raise UnsupportedFileError(
            f"{checkpoint.path}: rope scaling {printable(repr(kind), 40)}; selfee knows none, linear and the "
            "factors of Llama 3.1; choose another model"
        )
    factor = checkpoint.metadata.get(f"{prefix}.scaling.factor", old)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1e-6 <= factor <= 1e6:
        raise BadFileError(
            f"{checkpoint.path}: {prefix}.scaling.factor is {printable(repr(factor), 40)}; expected a number from 1e-6 "
            "to 1e6; the file is damaged; fetch it again"
        )
    return float(factor)


def _factors(checkpoint: Checkpoint, pairs: int) -> npt.NDArray[np.float64]:
    """By how much each pair's frequency is divided: Llama 3.1 stores them as a tensor, computed from its scaling."""
    tensor = checkpoint.tensors.get(_ROPE_FACTORS)
    if tensor is None:
        return np.ones(pairs)
    factors = dequantize(tensor.type, checkpoint.read(tensor.name), math.prod(tensor.shape)).astype(np.float64)
    # Also false for NaN.
    if not ((factors >= 1e-6) & (factors <= 1e6)).all():
        raise BadFileError(
            f"{checkpoint.path}: tensor '{_ROPE_FACTORS}' holds {factors.min()} to {factors.max()}; expected factors "
            "from 1e-6 to 1e6; the file is damaged; fetch it again"
        )
    return factors
