"""``selfee delta``: made, applied, turned round, killed at any moment, and with little memory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.cli.story import Shell
from tests.weights.delta.models import (
    DIM,
    VOCAB,
    Model,
    base_and_target,
    bf16,
    files_of,
    tensors_of,
    trained,
    write_model,
)

from selfee.weights.huggingface.stored import DType


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    base, target = base_and_target()
    write_model(tmp_path / "base", base, 2)
    write_model(tmp_path / "target", target, 3)
    return Shell(tmp_path)


def test_a_delta_goes_there_and_back(shell: Shell) -> None:
    made = shell.run("delta", "make", "base", "target", "delta/")
    assert "written    delta\nkind       exact\n" in made.stdout
    assert "grown      lm_head.weight, model.embed_tokens.weight\n" in made.stdout
    assert made.stderr == ""
    applied = shell.run("delta", "apply", "base", "delta", "there")
    assert applied.stderr == "delta: a delta of kind exact, marked in its metadata\n"
    shell.run("delta", "apply", "--reverse", "target", "delta", "back", "--quiet")
    assert tensors_of(shell.folder / "there") == tensors_of(shell.folder / "target")
    assert tensors_of(shell.folder / "back") == tensors_of(shell.folder / "base")
    for name in ("config.json", "tokenizer.json", "model.safetensors.index.json"):
        assert files_of(shell.folder / "there")[name] == files_of(shell.folder / "target")[name]
        assert files_of(shell.folder / "back")[name] == files_of(shell.folder / "base")[name]


def test_programs_read_json(shell: Shell) -> None:
    made = json.loads(shell.run("delta", "make", "base", "target", "delta", "--json", "--max-shard-size", "2k").stdout)
    info = json.loads(shell.run("delta", "info", "delta", "--json").stdout)
    applied = json.loads(shell.run("delta", "apply", "base", "delta", "out", "--json", "-q").stdout)
    for key in (
        "base_sha256",
        "target_sha256",
        "delta_bytes",
        "ratio",
        "grown",
        "added",
        "dropped",
        "reversible",
        "kind",
    ):
        assert made[key] == info[key] == applied[key]
    assert (made["path"], made["kind"], info["made_by"][:7]) == ("delta", "exact", "selfee ")
    assert made["ratio"] == pytest.approx(made["delta_bytes"] / made["target_bytes"], abs=1e-6)
    assert len(list((shell.folder / "delta").glob("delta-*.safetensors"))) > 2


def test_a_published_delta_is_told_and_applied(shell: Shell) -> None:
    rows = {"model.embed_tokens.weight": VOCAB, "lm_head.weight": VOCAB, "model.norm.weight": 1}
    rng = np.random.default_rng(0)
    base: Model = {name: (DType.F16, rng.normal(size=(count, DIM)).astype("<f2")) for name, count in rows.items()}
    delta: Model = {
        name: (DType.F32, rng.normal(size=(count + (count > 1), DIM)).astype("<f4")) for name, count in rows.items()
    }
    write_model(shell.folder / "raw", base)
    write_model(shell.folder / "published", delta)
    done = shell.run("delta", "apply", "raw", "published", "out")
    assert done.stderr == (
        "published: a delta of kind alpaca, its numbers are float32\n"
        "published deltas record no checksum: a wrong base of the right shape goes unnoticed\n"
    )
    assert json.loads((shell.folder / "out" / "config.json").read_text()) == {"vocab_size": VOCAB + 1}
    name = "model.norm.weight"
    shell.run("delta", "apply", "raw", "published", "half", "--kind", "fastchat", "--dtype", "f32", "-q")
    assert tensors_of(shell.folder / "half")[name][0] == "F32"
    info = shell.run("delta", "info", "published")
    assert "kind       alpaca, its numbers are float32\n" in info.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("make base target base", "base: is or holds base, which is to be read"),
        ("make base target .", "is or holds base, which is to be read"),
        ("make base nothing out", "nothing: there is no such file"),
        ("make base empty out", "empty: expected a model: model.safetensors, pytorch_model.bin"),
        ("make base target full", "full: is there and not empty; expected a new folder; choose another or add --force"),
        ("make base target full --force", "holds something else than a model; --force replaces only"),
        ("make base target out --max-shard-size much", "--max-shard-size 'much': expected a size such as 700M"),
        ("apply target delta out", "the base of the delta; expected the base that the delta was made with"),
        ("apply --reverse base delta out", "the target of the delta; expected the target that the delta was made with"),
        ("apply base delta out --dtype f16", "--dtype: does not go with this kind of delta"),
        ("apply base base out --kind fastchat --reverse", "--reverse: does not go with this kind of delta"),
        ("apply base target out --kind exact", "holds no delta of selfee's own"),
        ("apply base base out", "a delta of BF16 and F16 and F32 numbers; expected float32"),
        ("info empty", "empty: expected a model"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(words: str, message: str, shell: Shell) -> None:
    (shell.folder / "empty").mkdir()
    (shell.folder / "full").mkdir()
    (shell.folder / "full" / "letter.txt").touch()
    shell.run("delta", "make", "base", "target", "delta")
    before = {path.name for path in shell.folder.iterdir()}
    done = shell.run("delta", *words.split(), check=2)
    assert message in done.stderr
    assert done.stderr.splitlines()[-1].startswith("selfee: ")
    assert done.stdout == ""
    assert {path.name for path in shell.folder.iterdir()} == before


def large_model(shell: Shell, megabytes: int, shards: int, changed: int = 1000) -> None:
    """base and target of that many MB each, in shards of equal size; the first ``changed`` tensors were trained."""
    rng = np.random.default_rng(0)
    rows, layers = 512, megabytes // 4
    matrix = bf16(rng.normal(0, 0.02, (rows, 4096)).astype("<f4"))
    base: Model = {f"layers.{index}.weight": (DType.BF16, matrix ^ np.uint16(index)) for index in range(layers)}
    base["lm_head.weight"] = (DType.BF16, bf16(rng.normal(0, 0.02, (32, 4096))))
    target = base | {name: (dtype, trained(array, rng)) for name, (dtype, array) in list(base.items())[:changed]}
    target["lm_head.weight"] = (
        DType.BF16,
        np.concatenate([target["lm_head.weight"][1], base["lm_head.weight"][1][:1]]),
    )
    write_model(shell.folder / "base", base, shards)
    write_model(shell.folder / "target", target, shards)


def peak_memory(shell: Shell, *words: str) -> int:
    """The most resident memory of a command in bytes, mapped pages included, over that of selfee doing nothing."""
    # Not getrusage: its peak begins with that of the process that started this one.
    script = (
        "import re, sys; from pathlib import Path; from selfee.cli.run import run\n"
        "import selfee.weights.delta.apply, selfee.weights.delta.published, selfee.cli.delta\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = peak(); code = run(sys.argv[1:]); assert code == 0, code\n"
        "print(1024 * (peak() - before), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=shell.folder, env=shell.environ, capture_output=True, check=True
    )
    return int(done.stderr.split()[-1])


@pytest.mark.parametrize(
    ("megabytes", "shards", "changed"), [(64, 2, 2), pytest.param(208, 5, 1000, marks=pytest.mark.slow)]
)
def test_memory_stays_below_two_shards(megabytes: int, shards: int, changed: int, shell: Shell) -> None:
    for name in ("base", "target"):
        for path in (shell.folder / name).iterdir():
            path.unlink()
    large_model(shell, megabytes, shards, changed)
    shard = max(path.stat().st_size for path in (shell.folder / "base").iterdir())
    for words in (
        ("make", "base", "target", "delta"),
        ("apply", "base", "delta", "there"),
        ("apply", "--reverse", "target", "delta", "back"),
        ("apply", "base", "target", "sum", "--kind", "alpaca", "--dtype", "bf16"),
    ):
        peak = peak_memory(shell, "delta", *words, "-q", "--threads", "2")
        print(f"{' '.join(words)}: {peak / 1e6:.0f} MB for shards of {shard / 1e6:.0f} MB")
        assert peak < 2 * shard
    assert tensors_of(shell.folder / "there") == tensors_of(shell.folder / "target")
    assert tensors_of(shell.folder / "back") == tensors_of(shell.folder / "base")


def test_a_kill_at_any_moment_leaves_nothing_and_the_next_run_finishes(shell: Shell) -> None:
    large_model(shell, 12, 2)
    commands = {"delta": ("make", "base", "target", "delta"), "there": ("apply", "base", "delta", "there")}
    for out, words in commands.items():
        started = time.monotonic()
        shell.run_process("delta", *words, "-q", "--threads", "1")
        seconds = time.monotonic() - started
        for path in (shell.folder / out).iterdir():
            path.unlink()
        (shell.folder / out).rmdir()
        killed = 0
        for moment in range(1, 5):
            child = shell.start("delta", *words, "-q", "--threads", "1")
            time.sleep(seconds * moment / 5)
            child.send_signal(signal.SIGKILL)
            child.communicate()
            if (shell.folder / out).exists():  # it was done, but perhaps not yet gone
                break
            killed += 1
            assert child.returncode == -signal.SIGKILL
        assert killed > 0
        if (shell.folder / out).exists() and out == "there":
            assert tensors_of(shell.folder / "there") == tensors_of(shell.folder / "target")
        shell.run("delta", *words, "-q", "--force")
    assert not list(shell.folder.glob(".*"))
    assert tensors_of(shell.folder / "there") == tensors_of(shell.folder / "target")


def test_ctrl_c_leaves_nothing(shell: Shell) -> None:
    large_model(shell, 48, 3)
    child = shell.start("delta", "make", "base", "target", "delta", "--threads", "1")
    while child.poll() is None and not (shell.folder / ".delta.part").exists():
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (130, b"", b"")
    assert sorted(path.name for path in shell.folder.iterdir()) == ["base", "target"]
