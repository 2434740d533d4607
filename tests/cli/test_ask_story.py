"""``selfee ask`` from the first word typed to the last byte printed, with a model that says what it was told to."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.story import CONTENT, CRITICAL, FIRST, ONE_REVISION, QUESTION, SECOND, Shell, reply, write_script
from tests.tiny import make_tiny

from selfee.chain.prompts import find_prompts
from selfee.chain.record import from_json
from selfee.cli.run import run
from selfee.engines.base import ChatRequest
from selfee.engines.scripted import ScriptedEngine


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell whose model is a script with one revision."""
    return Shell(tmp_path, {"SELFEE_MODEL": write_script(tmp_path / "script.jsonl")})


def test_the_final_answer_alone_is_on_stdout_and_the_chain_on_stderr(shell: Shell) -> None:
    done = shell.run_process("ask", QUESTION)
    assert (done.returncode, done.stdout) == (0, SECOND + "\n")
    for part in (
        "answer       The sky reflects",
        "feedback 1",
        "● revision needed",
        "revision 1",
        "feedback 2",
        "● revision not needed",
    ):
        assert part in done.stderr
    assert "+6 −6 words" in done.stderr
    assert "accepted after 1 revision" in done.stderr


def test_no_colour_and_no_control_character_where_no_terminal_is(shell: Shell) -> None:
    done = shell.run("ask", QUESTION)
    assert "\x1b" not in done.stderr + done.stdout
    assert "\r" not in done.stderr


def test_colour_always_and_never_mean_it_and_no_color_counts(shell: Shell) -> None:
    assert "\x1b[" in shell.run("ask", QUESTION, "--color", "always").stderr
    assert "\x1b[" not in shell.run("ask", QUESTION, "--color", "never").stderr
    shell.variables["NO_COLOR"] = "1"
    assert "\x1b[" not in shell.run("ask", QUESTION).stderr


def test_words_without_quotes_are_one_question(shell: Shell) -> None:
    row = json.loads(shell.run("ask", "--json", "Why", "is", "it", "blue?").stdout)
    assert row["instruction"] == "Why is it blue?"


@pytest.mark.parametrize(
    ("words", "stdin", "instruction", "context"),
    [
        (["Summarise this"], "a\nb\n", "a\nb\n\nSummarise this", ""),
        (["-"], "asked\n", "asked", ""),
        ([], "asked", "asked", ""),
        (["-f", "question.txt"], "", "from the file", ""),
        (["-f", "-"], "piped", "piped", ""),
        (["-f", "question.txt", "and", "words"], "first", "first\n\nfrom the file\n\nand words", ""),
        (["Summarise", "--input", "a text"], "", "Summarise", "a text"),
        (["Summarise", "--input", "-"], "a piped text\n", "Summarise", "a piped text"),
        (["ä", "→"], "\ufeff日本", "日本\n\nä →", ""),
    ],
)
def test_the_question_comes_from_wherever_it_is(
    shell: Shell, words: list[str], stdin: str, instruction: str, context: str
) -> None:
    (shell.folder / "question.txt").write_text("from the file\n")
    row = json.loads(shell.run("ask", "--json", *words, stdin=stdin).stdout)
    assert (row["instruction"], row["input"]) == (instruction, context)


def test_json_is_one_object_that_reads_back_as_the_chain(shell: Shell) -> None:
    done = shell.run("ask", QUESTION, "--json", "--seed", "5")
    chain = from_json(json.loads(done.stdout))
    assert [step.answer for step in chain.steps] == [FIRST, SECOND]
    assert chain.seed == 5
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_jsonl_is_one_event_a_line_and_ends_with_the_chain(shell: Shell) -> None:
    rows = [json.loads(line) for line in shell.run("ask", QUESTION, "--jsonl").stdout.splitlines()]
    assert rows[0] == {"event": "section_start", "section": "answer", "number": 0}
    assert "".join(row["text"] for row in rows if row["event"] == "text_delta").startswith(FIRST)
    ends = [(row["section"], row["number"]) for row in rows if row["event"] == "section_end"]
    assert ends == [("answer", 0), ("feedback", 1), ("revision", 1), ("feedback", 2)]
    assert rows[-1]["event"] == "chain_finished"
    assert rows[-1]["chain"]["final"] == SECOND


