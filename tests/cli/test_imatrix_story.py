"""``selfee imatrix``: both forms, stopped at any moment, gone on with to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.cli.story import Shell
from tests.eval.prose import prose
from tests.tiny import make_tiny

from selfee.weights.quantization.imatrix import read_imatrix
from selfee.weights.quants import QuantType

WORDS = ("imatrix", "m.gguf", "prose.txt", "-c", "64")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    make_tiny(tmp_path / "m.gguf")
    (tmp_path / "prose.txt").write_text(prose(400), encoding="utf-8")
    return Shell(tmp_path)


def test_both_forms_say_the_same(shell: Shell) -> None:
    out = shell.run(*WORDS, "-o", "i.gguf")
    assert out.stdout.startswith("i.gguf: 14 tensors, ")
    assert out.stderr == ""
    shell.run(*WORDS, "-o", "i.dat")
    shell.run(*WORDS, "-o", "i.imatrix", "--format", "dat")
    new, old = read_imatrix(shell.folder / "i.gguf"), read_imatrix(shell.folder / "i.dat")
    assert (shell.folder / "i.dat").read_bytes() == (shell.folder / "i.imatrix").read_bytes()
    assert (shell.folder / "i.gguf").read_bytes()[:4] == b"GGUF"
    assert list(new) == list(old)
    for name in new:
        np.testing.assert_allclose(new[name], old[name], rtol=1e-6)
    assert new.datasets == old.datasets == ("prose.txt",)
    assert new.chunks == old.chunks > 1
    assert new.chunk_size == 64


def test_fewer_chunks_and_the_output_matrix_when_asked(shell: Shell) -> None:
    out = shell.run(*WORDS, "-o", "i.gguf", "--chunks", "2", "--process-output")
    assert out.stdout == "i.gguf: 15 tensors, 2 chunks of 64 tokens\n"
    assert "output.weight" in read_imatrix(shell.folder / "i.gguf")


def test_going_on_adds_the_rest_and_gives_the_same_bytes(shell: Shell) -> None:
    shell.run(*WORDS, "-o", "whole.gguf")
    shell.run(*WORDS, "-o", "i.gguf", "--chunks", "3")
    assert shell.run(*WORDS, "-o", "i.gguf", "--resume").stderr == "going on after 3 chunks\n"
    whole = (shell.folder / "whole.gguf").read_bytes()
    assert (shell.folder / "i.gguf").read_bytes() == whole
    shell.run(*WORDS, "-o", "i.gguf", "--resume")
    assert (shell.folder / "i.gguf").read_bytes() == whole
    shell.run(*WORDS, "-o", "new.gguf", "--resume")
    assert (shell.folder / "new.gguf").read_bytes() == whole


def saving_always(shell: Shell, *words: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own that saves after every chunk."""
    code = (
        "import sys, selfee.cli.imatrix as i; i._SAVE_EVERY = 0; "
        "from selfee.cli.run import run; sys.exit(run(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=shell.folder,
        env=shell.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_by_any_signal_what_was_read_is_there_and_going_on_gives_the_same_bytes(
    shell: Shell, number: signal.Signals
) -> None:
    make_tiny(shell.folder / "m.gguf", type=QuantType.Q4_0)
    (shell.folder / "prose.txt").write_text(prose(10_000), encoding="utf-8")
    words = (*WORDS, "-o", "i.gguf")
    process = saving_always(shell, *words)
    end = time.monotonic() + 60
    while not (shell.folder / "i.gguf").exists() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, number)
    stdout, stderr = process.communicate(timeout=60)
    assert stdout == b"", "it was to be stopped, not to finish"
    stopped = read_imatrix(shell.folder / "i.gguf")
    assert stopped.chunks >= 1
    if number != signal.SIGKILL:
        assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
        assert f"stopped: {stopped.chunks} of " in stderr.decode()
        assert "are saved in i.gguf; go on with --resume" in stderr.decode()
        assert not list(shell.folder.glob(".*.part"))
    shell.run(*words, "--resume")
    shell.run(*WORDS, "-o", "whole.gguf")
    assert (shell.folder / "i.gguf").read_bytes() == (shell.folder / "whole.gguf").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("none.gguf", "prose.txt", "-o", "i"), "none.gguf: there is no such file"),
        (("m.gguf", "none.txt", "-o", "i"), "none.txt: cannot be read"),
        (("m.gguf", "prose.txt", "-o", "i", "-c", "100000"), "expected at least one chunk of 100000"),
        (("m.gguf", "prose.txt", "-o", "no/i"), "no/i: there is no folder no"),
        (("m.gguf", "prose.txt", "-o", "prose.txt"), "prose.txt: is or holds prose.txt, which is to be read"),
        (("m.gguf", "prose.txt", "-o", "."), ".: is a folder or a device"),
        (("m.gguf", "prose.txt", "-o", "/dev/full"), "/dev/full: is a folder or a device"),
        (("m.gguf", "prose.txt", "-o", "m.gguf"), "m.gguf: is or holds m.gguf, which is to be read"),
        (("m.gguf", "prose.txt", "-o", "i.dat", "--resume"), "--resume: the older form"),
        (("m.gguf", "prose.txt", "-o", "bad.gguf", "--resume"), "bad.gguf: "),
        (("other.gguf", "prose.txt", "-o", "earlier.gguf", "--resume", "-c", "64"), "is of another model"),
    ],
)
def test_wrong_words_and_bad_files_are_one_line_and_change_nothing(
    shell: Shell, words: tuple[str, ...], message: str
) -> None:
    (shell.folder / "bad.gguf").write_bytes(b"GGUF")
    make_tiny(shell.folder / "other.gguf", seed=1)
    shell.run(*WORDS, "-o", "earlier.gguf", "--chunks", "1")
    before = {path.name: path.read_bytes() for path in shell.folder.iterdir()}
    out = shell.run("imatrix", *words, check=2)
    assert message in out.stderr
    assert out.stderr.count("\n") == 1
    assert {path.name: path.read_bytes() for path in shell.folder.iterdir()} == before


def test_a_model_that_computes_no_numbers_is_refused_and_nothing_is_written(shell: Shell) -> None:
    path = make_tiny(shell.folder / "m.gguf", type=QuantType.Q4_0)
    data = bytearray(path.read_bytes())
    data[-4096:] = b"\xff" * 4096
    path.write_bytes(data)
    assert "is not finite" in shell.run(*WORDS, "-o", "i.gguf", check=2).stderr
    assert not (shell.folder / "i.gguf").exists()
