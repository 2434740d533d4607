"""``selfee train`` as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.tiny_hf import make_tiny_hf
from tests.train.chains import some_chains, write_chains

from selfee.cli.run import run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_tiny_hf(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_chains(tmp_path / "chains.jsonl", some_chains(6))


def selfee(*words: str | Path) -> int:
    return run([str(word) for word in words])


def test_a_preview_says_what_is_learned_and_what_is_masked(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert selfee("train", model, data, "--preview", "2", "--weights", "flawed=0,verdict=2") == 0
    text = capsys.readouterr().out
    assert "[prompt: masked]Below is an instruction" in text
    assert "[answer: learned, weight 1]Answer 0" in text
    assert "[flawed: masked]Answer 1" in text
    assert "[verdict 1: learned, weight 2] Revision is needed." in text
    assert "[revision 1: learned, weight 1]\n\n### Revision 1:\nBetter answer 1" in text


def test_a_preview_in_colour_shows_masked_text_dim(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert selfee("train", model, data, "--preview", "1", "--color", "always") == 0
    text = capsys.readouterr().out
    assert "\x1b[2m### Answer:\x1b[0m" in text
    assert "\x1b[32mAnswer 0" in text
    assert "\x1b[35m Revision is not needed.\x1b[0m" in text


def test_a_preview_as_json_holds_the_whole_text(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert selfee("train", model, data, "--preview", "6", "--json", "--objective", "split") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 6
    assert [span["part"] for span in rows[1]["spans"]] == ["prompt", "flawed", "feedback", "verdict", "revision"]
    assert rows[1]["spans"][1]["text"].startswith("Answer 1")


def test_a_preview_needs_no_torch(model: Path, data: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None;"
        f"from selfee.cli import main; sys.exit(main(['train', {str(model)!r}, {str(data)!r}, '--preview', '1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_without_torch_training_names_the_extra(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert selfee("train", model, data, "-o", tmp_path / "run", "--preset", "tiny") == 1
    assert "pip install 'selfee[train]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected -o FOLDER"),
        (["--preset", "70b", "-o", "run"], "7b, 13b, tiny"),
        (["--pack", "-o", "run"], "--no-lazy"),
        (["--objective", "faf", "-o", "run"], "answer-only"),
        (["--weights", "flawed", "-o", "run"], "flawed=0"),
    ],
)
def test_wrong_words_are_one_error_that_says_what_is_right(
    model: Path, data: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert selfee("train", model, data, *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "4"}, "is one of 4 processes that do not know each other; expected torchrun to start them"),
        ({"WORLD_SIZE": "four"}, "expected numbers, as torchrun gives them"),
    ],
)
def test_several_processes_that_cannot_meet_are_refused(
    model: Path,
    data: Path,
    variables: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert selfee("train", model, data, "-o", "run") == 2
    assert message in capsys.readouterr().err


def test_a_run_trains_a_folder_that_can_be_converted(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="torch is not installed; pip install 'selfee[train]'")
    out_folder = tmp_path / "run"
    words = ("train", model, data, "-o", out_folder, "--preset", "tiny", "--max-steps", "2", "--no-lazy", "--pack")
    assert selfee(*words, "--validation", data) == 0
    out, err = capsys.readouterr()
    assert out == f"{out_folder / 'model'}\n"
    assert "6 chains, 6 to learn from; 0 without an end" in err
    assert "validation loss" in err
    kinds = [json.loads(line)["kind"] for line in (out_folder / "log.jsonl").read_text().splitlines()]
    assert kinds == ["begin", "step", "step", "validation", "end"]
    assert selfee("convert", out_folder / "model", tmp_path / "trained.gguf") == 0
    assert (tmp_path / "trained.gguf").stat().st_size > 10_000
    assert selfee(*words) == 2
    assert "holds a finished run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_like_one_that_was_not(model: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed; pip install 'selfee[train]'")

    def start(out: Path) -> subprocess.Popen[bytes]:
        words = ["train", str(model), str(data), "-o", str(out), "--preset", "tiny", "--save-minutes", "0"]
        command = [sys.executable, "-m", "selfee.cli", *words, "--max-steps", "30", "-q"]
        return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(240) == 0
    process = start(killed)
    deadline = time.monotonic() + 120
    while not list(killed.glob("state-0000000[5-9]")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert start(killed).wait(240) == 0
    texts = [(out / "model" / "model.safetensors").read_bytes() for out in (whole, killed)]
    assert texts[0] == texts[1]