def test_show_final_and_quiet_leave_stderr_empty(shell: Shell) -> None:
    for words in (["--show", "final"], ["--quiet"]):
        done = shell.run("ask", QUESTION, *words)
        assert (done.stdout, done.stderr) == (SECOND + "\n", "")


def test_show_raw_prints_the_text_of_the_chain(shell: Shell) -> None:
    raw = shell.run("ask", QUESTION, "--show", "raw").stdout
    assert re.findall(r"### (\w+ \d)", raw) == ["Feedback 1", "Revision 1", "Feedback 2"]
    assert raw.startswith(FIRST)


def test_an_enforced_revision_is_marked_as_forced(tmp_path: Path) -> None:
    script = write_script(tmp_path / "s.jsonl", [reply(FIRST), reply(CONTENT), reply(SECOND), reply(CONTENT)])
    done = Shell(tmp_path).run("ask", "-m", script, QUESTION, "--revisions", "1")
    assert "forced – the model is content, a revision is enforced" in done.stderr
    assert done.stdout == SECOND + "\n"


@pytest.mark.parametrize(
    ("words", "policy"),
    [
        ([], {"min_revisions": 0, "max_revisions": 3}),
        (["--min-revisions", "5"], {"min_revisions": 5, "max_revisions": 5}),
        (["--max-revisions", "1"], {"min_revisions": 0, "max_revisions": 1}),
        (["-r", "2"], {"min_revisions": 2, "max_revisions": 2}),
        (["-r", "0"], {"min_revisions": 0, "max_revisions": 0}),
    ],
)
def test_revision_flags_mean_the_policy_they_say(tmp_path: Path, words: list[str], policy: dict[str, int]) -> None:
    replies = [{"when": {"ends_with": "x"}, "text": "x"}] + [
        reply(text) for number in range(8) for text in (f"Answer {number} says something.", CONTENT)
    ]
    script = write_script(tmp_path / "s.jsonl", replies)
    row = json.loads(Shell(tmp_path).run("ask", "-m", script, QUESTION, "--json", *words).stdout)
    assert {name: row["settings"]["policy"][name] for name in policy} == policy
    assert row["num_revisions"] == policy["min_revisions"]


