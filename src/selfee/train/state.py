"""A run's state on disk: trained tensors, optimiser, position in the data; in shares, by however many processes.

DCP, torch's sharded checkpoints, in its form of safetensors: no pickle, and any number of processes reads it again.
Each state is a folder of its own that gets its name when it is whole; the oldest are removed. Random numbers need no
saving: they are drawn from the seed and the number of the step.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError, ResourceError, UsageError
from selfee.train.config import TrainConfig
from selfee.train.learner import Learner
from selfee.train.libraries import library
from selfee.weights.folders import FolderKind, part_of, replacing_folder

_STATE = FolderKind("a saved state", "saved states", (".safetensors",))
_FREE = frozenset(
    {"save_minutes", "save_every", "keep", "validate_every", "gradient_checkpointing", "keep_gathered"}
    | {"peak_tflops", "tensorboard"}
)
"""Settings that may change between two parts of a run, for they do not change what is learned."""


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Holds the folder of a run while the block runs. Raises ResourceError if another run holds it."""
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the kernel lets go when a process dies
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ResourceError(
            f"{out}: another run is training into this folder; expected to be alone; wait for it or choose another"
        ) from None
    else:
        yield
    finally:
        os.close(folder)


def save_state(out: Path, learner: Learner, step: int, position: int, facts: dict[str, Any]) -> None:
    """Save the state after ``step`` steps; ``position`` is that in the data. Keeps the newest.

    Every process of the learner's group must call it: each writes its share.
    """
    group = learner.group
    folder = out / f"state-{step:08}"
    is_first = group.processes.is_first
    with (
        replacing_folder(folder, force=True, kind=_STATE) if is_first else contextlib.nullcontext(part_of(folder)) as p
    ):
        group.wait()  # the folder is there
        storage = library("torch.distributed.checkpoint.hf_storage")
        with _quiet():
            library("torch.distributed.checkpoint").save(
                _tensors(learner), storage_writer=storage.HuggingFaceStorageWriter(str(p), save_distributed=True)
            )
        group.wait()  # every share is there
        if is_first:
            shares = sorted(path.name for path in p.glob("*.safetensors"))
            whole = facts | {"step": step, "position": position, "shares": shares, "config": learner.config.to_json()}
            (p / "state.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    if is_first:
        for old in states(out)[: -learner.config.keep]:
            shutil.rmtree(old)
    group.wait()


def _tensors(learner: Learner) -> dict[str, Any]:
    """The tensors of a state by name, each as this process has it."""
    tensors: dict[str, Any] = {}
    for name, value in learner.parameters().items():
        tensors[f"weight/{name}"] = value.detach()
        tensors |= {f"{key}/{name}": kept for key, kept in learner.optimizer.state[value].items()}
    return tensors


def states(out: Path) -> list[Path]:
    """The saved states of a run, oldest first."""
    return sorted(path for path in out.glob("state-*") if (path / "state.json").is_file())


def read_facts(state: Path, config: TrainConfig, facts: dict[str, Any]) -> tuple[int, int]:
    """Step and position of a state. Raises UsageError if this is another run than the one that is to go on."""
    try:
        saved = json.loads((state / "state.json").read_bytes())
        step, position, old = int(saved["step"]), int(saved["position"]), dict(saved["config"])
        missing = [name for name in saved["shares"] if not (state / name).is_file()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFileError(
            f"{state}: cannot be read ({error}); remove this folder to go on from an older state"
        ) from error
    if missing:
        raise BadFileError(f"{state}: {missing[0]} is missing; remove this folder to go on from an older state")
    now = config.to_json()
    # Which numbers are drawn depends on which rows share a batch.
    free = _FREE if config.lora_dropout else _FREE | {"batch_size"}
    changed = [name for name in now if name not in free and now[name] != old.get(name)]
    changed += [name for name in facts if facts[name] != saved.get(name)]
    if changed:
        name = changed[0]
        before, here = (saved | old).get(name), (facts | now)[name]
        raise UsageError(
            f"{state.parent}: holds a run with {name} {before}, now it is {here}; expected the same run to go on; "
            "choose another folder, or remove this one to begin anew"
        )
    return step, position


def load_state(state: Path, learner: Learner) -> None:
    """Put a saved state into a learner that was made of the same model and settings."""
    torch = learner.torch
    for value in learner.parameters().values():
        learner.optimizer.state[value] = {
            "step": torch.zeros(()),  # the optimiser counts on the processor, wherever the weights are
            "exp_avg": torch.zeros_like(value, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(value, requires_grad=False),
        }
    tensors = _tensors(learner)
    storage = library("torch.distributed.checkpoint.hf_storage")
    try:
        with _quiet():
            reader = storage.HuggingFaceStorageReader(str(state))
            found = reader.read_metadata().state_dict_metadata
            wrong = [name for name, value in tensors.items() if name not in found or found[name].size != value.shape]
            if wrong:
                raise BadFileError(
                    f"{state}: tensor {wrong[0]!r} is missing or of another shape; expected the same model"
                )
            library("torch.distributed.checkpoint").load(tensors, storage_reader=reader)
    except (library("safetensors").SafetensorError, ValueError, KeyError) as error:
        raise BadFileError(
            f"{state}: cannot be read ({error}); remove this folder to go on from an older state"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's remarks on running in one process."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)
