"""Memory is measured: the figure contains weights and cache, grows with the context, and errors come through."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny import make_tiny

from selfee.errors import BadFileError, ResourceError, UnsupportedFileError, UsageError
from selfee.eval import memory
from selfee.eval.memory import MemoryUse, measure_here, measure_memory
from selfee.llama.config import LlamaConfig
from selfee.llama.memory import cache_bytes
from selfee.weights.open import open_checkpoint

MiB = 1 << 20


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights (some 27 MB, F32) and cache show beside an interpreter."""
    path = tmp_path_factory.mktemp("wide") / "wide.gguf"
    return make_tiny(path, n_embd=512, n_layer=2, n_head=8, n_ctx=16384)


def cache_of(path: Path, context: int) -> int:
    with open_checkpoint(path) as checkpoint:
        return cache_bytes(LlamaConfig.from_checkpoint(checkpoint), context)


def test_the_weights_and_the_cache_are_in_the_figure(wide: Path) -> None:
    short, long = measure_memory(wide, 256), measure_memory(wide, 4096)
    for use in (short, long):
        assert use.method == "VmHWM"
        assert use.mapped is not None
        assert use.own is not None
        assert use.weights is not None
        # The embedding of tokens that did not occur stays on disk; everything else is read.
        assert 0.8 * wide.stat().st_size < use.weights <= wide.stat().st_size + 4096
        assert use.weights <= use.mapped
        assert abs(use.peak - use.mapped - use.own) < 0.1 * use.peak
    grown = cache_of(wide, 4096) - cache_of(wide, 256)
    assert grown > 14 * MiB
    assert 0.8 * grown < long.peak - short.peak < grown + 24 * MiB


def test_progress_adds_up_to_the_context(tmp_path: Path) -> None:
    heard: list[int] = []
    use = measure_memory(make_tiny(tmp_path / "t.gguf"), 500, threads=1, on_tokens=heard.append)
    assert heard == [256, 244]
    assert use.context == 500


def test_a_file_that_cannot_be_run_is_refused_by_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(BadFileError, match=r"broken\.gguf"):
        measure_memory(broken, 16)
    other = make_tiny(tmp_path / "other.gguf", metadata={"general.architecture": "mamba"})
    with pytest.raises(BadFileError, match="mamba"):
        measure_memory(other, 16)
    assert issubclass(UnsupportedFileError, BadFileError)


def test_a_context_that_does_not_fit_is_said_before_it_is_tried(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "t.gguf", n_ctx=1 << 30)
    with pytest.raises(ResourceError, match="needs"):
        measure_memory(tiny, 1 << 30)


def test_an_empty_context_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="context: 0"):
        measure_memory(tmp_path / "nothing.gguf", 0)


def pretend(program: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A shell script in the place of the interpreter that would run the model."""
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_child_that_dies_is_an_error_and_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path / "program", monkeypatch, "echo '{\"tokens\": 3}'; kill -9 $$")
    with pytest.raises(ResourceError, match="signal 9"):
        measure_memory(tmp_path / "x.gguf", 16)
    pretend(tmp_path / "program", monkeypatch, "echo noise; echo Oops: why >&2; exit 3")
    with pytest.raises(ResourceError, match=r"exit code 3 \(Oops: why\)"):
        measure_memory(tmp_path / "x.gguf", 16)


def test_a_child_that_complains_at_length_does_not_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps(vars(MemoryUse(16, 5, 3, 2, 1, "VmHWM")))
    pretend(tmp_path / "program", monkeypatch, f"head -c 1000000 /dev/zero >&2; echo '{line}'")
    assert measure_memory(tmp_path / "x.gguf", 16).peak == 5


def test_a_module_lying_in_the_current_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('read a stranger')")
    make_tiny(tmp_path / "t.gguf")
    monkeypatch.chdir(tmp_path)
    assert measure_memory("t.gguf", 8).peak > 0


def test_without_proc_the_peak_is_asked_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    use = measure_here(make_tiny(tmp_path / "t.gguf"), 8)
    assert use == MemoryUse(8, use.peak, None, None, None, "ru_maxrss")
    assert use.peak > 10 * MiB


def test_the_module_is_a_program_that_prints_json(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "t.bin", container="ggjt3")
    words = [sys.executable, "-m", "selfee.eval.memory", str(tiny), "32", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0] == {"tokens": 32}
    assert MemoryUse(**lines[-1]).context == 32
    plain = subprocess.run(words[:-1], capture_output=True, text=True, timeout=60, check=True)
    assert " MB for 32 tokens (VmHWM), " in plain.stdout
    wrong = subprocess.run([*words[:3], "none.gguf", "32"], capture_output=True, text=True, timeout=60, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "none.gguf: there is no such file" in wrong.stderr