def test_flags_and_their_variables_reach_the_settings_and_the_flag_wins(shell: Shell) -> None:
    shell.variables |= {
        "SELFEE_TEMPERATURE": "0.1",
        "SELFEE_TOP_K": "7",
        "SELFEE_MAX_ANSWER_TOKENS": "99",
        "SELFEE_SEED": "3",
    }
    words = [
        "--temperature",
        "0.2",
        "--logit-bias",
        "5=-1.5,7=2",
        "--samplers",
        "top_k, temperature",
        "--no-penalize-newline",
    ]
    row = json.loads(shell.run("ask", QUESTION, "--json", *words).stdout)
    params = row["settings"]["params"]
    assert (params["temperature"], params["top_k"], params["seed"]) == (0.2, 7, 3)
    assert params["logit_bias"] == {"5": -1.5, "7": 2.0}
    assert params["samplers"] == ["top_k", "temperature"]
    assert params["penalize_newline"] is False
    assert row["settings"]["budgets"]["answer"] == 99


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["ask"], "no question"),
        (["ask", "q", "--json", "--jsonl"], "--json and --jsonl"),
        (["ask", "q", "--revisions", "1", "--min-revisions", "1"], "--revisions: means minimum and maximum at once"),
        (["ask", "q", "--min-revisions", "2", "--max-revisions", "1"], "min_revisions: 2 is more than"),
        (["ask", "q", "-r", "-1"], "min_revisions: -1 is negative"),
        (["ask", "q", "--temperature", "hot"], "--temperature"),
        (["ask", "q", "--top-p", "5"], "top_p: 5.0 is out of range"),
        (["ask", "q", "--top-p", "nan"], "top_p: nan is out of range"),
        (["ask", "q", "--logit-bias", "a=b"], "expected TOKEN=NUMBER"),
        (["ask", "q", "--samplers", "magic"], "unknown 'magic'"),
        (["ask", "q", "--max-answer-tokens", "0"], "answer is 0 tokens"),
        (["ask", "q", "--show", "all"], "--show"),
        (["ask", "q", "--no-such-flag"], "--no-such-flag"),
        (["ask", "-", "-f", "-"], "more than once"),
        (["ask", "-f", "missing.txt"], "missing.txt: cannot be read"),
        (["ask", "-f", "."], "cannot be read"),
        (["ask", "-m", "no-such-model", "q"], "no name of a model"),
        (["ask", "-m", "script:none.jsonl", "q"], "none.jsonl: cannot be read"),
        (["ask", "-m", "hf:x", "q"], "expected hf:org/repo/file.gguf"),
        (["ask", "-c", "0", "q"], "context_length: 0"),
        (["ask", "--mode", "turns", "--prompts", "none-such", "q"], "none-such"),
        (["ask", "-m", "https://host/v1", "--api-key-file", "none.key", "q"], "none.key: no key can be read"),
        (["frobnicate"], "frobnicate"),
        (["models", "remove", "smollm2-135m"], "no downloaded model"),
        (["models", "path", "smollm2-135m"], "not on this disk"),
        (["models", "pull", "script.jsonl"], "a file on this machine"),
        (["inspect", "missing.gguf"], "missing.gguf"),
        (["inspect", "script.jsonl"], "script.jsonl"),
        (["inspect", "smollm2-135m"], "selfee models pull smollm2-135m"),
    ],
)
def test_wrong_words_and_bad_files_are_one_paragraph_and_exit_code_2(
    shell: Shell, words: list[str], complaint: str
) -> None:
    done = shell.run(*words, check=2)
    assert complaint in done.stderr
    assert done.stderr.startswith("selfee: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_nul_bytes_in_a_question_are_refused_and_bad_utf8_is_replaced(shell: Shell) -> None:
    assert "NUL" in shell.run("ask", stdin=b"a\0b", check=2).stderr
    assert json.loads(shell.run("ask", "--json", stdin=b"a\xffb").stdout)["instruction"] == "a\ufffdb"


def test_words_that_the_locale_could_not_decode_are_read_as_utf8(shell: Shell) -> None:
    typed = "Körbe".encode().decode("ascii", errors="surrogateescape") + "\udcff"  # as Python hands them over
    row = json.loads(shell.run("ask", typed, "--input", typed, "--json").stdout)
    assert (row["instruction"], row["input"]) == ("Körbe\ufffd", "Körbe\ufffd")


class _Gone(io.StringIO):
    """Standard error whose reader has gone away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_an_error_that_nobody_reads_keeps_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", _Gone())
    assert run(["ask", "--no-such-flag"]) == 2


def test_an_engine_that_fails_is_exit_code_1_and_a_finished_answer_is_delivered(tmp_path: Path) -> None:
    replies = [reply(FIRST), reply(CRITICAL, error="the model went away", error_after=2)]
    script = write_script(tmp_path / "s.jsonl", replies)
    done = Shell(tmp_path).run("ask", "-m", script, QUESTION, check=1)
    assert done.stdout == FIRST + "\n"
    assert done.stderr.splitlines()[-1].startswith("selfee: ")
    assert "the model went away" in done.stderr.splitlines()[-1]


def test_an_answer_that_was_never_finished_is_exit_code_1_and_its_beginning_is_printed(tmp_path: Path) -> None:
    script = write_script(tmp_path / "s.jsonl", [reply("one two three four five six")])
    done = Shell(tmp_path).run("ask", "-m", script, QUESTION, "--max-answer-tokens", "3", check=1)
    assert done.stdout == "one two three\n"
    assert "no answer was finished" in done.stderr


@pytest.mark.parametrize(
    ("variables", "flags", "enforced"),
    [
        ({"SELFEE_MIN_REVISIONS": "2", "SELFEE_MAX_REVISIONS": "4"}, ("-r", "1"), (1, 1)),
        ({"SELFEE_REVISIONS": "2"}, ("--min-revisions", "1"), (1, 3)),
        ({"SELFEE_REVISIONS": "2"}, ("--max-revisions", "1"), (0, 1)),
        ({"SELFEE_MAX_REVISIONS": "4"}, ("--min-revisions", "1"), (1, 4)),
    ],
)
def test_a_flag_for_revisions_wins_over_every_variable(
    shell: Shell, variables: dict[str, str], flags: tuple[str, ...], enforced: tuple[int, int]
) -> None:
    shell.variables |= variables
    policy = json.loads(shell.run("ask", QUESTION, "--json", *flags).stdout)["settings"]["policy"]
    assert (policy["min_revisions"], policy["max_revisions"]) == enforced


def strict_json(text: str) -> dict[str, Any]:
    """Reads JSON, and nothing that only Python takes for JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    value: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return value


def test_a_banned_token_is_recorded_as_json(shell: Shell) -> None:
    row = strict_json(shell.run("ask", QUESTION, "--json", "--logit-bias", "5=-inf,7=1").stdout)
    assert row["settings"]["params"]["logit_bias"] == {"5": "-inf", "7": 1.0}


@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_json_keeps_every_character_whatever_the_locale(tmp_path: Path, form: str) -> None:
    said = "Zwölf Körbe 籃子 \ud800."
    script = write_script(tmp_path / "s.jsonl", [reply(said), reply(CONTENT)])
    done = Shell(tmp_path, encoding="ascii").run("ask", "-m", script, "Wie viele Körbe?", form)
    row = strict_json(done.stdout.splitlines()[-1])
    row = row.get("chain", row)
    assert (row["instruction"], row["final"]) == ("Wie viele Körbe?", said)


def test_an_empty_revision_leaves_the_answer_before_it(tmp_path: Path) -> None:
    script = write_script(tmp_path / "s.jsonl", [reply(FIRST), reply(CRITICAL), reply(""), reply(CONTENT)])
    assert Shell(tmp_path).run("ask", "-m", script, QUESTION).stdout == FIRST + "\n"


def test_a_model_that_says_nothing_is_exit_code_1(tmp_path: Path) -> None:
    script = write_script(tmp_path / "s.jsonl", [reply(""), reply(CONTENT)])
    done = Shell(tmp_path).run("ask", "-m", script, QUESTION, "--quiet", check=1)
    assert done.stdout == ""
    assert "the model wrote no answer" in done.stderr


def test_a_chain_cut_off_after_a_finished_answer_is_exit_code_0_and_says_so(tmp_path: Path) -> None:
    script = write_script(tmp_path / "s.jsonl", [reply(FIRST), reply(CRITICAL), reply("one two three four five")])
    words = ("ask", "-m", script, QUESTION, "--max-revision-tokens", "3", "--show", "final")
    done = Shell(tmp_path).run(*words)
    assert done.stdout == FIRST + "\n"
    assert "revision 1 was cut off" in done.stderr
    assert Shell(tmp_path).run(*words, "--quiet").stderr == ""


def slow_script(path: Path) -> str:
    return write_script(path, [reply(FIRST), reply(CRITICAL), reply("word " * 400, delay=0.05), reply(CONTENT)])


@pytest.mark.parametrize(
    ("number", "code", "form"),
    [(signal.SIGINT, 130, ()), (signal.SIGINT, 130, ("--jsonl",)), (signal.SIGTERM, 143, ()), (signal.SIGHUP, 129, ())],
)
def test_a_chain_stopped_by_a_signal_delivers_its_finished_answer(
    tmp_path: Path, number: signal.Signals, code: int, form: tuple[str, ...]
) -> None:
    child = Shell(tmp_path).start("ask", "-m", slow_script(tmp_path / "s.jsonl"), QUESTION, *form)
    assert child.stdout is not None
    assert child.stderr is not None
    watched = child.stdout if form else child.stderr
    seen = b""
    while b"revision" not in seen.replace(b"revision needed", b""):
        seen += os.read(watched.fileno(), 4096)
    child.send_signal(number)
    out, err = child.communicate(timeout=20)
    assert child.returncode == code
    assert b"Traceback" not in err
    if form:
        row = json.loads(out.splitlines()[-1])["chain"]
        assert (row["final"], row["cut"]) == (FIRST, "cancelled")
    else:
        assert out.decode() == FIRST + "\n"
        assert "cancelled in revision 1" in err.decode()


@pytest.mark.parametrize("first", [reply(FIRST, delay=30), reply("word " * 400, delay=0.05)])
def test_stopped_before_an_answer_is_finished_nothing_is_delivered(tmp_path: Path, first: dict[str, object]) -> None:
    script = write_script(tmp_path / "s.jsonl", [first])
    child = Shell(tmp_path).start("ask", "-m", script, QUESTION)
    assert child.stderr is not None
    seen = b""
    while not seen.startswith(b"answer") or ("word" in str(first["text"]) and b"word" not in seen):
        seen += os.read(child.stderr.fileno(), 100)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (130, b"")
    assert b"cancelled in the first answer" in err
    assert b"Traceback" not in err


def test_feedback_without_a_verdict_is_shown_as_that(tmp_path: Path) -> None:
    text = f"{FIRST}\n\n### Feedback 1:\nIt could be longer."
    script = write_script(tmp_path / "s.jsonl", [reply(text)])
    done = Shell(tmp_path).run("ask", "-m", script, QUESTION, "--mode", "single-pass")
    assert "● asks for no revision" in done.stderr
    assert done.stdout == FIRST + "\n"


def test_a_reader_that_goes_away_is_exit_code_141_without_a_complaint(tmp_path: Path) -> None:
    script = write_script(tmp_path / "s.jsonl", [reply("word " * 200, delay=0.002), *ONE_REVISION[1:]])
    child = Shell(tmp_path).start("ask", "-m", script, QUESTION, "--jsonl")
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(timeout=30) == 141
    assert child.stderr.read() == b""
    child.stderr.close()


def on_terminal(shell: Shell, *words: str, variables: dict[str, str] | None = None) -> str:
    """What a person sees: stdin, stdout and stderr are one terminal."""
    leader, follower = pty.openpty()
    environ = shell.environ | {"TERM": "xterm"} | (variables or {})
    child = subprocess.Popen(
        shell.command(*words), cwd=shell.folder, env=environ, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    seen = b""
    while select.select([leader], [], [], 30)[0]:
        try:
            block = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        seen += block
    os.close(leader)
    assert child.wait(timeout=30) == 0
    return seen.decode().replace("\r\n", "\n")


def test_on_a_terminal_the_final_answer_stands_once_under_its_own_rule(shell: Shell) -> None:
    seen = on_terminal(shell, "ask", QUESTION, "--seed", "4000000000")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen)
    assert plain.count(" final answer ") == 1
    assert plain.rstrip().endswith(SECOND)
    assert "\x1b[31;9m" in seen  # what the revision removed
    assert max(len(line) for line in plain.splitlines()) < 80


def test_no_color_holds_on_a_terminal(shell: Shell) -> None:
    assert "\x1b" not in on_terminal(shell, "ask", QUESTION, variables={"NO_COLOR": "1"})
    assert "\x1b" not in on_terminal(shell, "ask", QUESTION, variables={"TERM": "dumb"})


def test_what_a_model_says_cannot_steer_the_terminal(tmp_path: Path) -> None:
    evil = "Hello \x1b]0;owned\x07\x1b[2J\x9b31m\u202eworld\r\n done"
    script = write_script(tmp_path / "s.jsonl", [reply(evil), reply("Fine \x1b[5m. Revision is not needed.")])
    shell = Shell(tmp_path)
    seen = on_terminal(shell, "ask", "-m", script, QUESTION, variables={"NO_COLOR": "1"})
    assert not set("\x1b\x07\x9b\u202e\r") & set(seen)
    assert "\x1b[2J" in shell.run("ask", "-m", script, QUESTION).stdout  # a program gets the text as it is


def test_bytes_that_the_terminal_cannot_show_become_question_marks(shell: Shell) -> None:
    shell.encoding = "ascii"
    done = shell.run("ask", QUESTION)
    assert "? revision needed" in done.stderr


def test_a_home_that_cannot_be_written_does_not_matter_to_a_script(shell: Shell) -> None:
    shell.variables |= {"HOME": "/proc", "SELFEE_MODELS": "/proc/models"}
    assert shell.run("ask", QUESTION).stdout == SECOND + "\n"
    assert "expected one of those here (none)" in shell.run("models", "remove", "smollm2-135m", check=2).stderr
    assert shell.run("models", "pull", check=1).stderr.startswith("selfee: /proc/models")


def test_an_unexpected_error_is_one_line_and_the_traceback_on_request(shell: Shell) -> None:
    code = (
        "import selfee.cli.run as r\n"
        "def boom(words): raise ZeroDivisionError('no\\nway')\n"
        "r._invoke = boom\n"
        "raise SystemExit(r.run([]))"
    )
    for debug in ("", "1"):
        environ = shell.environ | {"SELFEE_DEBUG": debug}
        done = subprocess.run(
            [shell.command()[0], "-c", code], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == bool(debug)
        assert debug or done.stderr.startswith("selfee: unexpected ZeroDivisionError: no way; ")


@pytest.mark.parametrize(("raised", "code"), [("KeyboardInterrupt", 130), ("TerminatedError(15)", 143)])
def test_an_error_that_an_interrupt_turned_into_is_an_interrupt(shell: Shell, raised: str, code: int) -> None:
    program = (
        "import selfee.cli.run as r\n"
        "from selfee.cli.interrupts import TerminatedError\n"
        "def boom(words):\n"
        "    try:\n"
        f"        raise {raised}\n"
        "    finally:\n"
        "        raise RuntimeError('release unlocked lock')\n"
        "r._invoke = boom\n"
        "raise SystemExit(r.run([]))"
    )
    done = subprocess.run([shell.command()[0], "-c", program], env=shell.environ, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (code, b"")


def test_critical_feedback_is_shown_as_it_was_said(shell: Shell) -> None:
    assert CRITICAL in " ".join(shell.run("ask", QUESTION).stderr.split())


def test_a_model_file_writes_a_chain_and_the_same_seed_writes_it_again(tmp_path: Path) -> None:
    pytest.importorskip("selfee._native", reason="the kernels are not compiled here; run: make setup")
    make_tiny(tmp_path / "model.gguf", n_ctx=2048)
    words = ["ask", "-m", "model.gguf", QUESTION, "--json", "-r", "1", "--seed", "7", "--threads", "1"]
    budgets = ["--max-answer-tokens", "12", "--max-feedback-tokens", "12", "--max-revision-tokens", "12"]
    rows = [json.loads(Shell(tmp_path).run(*words, *budgets, check=None).stdout) for _ in range(2)]
    assert rows[0]["engine"] == "model.gguf"
    assert rows[0]["seed"] == 7
    texts = [[(step["answer"], step["feedback"]) for step in row["steps"]] for row in rows]
    assert texts[0] == texts[1]
    assert texts[0]


def test_a_full_disk_behind_stdout_is_one_clear_error(shell: Shell) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            shell.command("ask", QUESTION, "--quiet"),
            env=shell.environ,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("selfee: <stdout>: cannot be written (No space left on device)")
    assert done.stderr.count("\n") == 1


def test_standard_input_that_says_nothing_is_waited_for_with_a_word(shell: Shell) -> None:
    child = subprocess.Popen(
        shell.command("ask", QUESTION, "--show", "final"),
        env=shell.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    assert child.stderr.readline().startswith(b"waiting for standard input")
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out.decode(), err) == (0, SECOND + "\n", b"")


def test_streams_that_were_closed_are_no_reason_to_fail(shell: Shell) -> None:
    command = shlex.join(shell.command("ask", QUESTION))
    run = subprocess.run(["sh", "-c", f"{command} <&- 2>&-"], env=shell.environ, stdout=subprocess.PIPE, check=False)
    assert (run.returncode, run.stdout.decode()) == (0, SECOND + "\n")
    assert subprocess.run(["sh", "-c", f"{command} <&- >&- 2>&-"], env=shell.environ, check=False).returncode == 0


@pytest.mark.parametrize(("flags", "temperature"), [([], 0.0), (["--temperature", "0.5"], 0.5)])
def test_a_built_in_model_brings_its_own_settings_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], temperature: float
) -> None:
    engine = ScriptedEngine([FIRST])
    monkeypatch.setattr("selfee.cli.ask.open_model", lambda *_: engine)
    Shell(tmp_path).run("ask", QUESTION, "--max-revisions", "0", *flags)
    (request,) = engine.requests
    assert isinstance(request, ChatRequest)
    assert request.params.temperature == temperature
    assert request.messages[0].content == find_prompts("small").answer[0].text
