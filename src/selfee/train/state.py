"""A run's state on disk: trained tensors, optimiser, random numbers, position in the data. No pickle.

Each state is a folder of its own that gets its name when it is whole; the oldest are removed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError, UsageError
from selfee.train.config import TrainConfig
from selfee.train.learner import Learner
from selfee.train.libraries import library
from selfee.weights.folders import FolderKind, replacing_folder

_STATE = FolderKind("a saved state", "saved states", (".safetensors",))
_FREE = ("save_minutes", "keep", "validate_every", "batch_size", "gradient_checkpointing")
"""Settings that may change between two parts of a run, for they do not change what is learned."""


def save_state(out: Path, learner: Learner, step: int, position: int, facts: dict[str, Any]) -> None:
    """Save the state after ``step`` steps; ``position`` is that in the data. Keeps the newest."""
    torch = learner.torch
    tensors = {"random.cpu": torch.get_rng_state()}
    if learner.device == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    for name, value in learner.parameters().items():
        tensors[f"weight/{name}"] = value.detach().cpu().contiguous()
        for key, kept in learner.optimizer.state[value].items():
            tensors[f"{key}/{name}"] = kept.detach().cpu().contiguous()
    with replacing_folder(out / f"state-{step:08}", force=True, kind=_STATE) as part:
        library("safetensors.torch").save_file(tensors, part / "state.safetensors")
        whole = facts | {"step": step, "position": position, "config": learner.config.to_json()}
        (part / "state.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    for old in states(out)[: -learner.config.keep]:
        shutil.rmtree(old)


def states(out: Path) -> list[Path]:
    """The saved states of a run, oldest first."""
    return sorted(path for path in out.glob("state-*") if (path / "state.json").is_file())


def read_facts(state: Path, config: TrainConfig, facts: dict[str, Any]) -> tuple[int, int]:
    """Step and position of a state. Raises UsageError if this is another run than the one that is to go on."""
    try:
        saved = json.loads((state / "state.json").read_bytes())
        step, position, old = int(saved["step"]), int(saved["position"]), dict(saved["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFileError(
            f"{state}: cannot be read ({error}); remove this folder to go on from an older state"
        ) from error
    now = config.to_json()
    changed = [name for name in now if name not in _FREE and now[name] != old.get(name)]
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
    tensors = library("safetensors.torch").load_file(state / "state.safetensors")
    with torch.no_grad():
        for name, value in learner.parameters().items():
            if f"weight/{name}" not in tensors or tensors[f"weight/{name}"].shape != value.shape:
                raise BadFileError(f"{state}: tensor {name!r} is missing or of another shape; expected the same model")
            value.copy_(tensors[f"weight/{name}"])
            kept = {key: tensors[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            # The optimiser counts steps on the processor, wherever the weights are.
            moved = {key: one if key == "step" else one.to(value.device) for key, one in kept.items()}
            learner.optimizer.state[value] = moved
    torch.set_rng_state(tensors["random.cpu"])
    if learner.device == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
