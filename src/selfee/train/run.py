"""A training run: from a model folder and chains to a trained folder; interrupted, it goes on."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from selfee.engines.memory import available_memory
from selfee.errors import BadFileError, ResourceError, SelfeeError, UsageError
from selfee.llama.tokenizer import load_tokenizer
from selfee.train.config import Engine, TrainConfig
from selfee.train.dataset import Dataset
from selfee.train.feed import Feed
from selfee.train.learner import Learner, Losses
from selfee.train.libraries import library
from selfee.train.log import Row, open_log
from selfee.train.memory import Memory, Shape, estimate, require_room, shape_of
from selfee.train.processes import Group, Processes, joined
from selfee.train.records import data_files
from selfee.train.speed import Meter, measured_peak
from selfee.train.state import alone_in, load_state, read_facts, save_state, states
from selfee.train.trl_engine import require_possible, train_by_trl
from selfee.weights.folders import part_of, replacing_folder
from selfee.weights.open import open_checkpoint


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
    shape: Shape
    processes: Processes

    @property
    def steps(self) -> int:
        """How many there will be."""
        return self.config.steps(len(self.feed))


def open_dataset(model: Path, data: Path, config: TrainConfig) -> Dataset:
    """The lessons of a file for a model's vocabulary."""
    tokenizer = load_tokenizer(open_checkpoint(model).vocab)
    return Dataset.of_file(data, tokenizer, config.objective, config.section_weights, config.max_length)


def plan(
    model: Path,
    data: Path,
    out: Path,
    config: TrainConfig,
    validation: Path | None = None,
    processes: Processes = Processes(),  # noqa: B008  frozen
) -> Plan:
    """Read the data and look whether the model can be trained here. Raises ResourceError if it cannot."""
    shape = shape_of(model)
    if 0 < shape.context < config.max_length:
        raise UsageError(
            f"max_length: is {config.max_length}, and {model} reads at most {shape.context} tokens; expected no more; "
            f"add --max-length {shape.context}"
        )
    if config.engine is Engine.TRL:
        require_possible(config, processes.count)
    memory = estimate(shape, config, processes.count)
    require_room(model, memory, _free_memory(processes), config)
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
    return Plan(model, out, config, Feed(dataset, config), looked_at, dataset, memory, facts, shape, processes)


def train(plan: Plan, on_row: Callable[[Row], None] = lambda row: None) -> Row:
    """Train as planned, from the last saved state on if there is one; the last line of the log.

    ``out`` then holds ``model``, a Hugging Face folder; with LoRA also ``adapter``; and the log. Of several processes
    the first writes; each must call it. Raises ResourceError if another run has the folder.
    """
    is_first = plan.processes.is_first
    with alone_in(plan.out) if is_first else nullcontext(), joined(plan.processes) as group:
        group.wait()  # the first has the folder
        with _memory_told(plan):
            end = Run(plan, group).whole(on_row)
        if is_first:
            for state in states(plan.out):
                shutil.rmtree(state)
        return end


