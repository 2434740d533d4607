"""The whole road, as `examples/pipeline.sh` walks it: from an empty folder to a quantised file that answers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny_hf import make_tiny_hf

from selfee.weights.open import open_checkpoint

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "pipeline.sh"
LEFT = {"samples.jsonl", "chains.jsonl", "training", "base", "run", "delta", "trained", "model-q8_0.gguf"}


def walk(folder: Path, **variables: str) -> str:
    """Walk the road with this environment's selfee; the answer."""
    if importlib.util.find_spec("peft") is None:
        pytest.skip("peft is not installed; pip install 'selfee[train]'")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SELFEE_COLOR": "never"} | variables
    done = subprocess.run([SCRIPT, folder], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {entry.name for entry in folder.iterdir()} >= LEFT
    rows = [json.loads(line) for line in (folder / "chains.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["end"] for row in rows] == ["accepted"] * 24
    first, second = (open_checkpoint(folder / name) for name in ("run/model", "trained"))
    assert all((first.read(name) == second.read(name)).all() for name in first.tensors)  # the delta gives it back
    return done.stdout


@pytest.mark.slow
def test_the_road_leads_from_raw_rows_to_a_file_that_says_something(tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "tiny", tokenizer="spm")
    walk(tmp_path / "out", BASE=str(tmp_path / "tiny"), STEPS="2")


@pytest.mark.minutes
@pytest.mark.network
def test_the_road_with_the_embedded_base_ends_in_an_answer(tmp_path: Path) -> None:
    assert walk(tmp_path / "out").strip()
    log = [
        json.loads(line) for line in (tmp_path / "out" / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    steps = [row["loss"] for row in log if row["kind"] == "step"]
    assert steps[-1] < steps[0] / 2
