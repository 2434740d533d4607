"""``selfee perplexity`` from the table to the line of results, stopped and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cli.story import Shell
from tests.eval.prose import prose
from tests.tiny import make_tiny

from selfee.eval.results import read_results
from selfee.weights.quants import QuantType


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    make_tiny(tmp_path / "f32.gguf")
    make_tiny(tmp_path / "q8.gguf", type=QuantType.Q8_0)
    make_tiny(tmp_path / "q4.gguf", type=QuantType.Q4_0)
    (tmp_path / "prose.txt").write_text(prose(400), encoding="utf-8")
    return Shell(tmp_path)


WORDS = ("perplexity", "q8.gguf", "q4.gguf", "prose.txt", "-c", "64")


def rows(shell: Shell, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shell.run(*words, "--json").stdout)
    return found


def test_a_table_says_what_each_file_lost(shell: Shell) -> None:
    out = shell.run(*WORDS, "--kl", "f32.gguf")
    header, first, second, note = out.stdout.splitlines()
    titles = ["file", "size", "bits", "PPL", "ΔPPL", "ln ratio", "mean KLD", "99 % KLD", "same top", "tokens/s"]
    assert header.split() == " ".join(titles).split()
    assert first.startswith("q8.gguf")
    assert second.startswith("q4.gguf")
    assert "chunks of 64 tokens" in note
    assert "against f32.gguf (PPL " in note
    assert out.stderr == ""
    eight, four = rows(shell, *WORDS, "--kl", "f32.gguf")
    assert 0 < eight["kld_mean"] < four["kld_mean"]
    assert four["same_top"] < eight["same_top"] <= 1
    assert (eight["file"], eight["base"], eight["text"], eight["n_ctx"]) == ("q8.gguf", "f32.gguf", "prose.txt", 64)
    assert four["ppl_difference"] == pytest.approx(four["ppl"] - four["base_ppl"])


def test_without_a_base_only_perplexity_is_told(shell: Shell) -> None:
    out = shell.run("perplexity", "q8.gguf", "prose.txt", "-c", "64", "--chunks", "2")
    assert out.stdout.splitlines()[0].split() == ["file", "size", "bits", "PPL", "tokens/s"]
    assert "2 chunks of 64 tokens, 62 positions scored" in out.stdout
    (row,) = rows(shell, "perplexity", "q8.gguf", "prose.txt", "-c", "64", "--chunks", "2")
    assert row["kld_mean"] is None
    assert row["base"] is None


def test_a_model_against_itself_lost_nothing(shell: Shell) -> None:
    (row,) = rows(shell, "perplexity", "q4.gguf", "prose.txt", "-c", "64", "--kl", "q4.gguf")
    assert (row["kld_max"], row["same_top"], row["ln_ratio"], row["ppl_difference"]) == (0, 1, 0, 0)


def test_what_a_cache_of_8_bits_costs_is_measured_against_the_model_itself(shell: Shell) -> None:
    make_tiny(shell.folder / "wide.gguf", head_dim=32)
    words = ("perplexity", "wide.gguf", "prose.txt", "-c", "64", "--kl", "wide.gguf", "--cache-type", "q8_0")
    assert "positions scored, cache q8_0, against wide.gguf" in shell.run(*words).stdout
    (row,) = rows(shell, *words, "--out", "r.jsonl")
    assert row["cache_type"] == "q8_0"
    assert 0 < row["kld_mean"] < 0.001
    again = shell.run(*words[:-2], "--out", "r.jsonl", "--resume")  # with float16 it is another measurement
    assert "measured before" not in again.stderr
    assert [line.cache_type for line in read_results(shell.folder / "r.jsonl")] == ["q8_0", "f16"]
    assert "measured before" in shell.run(*words, "--out", "r.jsonl", "--resume").stderr


def test_heads_that_a_cache_of_8_bits_does_not_fit_are_an_error_that_says_so(shell: Shell) -> None:
    said = shell.run("perplexity", "q8.gguf", "prose.txt", "-c", "64", "--cache-type", "q8_0", check=2).stderr
    assert "cache_type: q8_0 for heads of 16 values; expected a multiple of 32; use f16" in said


def test_saved_log_probabilities_are_a_base(shell: Shell) -> None:
    saving = shell.run("perplexity", "f32.gguf", "prose.txt", "-c", "64", "--save-logits", "base.logits")
    assert "f32.gguf" in saving.stdout
    (row,) = rows(shell, "perplexity", "q4.gguf", "prose.txt", "--kl", "base.logits")
    (exact,) = rows(shell, "perplexity", "q4.gguf", "prose.txt", "-c", "64", "--kl", "f32.gguf")
    assert row["n_ctx"] == 64
    assert row["kld_mean"] == pytest.approx(exact["kld_mean"], rel=0.02)
    assert row["ppl"] == exact["ppl"]


def test_speed_is_measured_when_asked(shell: Shell) -> None:
    out = shell.run("perplexity", "q8.gguf", "prose.txt", "-c", "64", "--speed").stdout
    assert out.splitlines()[0].split()[-1] == "generated/s"
    (row,) = rows(shell, "perplexity", "q8.gguf", "prose.txt", "-c", "64", "--speed")
    assert row["decode_tokens_per_second"] > 0


def without_time(path: Path) -> list[dict[str, Any]]:
    told = ("date", "tokens_per_second")
    return [{k: v for k, v in quality.as_row().items() if k not in told} for quality in read_results(path)]


def test_results_are_lines_and_measured_files_are_left_out_when_going_on(shell: Shell) -> None:
    shell.run("perplexity", "q8.gguf", "prose.txt", "-c", "64", "--out", "r.jsonl")
    before = (shell.folder / "r.jsonl").read_bytes()
    again = shell.run(*WORDS, "--out", "r.jsonl", "--resume")
    after = (shell.folder / "r.jsonl").read_bytes()
    assert after.startswith(before)
    assert [quality.file for quality in read_results(shell.folder / "r.jsonl")] == ["q8.gguf", "q4.gguf"]
    assert again.stderr == "q8.gguf: measured before\n"
    assert len(again.stdout.splitlines()) == 4
    shell.run(*WORDS, "--out", "fresh.jsonl", "-q")
    assert without_time(shell.folder / "r.jsonl") == without_time(shell.folder / "fresh.jsonl")


@pytest.mark.parametrize("change", ["text", "context", "file", "base"])
def test_what_has_changed_since_is_measured_again(shell: Shell, change: str) -> None:
    words = ["perplexity", "q8.gguf", "prose.txt", "--out", "r.jsonl", "--resume", "-c", "64"]
    shell.run(*words)
    if change == "text":
        (shell.folder / "prose.txt").write_text(prose(500), encoding="utf-8")
    elif change == "context":
        words[-1] = "32"
    elif change == "file":
        make_tiny(shell.folder / "q8.gguf", type=QuantType.Q8_0, seed=1)
    else:
        words += ["--kl", "f32.gguf"]
    assert "measured before" not in shell.run(*words).stderr
    assert len(read_results(shell.folder / "r.jsonl")) == 2


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_run_that_is_stopped_keeps_what_is_finished_and_goes_on(shell: Shell, number: signal.Signals) -> None:
    (shell.folder / "prose.txt").write_text(prose(20_000), encoding="utf-8")
    words = (*WORDS, "--kl", "f32.gguf", "--out", "r.jsonl")
    process = shell.start(*words)
    wait_for(shell.folder / "r.jsonl", process)
    os.kill(process.pid, number)
    stdout, stderr = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130, stderr.decode()
        assert "q8.gguf" in stdout.decode()
        assert "Traceback" not in stderr.decode()
    (kept,) = read_results(shell.folder / "r.jsonl")
    assert kept.file == "q8.gguf"
    assert "q8.gguf: measured before" in shell.run(*words, "--resume").stderr
    assert [quality.file for quality in read_results(shell.folder / "r.jsonl")] == ["q8.gguf", "q4.gguf"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("q8.gguf", "none.txt"), "none.txt: cannot be read"),
        (("none.gguf", "prose.txt"), "none.gguf: there is no such file"),
        (("prose.txt", "prose.txt"), "prose.txt: "),
        (("q8.gguf", "prose.txt", "-c", "100000"), "tokens; expected at least one chunk of 100000"),
        (("q8.gguf", "prose.txt", "-c", "3"), "greater than or equal to 4"),
        (("q8.gguf", "prose.txt", "--out", "no/r.jsonl"), "no/r.jsonl: there is no folder no"),
        (("q8.gguf", "prose.txt", "--save-logits", "no/l"), "no/l: there is no folder no"),
        (("q8.gguf", "prose.txt", "--save-logits", "q8.gguf"), "q8.gguf: is or holds q8.gguf, which is to be read"),
        (("q8.gguf", "prose.txt", "--save-logits", "."), ".: is a folder or a device"),
        (("q8.gguf", "prose.txt", "--save-logits", "l", "--out", "l"), "l: is or holds l, which is to be read"),
        (("q8.gguf", "prose.txt", "--out", "prose.txt"), "prose.txt: is or holds prose.txt, which is to be read"),
        (("q8.gguf", "prose.txt", "--kl", "q4.gguf", "--out", "q4.gguf"), "q4.gguf: is or holds q4.gguf"),
        (("q8.gguf", "prose.txt", "--out", "q4.gguf"), "q4.gguf:1: "),
        (("q8.gguf", "prose.txt", "--out", "letter"), "letter:1: "),
        (("q8.gguf", "prose.txt", "--out", "/dev/full"), "/dev/full: is a folder or a device"),
        (("q8.gguf", "prose.txt", "--resume"), "--resume: there is nothing to go on with"),
        (("q8.gguf", "q4.gguf", "prose.txt", "--save-logits", "l"), "--save-logits: saves one model"),
        (("q8.gguf", "prose.txt", "--save-logits", "l", "--kl", "q4.gguf"), "--save-logits: saves one model"),
        (("q8.gguf", "prose.txt", "-c", "64", "--kl", "spm.gguf"), "other tokens for this text than q8.gguf"),
        (("q8.gguf", "prose.txt", "--kl", "cut.logits"), "cut.logits: 20 bytes; expected"),
        (("q8.gguf", "prose.txt", "--kl", "none.gguf"), "none.gguf: there is no such file"),
        (("q8.gguf", "prose.txt", "--out", "bad.jsonl", "--resume"), "bad.jsonl:1: not valid JSON"),
    ],
)
def test_wrong_words_and_bad_files_are_one_line_before_anything_is_measured(
    shell: Shell, words: tuple[str, ...], message: str
) -> None:
    make_tiny(shell.folder / "spm.gguf", vocab="spm")
    head = b"_logits_" + b"\x40\0\0\0" + b"\x00\x02\0\0" + b"\x01\0\0\0"
    (shell.folder / "cut.logits").write_bytes(head)
    (shell.folder / "bad.jsonl").write_text("{\n")
    (shell.folder / "letter").write_text("without a line's end")
    before = {path.name: path.read_bytes() for path in shell.folder.iterdir()}
    out = shell.run("perplexity", *words, check=2)
    assert message in out.stderr
    assert out.stderr.count("\n") == 1
    assert out.stdout == ""
    assert {path.name: path.read_bytes() for path in shell.folder.iterdir()} == before


def test_a_file_that_fails_later_does_not_cost_what_is_finished(shell: Shell) -> None:
    damaged = shell.folder / "q4.gguf"
    data = bytearray(damaged.read_bytes())
    data[-4096:] = b"\xff" * 4096  # scales that are no numbers
    damaged.write_bytes(data)
    out = shell.run(*WORDS, "--out", "r.jsonl", check=2)
    assert "q4.gguf: " in out.stderr
    assert "not finite" in out.stderr
    assert out.stdout.splitlines()[1].startswith("q8.gguf")
    assert [quality.file for quality in read_results(shell.folder / "r.jsonl")] == ["q8.gguf"]


def test_a_context_beyond_what_the_model_was_trained_on_is_said(shell: Shell) -> None:
    make_tiny(shell.folder / "short.gguf", n_ctx=32)
    out = shell.run("perplexity", "short.gguf", "prose.txt", "-c", "64")
    assert out.stderr == "short.gguf: was trained on 32 tokens of context, not 64\n"
