"""A training run in one process: from a model folder and chains to a trained folder; interrupted, it goes on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfee.engines.memory import available_memory
from selfee.errors import BadFileError, ResourceError, SelfeeError, UsageError
from selfee.jsonl import read_jsonl
from selfee.llama.tokenizer import load_tokenizer
from selfee.train.config import TrainConfig
from selfee.train.dataset import Dataset
from selfee.train.feed import Feed
from selfee.train.learner import Learner, Losses
from selfee.train.libraries import library
from selfee.train.memory import Memory, estimate, require_room, shape_of
from selfee.train.records import data_files
from selfee.train.state import load_state, read_facts, save_state, states
from selfee.weights.folders import replacing_folder
from selfee.weights.open import open_checkpoint

LOG = "log.jsonl"

Row = dict[str, Any]
"""A line of the log: its field "kind" is "begin", "step", "validation", "saved" or "end"."""


@dataclass(frozen=True)
class Plan:
    """All that is known before a model is loaded."""

    model: Path
    out: Path
    config: TrainConfig
    feed: Feed
    validation: Feed | None
    dataset: Dataset
    memory: Memory
    facts: Row  # what must be the same for an interrupted run to go on

    @property
    def steps(self) -> int:
        """How many there will be."""
        return self.config.steps(len(self.feed))


def open_dataset(model: Path, data: Path, config: TrainConfig) -> Dataset:
    """The lessons of a file for a model's vocabulary."""
    tokenizer = load_tokenizer(open_checkpoint(model).vocab)
    return Dataset.of_file(data, tokenizer, config.objective, config.section_weights, config.max_length)


def plan(model: Path, data: Path, out: Path, config: TrainConfig, validation: Path | None = None) -> Plan:
    """Read the data and look whether the model can be trained here. Raises ResourceError if it cannot."""
    shape = shape_of(model)
    if 0 < shape.context < config.max_length:
        raise UsageError(
            f"max_length: is {config.max_length}, and {model} reads at most {shape.context} tokens; expected no more; "
            f"add --max-length {shape.context}"
        )
    memory = estimate(shape, config)
    require_room(model, memory, _free_memory(), config)
    if (out / "model").exists() or (out.exists() and not out.is_dir()):
        raise UsageError(f"{out}: holds a finished run; expected a new folder or an interrupted run; choose another")
    train_file, beside = data_files(data)
    dataset = open_dataset(model, train_file, config)
    if dataset.vocab_size > shape.vocabulary:
        raise BadFileError(
            f"{model}: its tokenizer has {dataset.vocab_size} tokens and its embedding {shape.vocabulary} rows; "
            "expected a row for each token; take the tokenizer that belongs to the model"
        )
    checked = validation or beside
    looked_at = Feed(open_dataset(model, checked, config), config) if checked else None
    facts = {"model": _digest(model / "config.json"), "data": _digest(train_file)}
    return Plan(model, out, config, Feed(dataset, config), looked_at, dataset, memory, facts)


def train(plan: Plan, on_row: Callable[[Row], None] = lambda row: None) -> Row:
    """Train as planned, from the last saved state on if there is one; the last line of the log.

    ``out`` then holds ``model``, a Hugging Face folder; with LoRA also ``adapter``; and the log.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    saved = states(plan.out)
    step, position = read_facts(saved[-1], plan.config, plan.facts) if saved else (0, 0)
    with _memory_told(plan):
        learner = Learner(plan.model, plan.config)
        if saved:
            load_state(saved[-1], learner)
        with _log(plan.out / LOG, step, on_row) as write:
            write({"kind": "begin", "step": step, "steps": plan.steps, "device": learner.device} | _counts(plan))
            last = _steps(plan, learner, step, position, write)
            _write_model(plan.out, learner)
            end = {"kind": "end", "step": plan.steps, "folder": str(plan.out / "model"), **_counts(plan), **last}
            write(end)
    for state in states(plan.out):
        shutil.rmtree(state)
    return end


def _steps(plan: Plan, learner: Learner, step: int, position: int, write: Callable[[Row], None]) -> Row:
    config, steps = plan.config, plan.steps
    saved_at = time.monotonic()
    last: Row = {}
    while step < steps:
        started = time.monotonic()
        rows, position = plan.feed.take(position, config.global_batch)
        rate = config.rate(step, steps)
        losses, norm = learner.step(rows, rate)
        step += 1
        if not math.isfinite(losses.mean + norm):
            raise SelfeeError(
                f"{plan.model}: loss {losses.mean} and gradient {norm} in step {step}; expected numbers; the last "
                "saved state is kept; try a lower --learning-rate, or --precision fp32"
            )
        seconds = time.monotonic() - started
        last = {"loss": losses.mean}
        epoch = position / len(plan.feed)
        write(
            {"kind": "step", "step": step, "epoch": round(epoch, 4), **_of(losses), "rate": rate, "gradient": norm}
            | {"tokens": losses.tokens, "seconds": round(seconds, 3), "tokens_per_second": losses.tokens / seconds}
        )
        if plan.validation is not None and (step == steps or _is_due(step, config.validate_every)):
            checked = learner.measure(plan.validation.all())
            last |= {"validation_loss": checked.mean}
            write({"kind": "validation", "step": step, **_of(checked)})
        if step < steps and time.monotonic() - saved_at >= 60 * config.save_minutes:
            save_state(plan.out, learner, step, position, plan.facts)
            write({"kind": "saved", "step": step})
            saved_at = time.monotonic()
    return last


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _of(losses: Losses) -> Row:
    return {"loss": losses.mean, "parts": losses.by_part}


def _counts(plan: Plan) -> Row:
    return {"data": plan.dataset.counts.to_json()}


def _write_model(out: Path, learner: Learner) -> None:
    adapter = out / "adapter" if learner.config.lora_rank else None
    if adapter is not None:
        with replacing_folder(adapter, force=True) as part:
            learner.write_adapter(part)
    with replacing_folder(out / "model", force=True) as part:
        learner.write(part, adapter)


@contextmanager
def _log(path: Path, step: int, on_row: Callable[[Row], None]) -> Iterator[Callable[[Row], None]]:
    """A function that appends a line; lines of steps that will be made again are removed first."""
    kept = [row for _, row in _whole_lines(path) if row.get("step", 0) <= step and row.get("kind") != "end"]
    with path.open("w", encoding="utf-8") as file:

        def put(row: Row) -> None:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()

        def write(row: Row) -> None:
            put(row)
            on_row(row)

        for row in kept:
            put(row)
        os.fsync(file.fileno())
        yield write


def _whole_lines(path: Path) -> Iterator[tuple[int, Row]]:
    """The log's lines; one that a killed process left unfinished ends them."""
    if not path.exists():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    yield from read_jsonl(path)


def _free_memory() -> int | None:
    torch = library("torch")
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return available_memory()


@contextmanager
def _memory_told(plan: Plan) -> Iterator[None]:
    """Turns the library's words for a full memory into ours."""
    try:
        yield
    except (MemoryError, library("torch").OutOfMemoryError) as error:
        raise ResourceError(
            f"{plan.model}: memory was full while training, though {plan.memory} were estimated; expected more free "
            "memory; try a smaller --batch-size or --max-length; the run goes on from its last saved state"
        ) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
