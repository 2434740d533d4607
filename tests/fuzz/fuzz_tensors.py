"""Damaged safetensors, PyTorch and delta files: ``python tests/fuzz/fuzz_tensors.py --seconds 600 --seed 1``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.fuzzing import Seed, main
from tests.weights.huggingface.craft_tensors import Array, state_dict, tensor, write_folder, write_pth

from selfee.errors import SelfeeError
from selfee.weights.delta.apply import apply_delta
from selfee.weights.delta.file import is_own, open_delta
from selfee.weights.delta.make import make_delta
from selfee.weights.huggingface.shards import open_tensors
from selfee.weights.huggingface.stored import DType

OUT = "out"


def make_seeds(folder: Path) -> list[Seed]:
    """A safetensors file, a PyTorch file, and a delta; ``folder`` keeps the base of the latter."""
    a, b = np.arange(12, dtype="<f4").reshape(3, 4), np.arange(4, dtype="<f2")
    base = write_model(folder / "base.safetensors", a, b)
    target = write_model(folder / "target.safetensors", np.concatenate([a + 1, a[:1]]), b)
    with open_tensors(base) as ours, open_tensors(target) as theirs:
        make_delta(ours, theirs, folder / OUT)
    delta = (folder / OUT / "delta.safetensors").read_bytes()
    shutil.rmtree(folder / OUT)
    views = {"a": tensor([3, 4], [4, 1], count=12), "t": tensor([2, 3], [1, 4], count=12, offset=1)}
    pth = write_pth(folder / "pth", state_dict(views), {"0": a.tobytes()}).read_bytes()
    seeds = [Seed(content, [(0, 8)]) for content in (base.read_bytes(), delta)]
    seeds.append(Seed(pth, [(at, width) for at in range(len(pth) - 8) for width in (2, 4)]))
    for path in (target, folder / "pth"):
        path.unlink()
    return seeds


def write_model(path: Path, a: Array, b: Array) -> Path:
    write_folder(path.parent, {path.name: {"a": (DType.F32, a), "b": (DType.F16, b)}})
    return path


def use(path: Path) -> str:
    """Do everything that tensor files are for; returns how it ended. Anything but SelfeeError escapes."""
    try:
        with open_tensors(path) as opened:
            for name, found in opened.tensors.items():
                assert opened.read(name).nbytes == found.nbytes
                assert opened.read_rows(name, 0, found.rows // 2).nbytes == found.rows // 2 * found.row_bytes
                opened.release(name)
            own = is_own(opened)
    except SelfeeError as error:
        line = str(error)
        assert line.startswith(str(path)), line
        assert line.isprintable(), ascii(line)
        assert len(line) < 1000, line
        return "refused"
    return applied(path) if own else "accepted"


def applied(path: Path) -> str:
    """Apply a delta that could be opened."""
    out = path.parent / OUT
    try:
        with open_delta(path) as delta, open_tensors(path.parent / "base.safetensors") as base:
            apply_delta(base, delta, out, threads=1)
    except SelfeeError as error:
        line = str(error)
        assert line.isprintable(), ascii(line)
        assert not out.exists()
        return "refused"
    shutil.rmtree(out)
    return "applied"


if __name__ == "__main__":
    sys.exit(main("tensors", make_seeds, use))
