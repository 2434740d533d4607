"""How a model is trained: every setting, the published recipes as presets, and the learning rate of every step."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from selfee.errors import UsageError
from selfee.train.dataset import Weights, parse_weights
from selfee.train.lessons import Objective


class Precision(enum.Enum):
    """In what numbers the model computes."""

    BF16 = "bf16"  # products in bfloat16; trained weights and the optimiser stay in 32 bits
    FP32 = "fp32"


class Schedule(enum.Enum):
    """How the learning rate falls once it has risen."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"  # not at all


class Engine(enum.Enum):
    """Whose loop trains."""

    SELFEE = "selfee"
    TRL = "trl"  # TRL's SFTTrainer, to compare with: one process, nothing is saved on the way


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Raises UsageError for a value out of range."""

    objective: Objective = Objective.FULL  # what is learned of a chain
    weights: tuple[str, ...] = ()  # how much sections count, as PART=NUMBER with commas: flawed=0,verdict=2; default 1
    max_length: int = 2048  # tokens of a chain; a longer one loses its oldest rounds
    epochs: float = 3.0  # how often the data are read
    max_steps: int = 0  # stop after so many steps, whatever the epochs; 0 = as the epochs say
    batch_size: int = 4  # rows computed at a time; less needs less memory and changes nothing else
    global_batch: int = 128  # rows of one step
    learning_rate: float = 2e-5  # the highest
    schedule: Schedule = Schedule.COSINE  # how the learning rate falls once it has risen
    warmup: float = 0.03  # share of the steps in which the learning rate rises
    weight_decay: float = 0.0  # of the optimiser, AdamW
    max_grad_norm: float = 1.0  # longer gradients are scaled down to it; 0 = never
    precision: Precision = Precision.BF16  # in what numbers the model computes
    tf32: bool = True  # on GPUs: 32-bit products in the faster, shorter form
    gradient_checkpointing: bool = True  # compute activations twice instead of keeping them
    lora_rank: int = 0  # train small matrices of this rank beside the model; 0 = train the whole model
    lora_alpha: float = 0.0  # their scale is alpha / rank; 0 = twice the rank
    lora_dropout: float = 0.0  # share of their inputs that is left out
    pack: bool = False  # put several chains into one row; they do not see each other
    lazy: bool = True  # make tokens when a chain's turn comes; no = before the first step, with counts
    seed: int = 0  # of the order of the data and of all else that is drawn
    save_minutes: float = 30.0  # minutes between two saved states, from which an interrupted run goes on
    save_every: int = 0  # steps between two saved states, besides; 0 = by time alone
    keep: int = 2  # saved states that are kept
    validate_every: int = 0  # steps between two looks at the validation chains; 0 = at the end only
    keep_gathered: bool = False  # several processes: keep weights together between the passes; faster, more memory
    tensorboard: bool = False  # write what TensorBoard shows, besides the log
    engine: Engine = Engine.SELFEE  # whose loop trains; trl: to compare with, in one process, without saved states
    peak_tflops: float = 0.0  # what the hardware could do, 10^12 operations a second and process; 0 = measure it

    def __post_init__(self) -> None:
        for name in ("max_length", "batch_size", "global_batch", "keep"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("max_steps", "lora_rank", "validate_every", "save_every"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name in ("epochs", "learning_rate"):
            self._require(name, 0 < getattr(self, name) < math.inf, "a positive number")
        for name in ("weight_decay", "max_grad_norm", "lora_alpha", "save_minutes", "peak_tflops"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "0 or a positive number")
        for name in ("warmup", "lora_dropout"):
            self._require(name, 0 <= getattr(self, name) < 1, "a share from 0 to below 1")
        if self.pack and self.lazy:
            raise UsageError("pack: rows can be filled only when lengths are known; expected lazy off: add --no-lazy")
        _ = self.section_weights

    def _require(self, name: str, is_right: bool, expected: str) -> None:
        if not is_right:
            raise UsageError(f"{name}: is {getattr(self, name)}; expected {expected}")

    @property
    def section_weights(self) -> Weights:
        """``weights`` read."""
        return parse_weights(self.weights)

    @property
    def scale(self) -> float:
        """LoRA's alpha."""
        return self.lora_alpha or 2.0 * self.lora_rank

    def steps(self, rows: int) -> int:
        """How many steps ``rows`` rows of data make."""
        return self.max_steps or max(1, math.ceil(rows * self.epochs / self.global_batch))

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, from 0: it rises in a line, then falls as ``schedule`` says."""
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return self.learning_rate * step / rising
        share = (step - rising) / max(1, steps - rising)
        if self.schedule is Schedule.CONSTANT:
            return self.learning_rate
        if self.schedule is Schedule.LINEAR:
            return self.learning_rate * (1.0 - share)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            name: value.value if isinstance(value, enum.Enum) else list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "7b": {"batch_size": 16},
    "13b": {"batch_size": 8},
    "tiny": {
        "batch_size": 4,
        "global_batch": 8,
        "learning_rate": 1e-3,
        "max_length": 512,
        "precision": Precision.FP32,
        "gradient_checkpointing": False,
    },
}
"""What differs from ``TrainConfig``'s own values, which are SelFee's published recipe."""


def preset(name: str = "", **given: Any) -> TrainConfig:
    """A preset's settings with those ``given`` in their place; without a name, the published recipe."""
    if name and name not in PRESETS:
        raise UsageError(f"preset: found {name!r}; expected one of {', '.join(PRESETS)}")
    unknown = sorted(set(given) - {one.name for one in fields(TrainConfig)})
    if unknown:
        raise UsageError(f"preset: {unknown[0]!r} is no setting of training; expected a field of TrainConfig")
    return TrainConfig(**{**(PRESETS[name] if name else {}), **given})
