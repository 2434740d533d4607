"""What would fit into memory: models of the usual shapes in any file type, and files that are here.

The figures are those by which a model is refused before it is loaded (``memory_needed``), from shapes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from selfee.llama.config import LlamaConfig
from selfee.llama.memory import memory_beside, memory_needed
from selfee.weights.checkpoint import TensorInfo
from selfee.weights.ggml import Hyper
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.recipes import FileType, ModelFacts, Recipe, choose_types
from selfee.weights.quants import QuantType
from selfee.weights.sizes import TensorPlan, llama_shapes

LADDER = (
    FileType.f16,
    FileType.q8_0,
    FileType.q6_K,
    FileType.q5_K_M,
    FileType.q5_K_S,
    FileType.q4_K_M,
    FileType.q4_K_S,
    FileType.q3_K_L,
    FileType.q3_K_M,
    FileType.q3_K_S,
    FileType.q2_K,
)
"""File types worth having, the most faithful first."""

SMALLEST_CONTEXT = 512  # tokens; below that no chain fits
_CHUNK = 256  # tokens by which a cache grows


@dataclass(frozen=True)
class Shape:
    """A usual size of LLaMA model."""

    name: str
    hyper: Hyper
    heads_kv: int
    hidden: int  # width of the feed-forward layer

    @property
    def config(self) -> LlamaConfig:
        """As of a file of that shape; only sizes are true."""
        hyper = self.hyper
        return LlamaConfig(
            architecture="llama",
            layers=hyper.n_layer,
            width=hyper.n_embd,
            heads=hyper.n_head,
            kv_heads=self.heads_kv,
            head_dim=hyper.n_embd // hyper.n_head,
            hidden=self.hidden,
            vocabulary=hyper.n_vocab,
            context_length=2048,
            norm_epsilon=1e-5,
            rope_frequencies=(),
            tied=False,
        )


def _shape(
    name: str, width: int, layers: int, heads: int, heads_kv: int, hidden: int, vocabulary: int = 32000
) -> Shape:
    return Shape(name, Hyper(vocabulary, width, 256, heads, layers, width // heads, 0), heads_kv, hidden)


SHAPES = (
    _shape("1B", 2048, 22, 32, 4, 5632),
    _shape("3B", 3200, 26, 32, 32, 8640),
    _shape("7B", 4096, 32, 32, 32, 11008),
    _shape("8B", 4096, 32, 32, 8, 14336, 128256),
    _shape("13B", 5120, 40, 40, 40, 13824),
    _shape("30B", 6656, 60, 52, 52, 17920),
    _shape("65B", 8192, 80, 64, 64, 22016),
    _shape("70B", 8192, 80, 64, 8, 28672),
)
"""TinyLlama, OpenLLaMA, LLaMA and LLaMA 2 and 3, by the names people give them."""


@cache
def weights_of(shape: Shape, kind: FileType) -> int:
    """Bytes of the tensors of a model of that shape and type."""
    stored = {1: QuantType.F32, 2: QuantType.F16}
    shapes = llama_shapes(shape.hyper, heads_kv=shape.heads_kv, hidden=shape.hidden)
    tensors = [TensorInfo(name, size, stored[len(size)], 0, 0) for name, size in shapes.items()]
    facts = ModelFacts(shape.hyper.n_layer, shape.hyper.n_head // shape.heads_kv)
    types = choose_types(tensors, Recipe(kind), facts)
    return sum(TensorPlan(tensor.name, tensor.shape, types[tensor.name].type).nbytes for tensor in tensors)


def need_of(shape: Shape, kind: FileType, context: int) -> int:
    """Bytes of memory to run it with a context of so many tokens."""
    return memory_beside(weights_of(shape, kind), shape.config, context)


@dataclass(frozen=True)
class Fit:
    """Whether a model runs in the memory there is, and what would."""

    model: str
    type: str
    context: int
    need: int  # bytes
    have: int
    best_type: str | None  # the most faithful type that fits at this context
    longest_context: int | None  # that fits with this type, in steps of 256 tokens; None if not even 512 do

    @property
    def fits(self) -> bool:
        """At this type and context."""
        return self.need <= self.have


def fit_shape(shape: Shape, kind: FileType, context: int, have: int) -> Fit:
    """What fits of a usual size."""
    best = next((each for each in LADDER if need_of(shape, each, context) <= have), None)
    need = need_of(shape, kind, context)
    longest = _longest(need_of(shape, kind, _CHUNK), need_of(shape, kind, 2 * _CHUNK), have)
    return Fit(shape.name, kind.name, context, need, have, best.name if best else None, longest)


@dataclass(frozen=True)
class FileFit:
    """Whether a model file runs in the memory there is."""

    file: str
    context: int  # what was asked, or what it was trained for
    trained_context: int
    need: int
    have: int
    longest_context: int | None  # as in ``Fit``

    @property
    def fits(self) -> bool:
        """At this context."""
        return self.need <= self.have


def fit_file(path: Path, context: int | None, have: int) -> FileFit:
    """What fits of a file; ``context`` None is what it was trained for.

    Raises BadFileError, UnsupportedFileError for one that cannot be run.
    """
    with open_checkpoint(path) as checkpoint:
        config = LlamaConfig.from_checkpoint(checkpoint)
        asked = context or config.context_length
        one, two = (memory_needed(checkpoint, config, count * _CHUNK) for count in (1, 2))
        need = memory_needed(checkpoint, config, asked)
        return FileFit(path.name, asked, config.context_length, need, have, _longest(one, two, have))


def _longest(one: int, two: int, have: int) -> int | None:
    """Tokens of context that fit, where 256 of them need ``one`` and 512 ``two`` bytes."""
    chunks = 1 + (have - one) // (two - one)
    return chunks * _CHUNK if chunks * _CHUNK >= SMALLEST_CONTEXT else None
