"""Several processes, each with a share of the model: the same run as one alone, also when it is killed on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny_hf import make_tiny_hf
from tests.train.chains import some_chains, write_chains

from selfee.train.config import TrainConfig, preset
from selfee.train.processes import Group, Processes
from selfee.train.run import plan, train
from selfee.train.state import states
from selfee.weights.open import open_checkpoint

torch = pytest.importorskip("torch", reason="torch is not installed; pip install 'selfee[train]'")
pytest.importorskip("peft", reason="peft is not installed")
psutil = pytest.importorskip("psutil", reason="psutil is not installed")

TOLERANCE = 1e-5
"""Sums over two processes are added in another order than one process adds them; nothing else differs."""

FULL = preset("tiny", max_steps=8, global_batch=5, batch_size=2, save_every=2, validate_every=2, learning_rate=3e-3)
LORA = replace(FULL, lora_rank=2, lora_dropout=0.3, learning_rate=1e-2, keep_gathered=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_tiny_hf(tmp_path / "base", tied=True)
    return tmp_path / "base"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    write_chains(tmp_path / "data" / "validation.jsonl", some_chains(3))
    return write_chains(tmp_path / "data" / "train.jsonl", some_chains(7)).parent


def flags_of(config: TrainConfig) -> list[str]:
    """The words that make this configuration of the published recipe."""
    words = []
    for name, value in config.to_json().items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif not isinstance(value, list):
            words += [f"--{flag}", str(value)]
    return words


@contextmanager
def torchrun(count: int, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Processes that ``torchrun`` starts, on a port of their own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield running
    finally:
        kill_all(running)


def kill_all(running: subprocess.Popen[str]) -> None:
    """SIGKILL for the launcher and all that it started: nobody can say goodbye."""
    try:
        family = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for process in family:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    running.communicate()


def train_by_two(model: Path, data: Path, out: Path, config: TrainConfig, kill_at: int = 0) -> None:
    """Train in two processes; kill them when step ``kill_at`` is told, 0 = let them end."""
    words = ["-m", "selfee.cli", "train", str(model), str(data), "-o", str(out), "--json", *flags_of(config)]
    with torchrun(2, *words) as running:
        assert running.stdout is not None
        for line in running.stdout:
            row = json.loads(line)
            assert row.get("processes", 2) == 2
            if row["kind"] == "step" and row["step"] == kill_at:
                kill_all(running)
                return
        _, errors = running.communicate()
        assert running.returncode == 0, errors
    assert not kill_at


class KilledError(Exception):
    """Stands for a process that ends without another word."""


def train_alone(model: Path, data: Path, out: Path, config: TrainConfig, kill_at: int = 0) -> None:
    """Train in this process."""

    def on_row(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == kill_at:
            raise KilledError

    try:
        train(plan(model, data, out, config), on_row)
    except KilledError:
        return


def curve(out: Path) -> list[list[float]]:
    """A row for each step: number, losses, gradient, tokens, place in the data; and for each validation: losses."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["kind"] in ("step", "validation")]
    names = ("step", "loss", "rate", "gradient", "tokens", "epoch")
    return [[row.get(name, 0.0) for name in names] + list(row["parts"].values()) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(("config", "counts"), [(FULL, (2, 1, 2)), (LORA, (1, 2))], ids=["full", "lora"])
def test_a_run_killed_at_random_goes_on_in_another_number_of_processes_along_the_same_curve(
    tmp_path: Path, model: Path, data: Path, config: TrainConfig, counts: tuple[int, ...]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_alone(model, data, whole, config)
    kills = [*sorted(random.sample(range(3, config.max_steps), len(counts) - 1)), 0]
    for count, kill_at in zip(counts, kills, strict=True):
        (train_by_two if count == 2 else train_alone)(model, data, broken, config, kill_at)
        assert bool(states(broken)) == bool(kill_at)  # what was saved is there, and goes when the run ends
    expected, found = (np.array(curve(out)) for out in (whole, broken))
    assert expected[-2, 1] < expected[0, 1] - 0.1  # a curve that does not move proves nothing
    assert found == pytest.approx(expected, abs=TOLERANCE, rel=TOLERANCE), kills
    print("largest difference of the curves", float(np.abs(found - expected).max()), "after kills at", kills)
    first, second = (open_checkpoint(out / "model") for out in (whole, broken))
    assert set(first.tensors) == set(second.tensors)
    for name in first.tensors:
        one, other = (file.read(name).view(np.float32) for file in (first, second))
        assert np.allclose(one, other, atol=2e-4), (name, kills, float(np.abs(one - other).max()))


def test_two_runs_into_one_folder_refuse_each_other(tmp_path: Path, model: Path, data: Path) -> None:
    from selfee.errors import ResourceError

    refused = []

    def on_row(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == 1:
            with pytest.raises(ResourceError, match="another run is training into this folder; expected to be alone"):
                train(plan(model, data, tmp_path / "out", FULL))
            refused.append(row)

    train(plan(model, data, tmp_path / "out", replace(FULL, max_steps=2)), on_row)
    assert len(refused) == 1
    assert [row[0] for row in curve(tmp_path / "out")] == [1, 2, 2]  # the other left the log alone


def test_every_batch_goes_to_one_process_and_all_compute_as_often(model: Path) -> None:
    from tests.train.test_learner import rows_of

    from selfee.train.learner import Learner

    rows = rows_of(7)
    shares = []
    for rank in range(3):
        learner = Learner(model, FULL)
        learner.group = Group(Processes())
        learner.group.processes = Processes(rank, 3)
        shares.append(list(learner._share(rows)))
    assert {len(share) for share in shares} == {2}
    counted = [(place, batch.tokens) for share in shares for place, batch in share if batch.counts]
    assert sorted(place for place, _ in counted) == [0, 1, 2, 3]
    assert sum(tokens for _, tokens in counted) == sum(len(row[0].ids) for row in rows)
    idle = [batch for share in shares for _, batch in share if not batch.counts]
    assert len(idle) == 2
    assert not any(batch.weights_BT.any() for batch in idle)
