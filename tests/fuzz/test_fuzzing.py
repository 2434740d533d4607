"""The fuzzers themselves: they run, and they notice."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fuzz import fuzz_ggml, fuzz_gguf, fuzz_session, fuzz_tensors, fuzzing

FOLDER = Path(fuzzing.__file__).parent


@pytest.mark.parametrize("name", ["gguf", "ggml", "tensors", "session"])
def test_a_short_run_finds_nothing(name: str) -> None:
    command = [sys.executable, str(FOLDER / f"fuzz_{name}.py"), "--seconds", "3", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none escaped" in done.stdout


def test_both_ends_are_reached(tmp_path: Path) -> None:
    for module in (fuzz_gguf, fuzz_ggml):
        seeds = module.make_seeds(tmp_path)
        chance = random.Random(3)
        path = tmp_path / "input.bin"
        ends = set()
        for _ in range(300):
            path.write_bytes(fuzzing.mutate(chance, seeds))
            ends.add(fuzzing.use(path))
        assert ends == {"refused", "accepted"}


def test_sound_tensor_files_are_used_to_the_end(tmp_path: Path) -> None:
    seeds = fuzz_tensors.make_seeds(tmp_path)
    path = tmp_path / "input.bin"
    ends = []
    for seed in seeds:
        path.write_bytes(seed.content)
        ends.append(fuzz_tensors.use(path))
    assert ends == ["accepted", "applied", "accepted"]


def test_sound_sessions_are_restored_and_lies_with_sound_checksums_are_told(tmp_path: Path) -> None:
    seeds = fuzz_session.make_seeds(tmp_path)
    path = tmp_path / "input.bin"
    for seed in seeds:
        assert fuzz_session.resealed(seed.content) == seed.content
        path.write_bytes(seed.content)
        assert fuzz_session.use(path) == "accepted"
    chance, ends = random.Random(3), set()
    for _ in range(300):
        path.write_bytes(fuzz_session.resealed(fuzzing.mutate(chance, seeds)))
        ends.add(fuzz_session.use(path))
    assert ends == {"refused", "accepted"}


def test_the_same_seed_damages_the_same_bytes(tmp_path: Path) -> None:
    seeds = fuzz_ggml.make_seeds(tmp_path)
    first = [fuzzing.mutate(random.Random(5), seeds) for _ in range(3)]
    assert first == [fuzzing.mutate(random.Random(5), seeds) for _ in range(3)]


BROKEN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
from tests.fuzz import fuzz_gguf, fuzzing
from selfee.weights import gguf
seeds = fuzz_gguf.make_seeds(Path(sys.argv.pop(1)))
gguf.checked_size = lambda *_: 1 // 0
sys.exit(fuzzing.main("gguf", lambda folder: seeds))
"""


def test_an_error_of_another_kind_is_reported_with_its_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BROKEN, str(FOLDER.parents[1]), str(tmp_path), "--seconds", "20", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    reproducing = Path(done.stdout.rsplit("the input is ", 1)[1].strip())
    assert reproducing.is_file()
    reproducing.unlink()
    reproducing.parent.rmdir()
