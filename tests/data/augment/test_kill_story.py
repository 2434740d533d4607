"""The promise of `selfee data augment`: killed at any moment, nothing is paid for twice and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.engines.paid.faulty_teacher import FAULTS, FaultyTeacher, Plan

from selfee.journal import Journal

FLAGS = ("--concurrency", "8", "--total-timeout", "3", "--timeout", "5", "--attempts", "8", "--price-in", "1")


def write_rows(path: Path, count: int) -> None:
    rows = []
    for number in range(count):
        row = {"instruction": f"How much is {number} and {number * 7}?", "source": "sums", "split": "train"}
        rows.append(row | ({"reference": f"It is {number * 8}, of course."} if number % 2 else {}))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def start(teacher: FaultyTeacher, samples: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "selfee.cli", "data", "augment", str(samples), "-o", str(out), "-m", teacher.url]
    return subprocess.Popen(
        [*command, *FLAGS, "--price-out", "2", "-q"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"SELFEE_API_KEY": "secret-key"},
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr.decode()


def kill_while_it_works(teacher: FaultyTeacher, process: subprocess.Popen[bytes], pause: float) -> bool:
    """Kill it ``pause`` seconds after its first new request; False if it ended before."""
    before = teacher.requests
    while teacher.requests == before:
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    time.sleep(pause)
    if process.poll() is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return True


def survives(tmp_path: Path, rows: int, kills: int, seed: int) -> None:
    samples = tmp_path / "samples.jsonl"
    write_rows(samples, rows)
    plan = Plan(faults=FAULTS, share=0.1, latency=0.06)
    with FaultyTeacher(plan) as teacher:
        finish(start(teacher, samples, tmp_path / "undisturbed.jsonl"))
        calm = teacher.served
        assert set(teacher.paid.values()) == {1}
        distinct = len(teacher.paid)
    draw = random.Random(seed)
    with FaultyTeacher(plan) as teacher:
        out = tmp_path / "killed.jsonl"
        done = 0
        while done < kills:
            process = start(teacher, samples, out)
            assert kill_while_it_works(teacher, process, draw.uniform(0.0, 0.3)), f"over after {done} kills"
            done += 1
        finish(start(teacher, samples, out))
        assert calm.keys() >= {"reply", "rate", "server"}
        assert len(teacher.paid) == distinct, "the same questions were asked"
        twice = {question: count for question, count in teacher.paid.items() if count > 1}
        assert twice == {}
        with Journal(tmp_path / "killed.journal") as journal:
            assert len(journal) == distinct
            assert journal.num_orphaned() == 0
    assert out.read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()
    assert len(out.read_text().splitlines()) == rows
    for path in tmp_path.iterdir():
        assert b"secret-key" not in path.read_bytes(), f"{path.name} holds the key"


def test_five_kills_cost_nothing_twice_and_change_no_byte(tmp_path: Path) -> None:
    survives(tmp_path, rows=30, kills=5, seed=1)


@pytest.mark.minutes
@pytest.mark.timeout(1800)  # it starts 45 processes: minutes where others use the machine
@pytest.mark.parametrize("seed", [2, 3])
def test_twenty_kills_cost_nothing_twice_and_change_no_byte(tmp_path: Path, seed: int) -> None:
    survives(tmp_path, rows=180, kills=20, seed=seed)
