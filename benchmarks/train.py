"""A training step of the embedded base with LoRA on this processor, beside TRL and peft by hand, in one run.

    python benchmarks/train.py --scratch FOLDER [--model smollm2-135m] [--precision fp32 bf16] [--rounds 3]

Every engine learns the same rows, with LoRA of the same rank beside the same matrices, AdamW and clipping; each has a
model of its own. They take turns, each a step at a time (the first is not counted), and the order turns every round.
A step is taken whole: reading the rows, forward, backward, the optimiser. Told is the median: tokens without padding
over seconds. The rows are random tokens of lengths like those of chains: how fast is asked, not what is learned. TRL's
step is timed inside its own loop.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results import record

from selfee.train.config import Precision, TrainConfig
from selfee.train.dataset import IGNORED, Example, Span
from selfee.train.lessons import Part
from selfee.train.libraries import library
from selfee.train.memory import shape_of
from selfee.train.speed import flops, measured_peak

Rows = Sequence[Sequence[Example]]
Engine = Callable[[Rows], float]
"""Takes a step on these rows; its seconds."""


def settings(precision: Precision) -> TrainConfig:
    """What is measured: four rows, two at a time."""
    return TrainConfig(
        batch_size=2,
        global_batch=4,
        lora_rank=16,
        precision=precision,
        learning_rate=1e-4,
        gradient_checkpointing=False,
    )


def rows_of(vocabulary: int, seed: int, count: int = 4) -> Rows:
    """Rows of random tokens: a quarter is a prompt, the rest is learned."""
    drawn = random.Random(seed)
    rows = []
    for _ in range(count):
        length = drawn.randrange(96, 257)
        ids = [drawn.randrange(vocabulary) for _ in range(length)]
        prompt = length // 4
        spans = (Span(Part.PROMPT, 0, 0, prompt, 0.0), Span(Part.ANSWER, 0, prompt, length, 1.0))
        rows.append([Example("", ids, spans)])
    return rows


def tokens(rows: Rows) -> int:
    """Tokens without padding."""
    return sum(len(example.ids) for row in rows for example in row)


def ours(folder: Path, config: TrainConfig) -> Engine:
    """selfee's own step."""
    from selfee.train.learner import Learner

    learner = Learner(folder, config)

    def step(rows: Rows) -> float:
        started = time.perf_counter()
        learner.step(rows, config.learning_rate)
        return time.perf_counter() - started

    return step


def _loaded(folder: Path, config: TrainConfig) -> Any:
    dtype = library("torch").bfloat16 if config.precision is Precision.BF16 else library("torch").float32
    model = library("transformers").AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.config.use_cache = False
    return model


def _lora(config: TrainConfig) -> Any:
    return library("peft").LoraConfig(
        r=config.lora_rank, lora_alpha=config.scale, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _arrays(rows: Rows) -> list[dict[str, Any]]:
    return [{"input_ids": list(example.ids), "labels": example.labels} for row in rows for example in row]


def peft_by_hand(folder: Path, config: TrainConfig) -> Engine:
    """peft's model in the loop of a tutorial: batches padded in the order of the rows, transformers' own loss."""
    torch = library("torch")
    model = library("peft").get_peft_model(_loaded(folder, config), _lora(config))
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.0)
    is_short = config.precision is Precision.BF16

    def step(rows: Rows) -> float:
        started = time.perf_counter()
        model.train()
        learned = sum(example.learned for row in rows for example in row)
        for first in range(0, len(rows), config.batch_size):
            some = _arrays(rows[first : first + config.batch_size])
            width = max(len(row["input_ids"]) for row in some)
            batch = {
                name: torch.tensor([row[name] + [fill] * (width - len(row[name])) for row in some])
                for name, fill in (("input_ids", 0), ("labels", IGNORED))
            }
            mask = torch.tensor([[1] * len(r["input_ids"]) + [0] * (width - len(r["input_ids"])) for r in some])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_short):
                loss = model(**batch, attention_mask=mask, num_items_in_batch=learned).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - started

    return step


def trl(folder: Path, config: TrainConfig) -> Engine:
    """TRL's SFTTrainer with peft, given tokens and labels."""
    transformers, trl = library("transformers"), library("trl")
    seconds: list[float] = []
    waiting: list[dict[str, Any]] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        """Times each step of the trainer's loop."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.started)

    made = trl.SFTConfig(
        output_dir=str(folder.parent / "trl"),
        max_steps=1,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.global_batch // config.batch_size,
        learning_rate=config.learning_rate,
        bf16=config.precision is Precision.BF16,
        use_cpu=True,
        gradient_checkpointing=False,
        max_length=None,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows = library("datasets").Dataset.from_list([{"input_ids": [0], "labels": [0]}] * config.global_batch)
    trainer = trl.SFTTrainer(
        model=_loaded(folder, config),
        args=made,
        train_dataset=rows,
        processing_class=transformers.AutoTokenizer.from_pretrained(folder),
        peft_config=_lora(config),
        callbacks=[Clock()],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    padded = trainer.data_collator
    trainer.data_collator = lambda features: padded([waiting.pop(0) for _ in features])

    def step(rows: Rows) -> float:
        waiting[:] = _arrays(rows)
        trainer.train()
        return seconds[-1]

    return step


ENGINES: Mapping[str, Callable[[Path, TrainConfig], Engine]] = {
    "selfee": ours,
    "trl": trl,
    "peft by hand": peft_by_hand,
}


def measure(folder: Path, config: TrainConfig, vocabulary: int, rounds: int) -> dict[str, float]:
    """Tokens a second of every engine: the median of so many rounds."""
    engines = {name: make(folder, config) for name, make in ENGINES.items()}
    speeds: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 1):
        rows = rows_of(vocabulary, number)
        order = list(engines)
        for name in order if number % 2 else reversed(order):
            seconds = engines[name](rows)
            print(f"round {number} {name}: {tokens(rows) / seconds:.1f} tokens/s", file=sys.stderr, flush=True)
            if number:
                speeds[name].append(tokens(rows) / seconds)
    return {name: statistics.median(found) for name, found in speeds.items()}


def folder_of(model: str, scratch: Path) -> Path:
    """The model as a Hugging Face folder in ``scratch``, made if it is not there."""
    import subprocess

    folder = scratch / "base"
    if not folder.exists():
        scratch.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "selfee.cli", "convert", model, str(folder), "--quiet"], check=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scratch", type=Path, required=True, help="where the base goes, 270 MB")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--precision", nargs="+", choices=[one.value for one in Precision], default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-record", action="store_true")
    given = parser.parse_args()
    folder = folder_of(given.model, given.scratch)
    shape = shape_of(folder)
    figures: dict[str, float] = {}
    for precision in given.precision:
        config = settings(Precision(precision))
        peak = measured_peak("cpu", config)
        speeds = measure(folder, config, shape.vocabulary, given.rounds)
        best = max(speed for name, speed in speeds.items() if name != "selfee")
        figures |= {f"{precision} {name} tokens/s": speed for name, speed in speeds.items()}
        figures[f"{precision} selfee / best peer"] = speeds["selfee"] / best
        figures[f"{precision} selfee mfu"] = flops(shape, config, 1, 176) * speeds["selfee"] / peak
        figures[f"{precision} peak GFLOP/s"] = peak / 1e9
    if given.no_record:
        for name, value in figures.items():
            print(f"{name:32} {value:10.4g}")
        return
    from selfee.weights.quantize import isa

    record(f"train {given.model} lora", figures, isa=isa())


if __name__ == "__main__":
    main()
