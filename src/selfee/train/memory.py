"""How much memory training a model takes, estimated from its files before anything is loaded."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from selfee.errors import BadFileError, ResourceError, UnsupportedFileError
from selfee.train.config import Precision, TrainConfig
from selfee.weights.disk import human_size
from selfee.weights.open import open_checkpoint

_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class Shape:
    """What the estimate needs to know of a model."""

    parameters: int
    linear: tuple[tuple[int, int], ...]  # the matrices beside which LoRA puts its own
    layers: int
    hidden: int
    ffn: int
    vocabulary: int
    context: int  # tokens it can read; 0 = unknown


@dataclass(frozen=True)
class Memory:
    """An estimate in bytes."""

    weights: int
    gradients: int
    optimizer: int
    activations: int  # of the rows that are computed at a time, with the scores of every token of the vocabulary
    trained: int  # how many numbers are trained, in all processes together; no bytes
    libraries: int = 512 << 20  # what torch and its relatives take by themselves, measured

    @property
    def model(self) -> int:
        """All but the libraries."""
        return self.weights + self.gradients + self.optimizer + self.activations

    @property
    def total(self) -> int:
        """All together."""
        return self.model + self.libraries

    def __str__(self) -> str:
        names = ("weights", "gradients", "optimizer", "activations", "libraries")
        return ", ".join(f"{name} {human_size(getattr(self, name))}" for name in names)


def shape_of(folder: Path) -> Shape:
    """A model's shape. Raises BadFileError for what is no Hugging Face folder: training starts from one."""
    path = folder / "config.json"
    if not path.is_file():
        raise BadFileError(
            f"{folder}: has no config.json; expected a Hugging Face folder to train from; make one of another file "
            "with: selfee convert MODEL FOLDER"
        )
    try:
        config = json.loads(path.read_bytes())
        layers, hidden, ffn, vocabulary = (
            int(config[name]) for name in ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
        )
        context = int(config.get("max_position_embeddings") or 0)
    except (ValueError, KeyError, TypeError) as error:
        raise UnsupportedFileError(
            f"{path}: cannot be read ({error}); expected the settings of a LLaMA model"
        ) from error
    tensors = open_checkpoint(folder).tensors
    linear = tuple(
        (info.shape[0], info.shape[1])
        for name, info in tensors.items()
        if name.startswith("blk.") and name.split(".")[2] in _MATRICES and name.endswith(".weight")
    )
    return Shape(
        sum(math.prod(info.shape) for info in tensors.values()), linear, layers, hidden, ffn, vocabulary, context
    )


def estimate(shape: Shape, config: TrainConfig, processes: int = 1) -> Memory:
    """What training takes in each of so many processes, about: each holds a share of all but the activations."""
    is_short = config.precision is Precision.BF16
    wide = 2 if is_short else 4  # bytes of a number that is computed with
    if config.lora_rank:
        trained = config.lora_rank * sum(rows + columns for rows, columns in shape.linear)
        weights = shape.parameters * wide + trained * 4
    else:
        trained = shape.parameters
        # Alone, computing in bfloat16 keeps a copy of the weights in it.
        weights = trained * (6 if is_short and processes == 1 else 4)
    tokens = config.batch_size * config.max_length
    layer = tokens * (wide * (8 * shape.hidden + 4 * shape.ffn) + 8 * shape.hidden)
    kept = tokens * shape.hidden * 4 * shape.layers + layer if config.gradient_checkpointing else layer * shape.layers
    scores = tokens * shape.vocabulary * (wide + 8)  # as computed, in 32 bits, and their gradient
    mask = tokens * config.max_length * 5 if config.pack else 0
    held = weights // processes
    if processes > 1:  # put together when their turn comes: a layer and what belongs to none, or all of them
        layers = sum(rows * columns for rows, columns in shape.linear)
        at_once = shape.parameters if config.keep_gathered else shape.parameters - layers + layers // shape.layers
        held += at_once * (wide if config.lora_rank else 4)
    return Memory(held, trained * 4 // processes, trained * 8 // processes, kept + scores + mask, trained)


def require_room(where: Path, memory: Memory, have: int | None, config: TrainConfig) -> None:
    """Raise ResourceError that says what to change, if the estimate exceeds what there is (None = unknown)."""
    if have is None or memory.total <= have:
        return
    advice = []
    if memory.activations > memory.model // 4 and config.batch_size > 1:
        advice.append(f"--batch-size {max(1, config.batch_size // 2)}")
    if not config.gradient_checkpointing:
        advice.append("--gradient-checkpointing")
    if not config.lora_rank:
        advice.append("--lora-rank 16")
    if config.precision is Precision.FP32:
        advice.append("--precision bf16")
    advice.append(f"--max-length {max(1, config.max_length // 2)}")
    raise ResourceError(
        f"{where}: training it takes about {human_size(memory.total)} ({memory}), and {human_size(have)} are free; "
        f"expected less; try {' or '.join(advice)}"
    )