class Run:
    """A run in one process of its group: from the first to the last line of the log."""

    def __init__(self, plan: Plan, group: Group) -> None:
        self._plan, self._group = plan, group
        self._peak, self._peak_is = _peak(group, plan.config)
        self._meter = Meter(plan.shape, plan.config, self._peak)

    def whole(self, on_row: Callable[[Row], None]) -> Row:
        """Everything; the last line."""
        plan = self._plan
        saved = states(plan.out)
        step, position = read_facts(saved[-1], plan.config, plan.facts) if saved else (0, 0)
        is_first = plan.processes.is_first
        log = open_log(plan.out, step, on_row, plan.config.tensorboard) if is_first else nullcontext(_unheard)
        with log as self._write:
            self._write({"kind": "begin", "step": step, "steps": plan.steps, **self._circumstances(), **_counts(plan)})
            if plan.config.engine is Engine.TRL:
                learner, last = self._by_trl()
            else:
                learner = Learner(plan.model, plan.config, self._group)
                if saved:
                    load_state(saved[-1], learner)
                last = self._steps(learner, step, position)
            _write_model(plan.out, learner)
            end = {"kind": "end", "step": plan.steps, "folder": str(plan.out / "model"), **_counts(plan), **last}
            self._write(end)
        return end

    def _circumstances(self) -> Row:
        return {
            "engine": self._plan.config.engine.value,
            "device": self._group.device,
            "processes": self._group.processes.count,
            "peak_tflops": round(self._peak / 1e12, 4),
            "peak": self._peak_is,
        }

    def _by_trl(self) -> tuple[Learner, Row]:
        plan = self._plan
        model, last = train_by_trl(plan, self._write, self._meter)
        learner = Learner(plan.model, plan.config, self._group, model)
        return learner, last | self._validated(learner, plan.steps)

    def _steps(self, learner: Learner, step: int, position: int) -> Row:
        """Every step from ``step`` on, the data from ``position`` on; the last losses."""
        plan, steps = self._plan, self._plan.steps
        last: Row = {}
        saved_at = time.monotonic()
        while step < steps:
            started = time.monotonic()
            rows, position = plan.feed.take(position, plan.config.global_batch)
            rate = plan.config.rate(step, steps)
            losses, norm = learner.step(rows, rate, step)
            step += 1
            if not math.isfinite(losses.mean + norm):
                raise SelfeeError(
                    f"{plan.model}: loss {losses.mean} and gradient {norm} in step {step}; expected numbers; the last "
                    "saved state is kept; try a lower --learning-rate, or --precision fp32"
                )
            seconds = time.monotonic() - started
            last = {"loss": losses.mean}
            epoch = {"epoch": round(position / len(plan.feed), 4)}
            head = {"kind": "step", "step": step, **epoch, **_of(losses), "rate": rate, "gradient": norm}
            self._write(head | self._meter.read(rows, seconds))
            if step == steps or _is_due(step, plan.config.validate_every):
                last |= self._validated(learner, step)
            if step < steps and self._must_save(step, time.monotonic() - saved_at):
                save_state(plan.out, learner, step, position, plan.facts)
                self._write({"kind": "saved", "step": step})
                saved_at = time.monotonic()
        return last

    def _validated(self, learner: Learner, step: int) -> Row:
        if self._plan.validation is None:
            return {}
        checked = learner.measure(self._plan.validation.all())
        self._write({"kind": "validation", "step": step, **_of(checked)})
        return {"validation_loss": checked.mean}

    def _must_save(self, step: int, seconds: float) -> bool:
        config = self._plan.config
        late = seconds >= 60 * config.save_minutes
        # One clock decides for all: theirs differ.
        by_time = self._group.total([float(late and self._plan.processes.is_first)])[0] > 0
        return by_time or _is_due(step, config.save_every)


def _unheard(row: Row) -> None:
    """Where the first process writes the log, the others say nothing."""


def _peak(group: Group, config: TrainConfig) -> tuple[float, str]:
    """Operations a second of all processes together, and how that is known."""
    if config.peak_tflops:
        return config.peak_tflops * 1e12 * group.processes.count, "given"
    group.wait()  # processes on one processor share it: they measure at the same time
    return group.total([measured_peak(group.device, config)])[0], "measured"


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _of(losses: Losses) -> Row:
    return {"loss": losses.mean, "parts": losses.by_part}


def _counts(plan: Plan) -> Row:
    return {"data": plan.dataset.counts.to_json()}


def _write_model(out: Path, learner: Learner) -> None:
    adapter = out / "adapter" if learner.config.lora_rank else None
    if adapter is not None:
        with _made_by_first(adapter, learner) as part:
            learner.write_adapter(part)
    with _made_by_first(out / "model", learner) as part:
        learner.write(part, adapter)


@contextmanager
def _made_by_first(folder: Path, learner: Learner) -> Iterator[Path]:
    """The hidden folder to write into, and the folder whole when every process leaves the block."""
    if learner.group.processes.is_first:
        with replacing_folder(folder, force=True) as part:
            yield part
    else:
        yield part_of(folder)
    learner.group.wait()


def _free_memory(processes: Processes) -> int | None:
    """What one process may take: a GPU is its own, a machine is shared."""
    torch = library("torch")
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info(processes.local_rank)[0])
    free = available_memory()
    return None if free is None else free // processes.local_count


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
