"""TRL's SFTTrainer as a second engine: our rows, labels and masks, its loop, optimiser and loss.

It is there to be compared with. What is ours alone stays out: saved states, several processes, weights between 0 and 1,
losses by section.
"""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from selfee.errors import UsageError
from selfee.train.config import Precision, TrainConfig
from selfee.train.dataset import IGNORED, Example
from selfee.train.libraries import library
from selfee.train.log import Row
from selfee.train.models import compute_dtype, prepared, quiet, read_model
from selfee.train.packing import attention_mask, collate
from selfee.train.speed import Meter

if TYPE_CHECKING:
    from selfee.train.run import Plan


def require_possible(config: TrainConfig, processes: int) -> None:
    """Raise UsageError for what only our own engine can do."""
    uneven = sorted({f"{weight:g}" for weight in config.section_weights.all() if weight not in (0, 1)})
    for is_wrong, found, expected in (
        (processes > 1, f"{processes} processes", "one"),
        (bool(uneven), f"a weight of {', '.join(uneven)}", "0 or 1: its loss knows no others"),
        (
            config.global_batch % config.batch_size > 0,
            f"{config.global_batch} rows a step in batches of {config.batch_size}",
            "a global batch that batches fill",
        ),
    ):
        if is_wrong:
            raise UsageError(f"engine trl: found {found}; expected {expected}; change it or leave --engine out")


def trainer_of(plan: Plan, scratch: str, on_step: Callable[[dict[str, float], list[list[Example]]], None]) -> Any:
    """An SFTTrainer that reads the plan's rows in their order and calls ``on_step`` with what it logs of each step."""
    trl, transformers = library("trl"), library("transformers")
    config, steps = plan.config, plan.steps
    library("torch").manual_seed(config.seed)
    model = prepared(read_model(plan.model, compute_dtype(config)), config)
    rows = _Rows(plan)

    class Told(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        """Hands on what is logged."""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                on_step(logs, rows.taken())

    settings = trl.SFTConfig(
        output_dir=scratch,
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.global_batch // config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule.value,
        warmup_steps=math.ceil(config.warmup * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm or math.inf,
        optim="adamw_torch",
        bf16=config.precision is Precision.BF16,
        use_cpu=not library("torch").cuda.is_available(),
        gradient_checkpointing=False,  # switched on in the model, where it is wanted
        seed=config.seed,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
    # The trainer counts these rows and takes what the collator makes for them.
    counted = library("datasets").Dataset.from_dict({"input_ids": [[0]] * (steps * config.global_batch)})
    trainer = trl.SFTTrainer(
        model=model,
        args=settings,
        train_dataset=counted,
        data_collator=rows,
        processing_class=transformers.AutoTokenizer.from_pretrained(plan.model, local_files_only=True),
        callbacks=[Told()],
    )
    trainer.remove_callback(transformers.PrinterCallback)  # standard output is ours
    return trainer


class _Rows:
    """Stands where TRL expects a collator: for so many rows of its data set, the next rows of our feed."""

    def __init__(self, plan: Plan) -> None:
        self._feed = plan.feed
        self._position = 0
        self._taken: list[list[Example]] = []
        self._of_step = plan.config.global_batch

    def __call__(self, features: Sequence[Any]) -> dict[str, Any]:
        rows, self._position = self._feed.take(self._position, len(features))
        self._taken += rows
        torch, batch = library("torch"), collate(rows, padding=0)
        labels = batch.ids_BT.copy()
        labels[batch.weights_BT == 0] = IGNORED
        arrays = {"input_ids": batch.ids_BT, "labels": labels, "position_ids": batch.positions_BT}
        if batch.is_packed:
            arrays["attention_mask"] = attention_mask(batch.segments_BT)
        else:
            arrays["attention_mask"] = (batch.segments_BT > 0).astype("int64")
        return {name: torch.from_numpy(values) for name, values in arrays.items()}

    def taken(self) -> list[list[Example]]:
        """The rows of the step that was just made."""
        rows, self._taken = self._taken[: self._of_step], self._taken[self._of_step :]
        return rows


def train_by_trl(plan: Plan, write: Callable[[Row], None], meter: Meter) -> tuple[Any, Row]:
    """Every step, each told to ``write``; the trained model and the last loss."""
    last: Row = {}
    step, started = 0, time.monotonic()

    def on_step(logs: dict[str, float], rows: list[list[Example]]) -> None:
        nonlocal step, started
        now = time.monotonic()
        step, seconds, started = step + 1, now - started, now
        last["loss"] = logs["loss"]
        head = {"kind": "step", "step": step, "loss": logs["loss"], "parts": {}, "rate": logs["learning_rate"]}
        write(head | {"gradient": logs["grad_norm"]} | meter.read(rows, seconds))

    with tempfile.TemporaryDirectory() as scratch, quiet():
        trainer = trainer_of(plan, scratch, on_step)
        model = trainer.model.get_base_model() if plan.config.lora_rank else trainer.model
        kept = copy.deepcopy((model.config, model.generation_config))
        started = time.monotonic()
        trainer.train()
        model.config, model.generation_config = kept  # it sets the tokenizer's special tokens there
    return trainer.model, last
