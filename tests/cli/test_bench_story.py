"""``selfee bench`` from the first word to the table, on a model that takes no time."""

from __future__ import annotations

import io
import json
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.cli.story import Shell
from tests.tiny import make_tiny

from selfee.cli.bench import parse_counts
from selfee.cli.chunk_progress import ChunkDisplay
from selfee.cli.output import Screen
from selfee.errors import UsageError
from selfee.weights.quants import QuantType


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    make_tiny(tmp_path / "q8.gguf", type=QuantType.Q8_0)
    make_tiny(tmp_path / "q4.gguf", type=QuantType.Q4_0)
    return Shell(tmp_path)


QUICK = ("--prompt", "16", "--generate", "4", "--passes", "2", "--rounds", "1")


def test_a_table_has_a_line_for_each_case_of_each_file(shell: Shell) -> None:
    out = shell.run("bench", "q8.gguf", "q4.gguf", *QUICK, "-t", "1")
    header, *lines = out.stdout.splitlines()
    titles = "file size threads what tokens/s slowest fastest of reading of products"
    assert header.split() == titles.split()
    assert lines[0].startswith("q8.gguf")
    assert [line.split()[0] for line in lines[1:5]] == ["tg4", "pass2", "revision", "revision-drafted"]
    assert lines[5].startswith("q4.gguf")
    assert out.stdout.count("peak memory") == 2
    assert out.stdout.count("1 thread, 1 round") == 2
    assert "GB/s read" in out.stdout
    assert "drafting makes the revision" in out.stdout
    assert out.stderr == ""


CASE_KEYS = {
    *("name", "kind", "tokens", "drafting", "seconds", "tokens_per_second", "slowest", "fastest"),
    *("of_reading", "of_multiplying"),
}
FILE_KEYS = {
    *("file", "size", "parameters", "bits_per_weight", "threads", "rounds", "load_seconds", "peak_memory"),
    *("bytes_read", "read_limit", "multiply_limit", "cases"),
}


def test_json_has_the_same_names_as_ever(shell: Shell) -> None:
    found = json.loads(shell.run("bench", "q8.gguf", *QUICK, "-t", "1,2", "--json").stdout)
    assert set(found) == {"selfee", "processor", "instruction_set", "rounds", "files"}
    assert [row["threads"] for row in found["files"]] == [1, 2]
    for row in found["files"]:
        assert set(row) == FILE_KEYS
        assert all(set(case) == CASE_KEYS for case in row["cases"])
        assert [case["name"] for case in row["cases"]] == ["pp16", "tg4", "pass2", "revision", "revision-drafted"]
    assert found["files"][0]["cases"][0]["of_reading"] > 0


def test_what_is_not_wanted_is_left_out(shell: Shell) -> None:
    words = ("--prompt", "none", "--generate", "4,2", "--passes", "none", "--no-drafting", "--rounds", "1")
    found = json.loads(shell.run("bench", "q8.gguf", *words, "--json").stdout)
    assert [case["name"] for case in found["files"][0]["cases"]] == ["tg4", "tg2"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("q8.gguf", "-t", "0"), "--threads '0': '0' is no number from 1 to 256"),
        (("q8.gguf", "-t", "1,x"), "'x' is no number"),
        (("q8.gguf", "-t", "none"), "--threads 'none': expected a list such as 1,2,4"),
        (("q8.gguf", "--rounds", "0"), "'--rounds': Input should be greater than or equal to 1"),
        (("q8.gguf", "--prompt", "-5"), "--prompt '-5'"),
        (("q8.gguf", "-p", "none", "-n", "none", "-b", "none", "--no-drafting"), "expected something to measure"),
        (("missing.gguf",), "missing.gguf"),
        (("broken.gguf",), "broken.gguf"),
        (("smollm2-135m",), "selfee models pull smollm2-135m"),
        ((), "selfee models pull smollm2-135m"),
    ],
)
def test_a_wrong_word_is_said_before_anything_is_measured(shell: Shell, words: tuple[str, ...], complaint: str) -> None:
    (shell.folder / "broken.gguf").write_bytes(b"GGUF\x03")
    out = shell.run("bench", *words, check=2)
    assert complaint in out.stderr
    assert out.stdout == ""
    assert out.stderr.count("\n") == 1


def test_counts_are_a_list_without_repetitions() -> None:
    assert parse_counts(" 4, 2,4", "--x") == [4, 2]
    assert parse_counts("None", "--x") == []
    for text in ("", ",", "1,", "²", "1e3", "9999999999", "1 2"):
        with pytest.raises(UsageError, match="--x"):
            parse_counts(text, "--x")


def test_ctrl_c_ends_it_and_leaves_no_process(shell: Shell) -> None:
    model = str(shell.folder / "q8.gguf")
    process = shell.start("bench", model, "--generate", "400", "--rounds", "1000", "-q")
    deadline = time.monotonic() + 30
    while not any(b"bench_child" in words for words in command_lines(model)) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert b"Traceback" not in out + err
    assert command_lines(model) == []


def command_lines(word: str) -> list[bytes]:
    """Of the processes that were started with this word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            found.append(path.read_bytes())
    return [words for words in found if word.encode() in words]


def test_a_terminal_sees_steps_and_the_time_left() -> None:
    stream = io.StringIO()
    seconds = iter([0.0, 10.0])
    screen = Screen(stream, is_terminal=True, has_color=False, width=80)
    display = ChunkDisplay(screen, 4, now=lambda: next(seconds), unit="steps")
    display.step("m.gguf", 2)
    assert "m.gguf" in stream.getvalue()
    assert "2 of 4 steps" in stream.getvalue()
    assert "0:10 left" in stream.getvalue()
