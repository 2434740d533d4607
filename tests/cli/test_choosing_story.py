"""``selfee ask`` with several attempts, checks and budgets: what is delivered, what is shown, what is refused."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.story import CONTENT, CRITICAL, FIRST, ONE_REVISION, QUESTION, ROOT, SECOND, Shell, reply, write_script

import selfee
from selfee.chain.record import from_json, samples_from_json
from selfee.engines.scripted import ScriptedEngine

NUMBERS = [reply(f"It is {number}.") for number in (4, 5, 5)]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell whose model is a script with one revision."""
    return Shell(tmp_path, {"SELFEE_MODEL": write_script(tmp_path / "script.jsonl")})


@pytest.fixture
def numbers(tmp_path: Path) -> Shell:
    """A shell whose model answers 4, 5 and 5."""
    return Shell(tmp_path, {"SELFEE_MODEL": write_script(tmp_path / "numbers.jsonl", NUMBERS)})


def program(text: str) -> str:
    """A command line that runs a Python program."""
    return shlex.join([sys.executable, "-I", "-S", "-c", text])


def test_what_most_attempts_agree_on_is_delivered_and_the_votes_are_shown(numbers: Shell) -> None:
    done = numbers.run("ask", QUESTION, "--best-of", "3", "--keep", "vote", "--seed", "5")
    assert done.stdout == "It is 5.\n"
    for part in ("attempt 1\n", "attempt 3\n", "  2 for 5 (attempts 2, 3)", "  1 for 4 (attempts 1)"):
        assert part in done.stderr
    assert "attempt 2 is delivered: 2 of 3 attempts came to '5'" in " ".join(done.stderr.split())
    assert "seed 5" in done.stderr
    assert "was not criticised" not in done.stderr


def test_json_holds_every_attempt_and_reads_back(numbers: Shell) -> None:
    words = ("--best-of", "3", "--keep", "vote", "--vote-on", "/is (\\d)/", "--json", "--seed", "5")
    done = numbers.run("ask", QUESTION, *words)
    row = json.loads(done.stdout)
    samples = samples_from_json(row)
    assert [attempt.final for attempt in samples.attempts] == ["It is 4.", "It is 5.", "It is 5."]
    assert (row["final"], row["chosen"], row["delivered"], row["end"]) == ("It is 5.", 1, 1, "complete")
    assert row["votes"] == [{"answer": "5", "attempts": [1, 2]}, {"answer": "4", "attempts": [0]}]
    assert row["settings"]["extractor"] == "pattern is (\\d)"
    assert done.stderr == ""


def test_jsonl_says_which_attempt_an_event_belongs_to(numbers: Shell) -> None:
    rows = [
        json.loads(line)
        for line in numbers.run("ask", QUESTION, "--best-of", "2", "--keep", "first", "--jsonl").stdout.splitlines()
    ]
    assert rows[0] == {"attempt": 0, "event": "section_start", "section": "answer", "number": 0}
    assert {row["attempt"] for row in rows[:-1]} == {0, 1}
    assert rows[-1]["event"] == "samples_finished"
    assert rows[-1]["samples"]["final"] == "It is 4."


def test_raw_is_the_text_of_the_attempt_delivered(numbers: Shell) -> None:
    assert numbers.run("ask", QUESTION, "--best-of", "3", "--keep", "vote", "--show", "raw").stdout == "It is 5.\n"


def test_without_a_word_the_critic_decides_between_attempts(tmp_path: Path) -> None:
    replies = [reply(FIRST), reply(CRITICAL), reply(SECOND), reply(CONTENT)]
    done = Shell(tmp_path).run("ask", "-m", write_script(tmp_path / "s.jsonl", replies), QUESTION, "--best-of", "2")
    assert done.stdout == SECOND + "\n"
    assert "● revision not needed" in done.stderr


def test_tokens_instead_of_a_number_of_attempts(numbers: Shell) -> None:
    words = ("--best-of", "0", "--total-tokens", "5", "--keep", "first", "--json")
    row = json.loads(numbers.run("ask", QUESTION, *words).stdout)
    assert (row["end"], len(row["attempts"]), row["tokens"]) == ("spent", 2, 6)


def test_tokens_instead_of_a_number_of_revisions(tmp_path: Path) -> None:
    rounds = [reply(text) for number in range(30) for text in (f"Answer {number}.", CRITICAL)]
    script = write_script(tmp_path / "s.jsonl", rounds)
    row = json.loads(Shell(tmp_path).run("ask", "-m", script, QUESTION, "--total-tokens", "90", "--json").stdout)
    chain = from_json(row)
    assert (chain.end.value, row["settings"]["policy"]["max_revisions"]) == ("spent", None)
    assert chain.num_revisions > 3, "the usual limit does not hold"
    assert chain.cost.tokens <= 90
    limited = Shell(tmp_path).run(
        "ask", "-m", script, QUESTION, "--total-tokens", "90", "--max-revisions", "1", "--json"
    )
    assert json.loads(limited.stdout)["num_revisions"] == 1
    short = Shell(tmp_path).run("ask", "-m", script, QUESTION, "--total-tokens", "1", check=1)
    assert "the allowance of the whole chain is spent" in short.stderr


def test_seconds_are_a_budget_too(shell: Shell) -> None:
    row = json.loads(shell.run("ask", QUESTION, "--total-seconds", "300", "--json").stdout)
    assert row["settings"]["allowance"] == {"tokens": None, "seconds": 300.0}
    assert row["end"] == "accepted"


def test_a_chain_ends_with_the_first_answer_in_which_the_pattern_is_found(shell: Shell) -> None:
    done = shell.run("ask", QUESTION, "--check-regex", "reflects", "--until-passed")
    assert done.stdout == FIRST + "\n"
    assert "● passed\n             found 'reflects'\n" in done.stderr
    assert "the first answer passed the check (regex reflects)" in " ".join(done.stderr.split())
    assert "feedback" not in done.stderr


def test_the_best_checked_answer_is_delivered_also_if_it_is_not_the_last(shell: Shell) -> None:
    done = shell.run("ask", QUESTION, "--check-regex", "reflects")
    assert done.stdout == FIRST + "\n"
    assert "● not passed\n             the pattern was not found\n" in done.stderr
    assert shell.run("ask", QUESTION, "--check-regex", "reflects", "--keep", "last").stdout == SECOND + "\n"


def test_the_answer_that_most_of_a_chain_agree_on_is_delivered(tmp_path: Path) -> None:
    verdict = reply(CRITICAL)
    replies = [reply("It is 5."), verdict, reply("So it is 5."), verdict, reply("It is 7."), reply(CONTENT)]
    script = write_script(tmp_path / "s.jsonl", replies)
    words = ("ask", "-m", script, QUESTION, "--keep", "vote", "--vote-on", "number", "--json")
    row = json.loads(Shell(tmp_path).run(*words).stdout)
    assert (row["selected"], row["final"]) == (1, "So it is 5.")
    assert row["settings"]["selector"] == "most agreed by last_number"


def test_a_program_scores_what_it_reads_and_sees_no_key(shell: Shell) -> None:
    shell.variables |= {"SELFEE_API_KEY": "secret", "OTHER": "kept"}
    text = (
        "import os, sys; assert 'SELFEE_API_KEY' not in os.environ and os.environ['OTHER'] == 'kept'; "
        "print(len(sys.stdin.read()))"
    )
    row = json.loads(shell.run("ask", QUESTION, "--check-command", program(text), "--json").stdout)
    assert [step["check"]["score"] for step in row["steps"]] == [len(FIRST), len(SECOND)]
    assert row["selected"] == 1
    assert row["settings"]["checker"]["signal"] == "external"


def test_a_program_that_hangs_costs_its_time_and_not_the_answer(shell: Shell) -> None:
    words = ("--check-command", program("import time; time.sleep(60)"), "--check-timeout", "0.5")
    done = shell.run("ask", QUESTION, *words)
    assert done.stdout == SECOND + "\n"
    assert "● the check failed itself" in done.stderr
    assert "killed after 0.5 s" in done.stderr
    assert "2 of 2 checks failed themselves" in " ".join(done.stderr.split())


def test_sampling_ends_with_the_first_attempt_that_passes(numbers: Shell) -> None:
    words = ("--best-of", "3", "--check-regex", "5", "--until-passed", "--json")
    row = json.loads(numbers.run("ask", QUESTION, *words).stdout)
    assert (row["end"], row["final"], len(row["attempts"])) == ("passed", "It is 5.", 2)


@pytest.mark.parametrize(("judge", "kind"), [("self", "self"), ("other", "external")])
def test_a_model_judges_itself_or_another_one(tmp_path: Path, judge: str, kind: str) -> None:
    judgements = [reply("Score: 9"), reply("Score: 2")]
    mine = [reply("A."), judgements[0], reply("B."), judgements[1]] if judge == "self" else [reply("A."), reply("B.")]
    script = write_script(tmp_path / "mine.jsonl", mine)
    named = "self" if judge == "self" else write_script(tmp_path / "judge.jsonl", judgements)
    words = ("ask", "-m", script, QUESTION, "--best-of", "2", "--check-judge", named, "--json")
    row = json.loads(Shell(tmp_path).run(*words).stdout)
    assert (row["final"], row["settings"]["checker"]["signal"]) == ("A.", kind)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--best-of", "2", "--max-revisions", "1"], "--best-of: answers anew instead of revising"),
        (["--best-of", "2", "-r", "1"], "--best-of: answers anew instead of revising"),
        (["--best-of", "-1"], "--best-of: -1 is negative"),
        (["--best-of", "0"], "--best-of 0: would never end"),
        (["--best-of", "2", "--keep", "last"], "--keep last: attempts know no order"),
        (["--keep", "first"], "--keep first: is for several attempts"),
        (["--keep", "check"], "--keep check: there is no check"),
        (["--keep", "best"], "--keep"),
        (["--vote-on", "number"], "--vote-on: there is no vote"),
        (["--best-of", "2", "--keep", "vote", "--vote-on", "colour"], "votes: 'colour' is unknown"),
        (["--best-of", "2", "--keep", "vote", "--vote-on", "/(/"], "not a regular expression"),
        (["--until-passed"], "--until-passed: nothing says what passes"),
        (["--best-of", "2", "--keep", "vote", "--check-regex", "a", "--until-passed"], "leave --keep out"),
        (["--check-regex", "a", "--check-command", "true"], "--check-regex and --check-command: both given"),
        (["--check-regex", "("], "not a regular expression"),
        (["--check-command", "no-such-program-anywhere x"], "no program 'no-such-program-anywhere'"),
        (["--check-command", "'open"], "cannot be read"),
        (["--check-timeout", "5"], "--check-timeout: there is no pattern or program"),
        (["--check-regex", "a", "--check-timeout", "0"], "timeout is 0"),
        (["--check-judge", "no-such-model"], "no name of a model"),
        (["--best-of", "2", "--temperature", "0"], "temperature is 0"),
        (["--total-tokens", "0"], "allowance: 0 tokens"),
        (["--total-seconds", "nan"], "allowance: nan seconds"),
    ],
)
def test_flags_that_do_not_fit_are_refused_before_anything_is_asked(
    shell: Shell, words: list[str], complaint: str
) -> None:
    done = shell.run("ask", QUESTION, *words, check=2)
    assert complaint in done.stderr
    assert done.stderr.startswith("selfee: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_variable_for_revisions_does_not_forbid_attempts_and_none_runs_a_program(numbers: Shell) -> None:
    numbers.variables |= {"SELFEE_MAX_REVISIONS": "2", "SELFEE_CHECK_COMMAND": "touch pwned", "SELFEE_BEST_OF": "9"}
    row = json.loads(numbers.run("ask", QUESTION, "--best-of", "2", "--keep", "first", "--json").stdout)
    assert len(row["attempts"]) == 2
    assert "checker" not in row["settings"]
    assert not (numbers.folder / "pwned").exists()


def test_an_engine_that_fails_delivers_the_best_attempt_and_is_exit_code_1(tmp_path: Path) -> None:
    replies = [reply("It is 5."), reply("It is", error="gone", error_after=1)]
    script = write_script(tmp_path / "s.jsonl", replies)
    done = Shell(tmp_path).run("ask", "-m", script, QUESTION, "--best-of", "3", "--keep", "vote", check=1)
    assert done.stdout == "It is 5.\n"
    assert "gone" in done.stderr
    nothing = write_script(tmp_path / "n.jsonl", [reply("")])
    done = Shell(tmp_path).run("ask", "-m", nothing, QUESTION, "--best-of", "1", "--keep", "vote", check=1)
    assert (done.stdout, "no attempt was finished with an answer" in done.stderr) == ("", True)


@pytest.mark.parametrize("form", [(), ("--jsonl",)])
def test_attempts_stopped_by_a_signal_deliver_what_is_finished(tmp_path: Path, form: tuple[str, ...]) -> None:
    script = write_script(tmp_path / "s.jsonl", [reply("It is 5."), reply("word " * 400, delay=0.05)])
    child = Shell(tmp_path).start("ask", "-m", script, QUESTION, "--best-of", "3", "--keep", "vote", *form)
    assert child.stdout is not None
    assert child.stderr is not None
    watched, sign = (child.stdout, b'"attempt": 1, "event": "text_delta"') if form else (child.stderr, b"attempt 2")
    seen = b""
    while sign not in seen:
        seen += os.read(watched.fileno(), 4096)
    child.send_signal(signal.SIGINT)
    out, err = (stream.decode() for stream in child.communicate(timeout=20))
    assert child.returncode == 130, err
    assert "Traceback" not in err
    if not form:
        assert out == "It is 5.\n"
        assert "attempt 1 is delivered" in " ".join(err.split())
        return
    samples = samples_from_json(json.loads(out.splitlines()[-1])["samples"])
    assert (samples.final, samples.end.value, len(samples.attempts)) == ("It is 5.", "cut_off", 2)


def test_the_one_revision_of_the_story_is_still_told_the_same_way(shell: Shell) -> None:
    assert len(ONE_REVISION) == 4
    row = json.loads(shell.run("ask", QUESTION, "--json").stdout)
    assert "check" not in row["steps"][0]
    assert set(row["settings"]) == {"policy", "params", "budgets", "selector", "prompts"}


@pytest.mark.parametrize(("flags", "temperature"), [((), 0.7), (("--temperature", "0.5"), 0.5)])
def test_a_built_in_model_that_does_best_without_chance_is_sampled_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], temperature: float
) -> None:
    engine = ScriptedEngine([FIRST, SECOND])
    monkeypatch.setattr("selfee.cli.ask.open_model", lambda *_: engine)
    Shell(tmp_path).run("ask", QUESTION, "--best-of", "2", "--keep", "vote", *flags)
    assert {request.params.temperature for request in engine.requests} == {temperature}


GUIDE = (ROOT / "docs" / "guides" / "choosing.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_every_command_of_the_guide_works(tmp_path: Path, line: str) -> None:
    critic = [CRITICAL, CRITICAL, CONTENT]
    replies = [reply(text) for number in range(200) for text in (f"391 is answer {number}.", critic[number % 3])]
    shell = Shell(tmp_path, {"SELFEE_MODEL": write_script(tmp_path / "s.jsonl", replies)})
    program, *words = shlex.split(line)
    assert program == "selfee"
    assert "391" in shell.run(*words).stdout


def test_the_python_of_the_guide_is_python_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    replies = ["It is 1.", CRITICAL, "It is 391.", CRITICAL, "It is 391!", CRITICAL, "It is 391 again.", CRITICAL]
    engine = ScriptedEngine([*replies, *["391"] * 200], strict=False)
    monkeypatch.setattr(selfee, "open_engine", lambda _: engine)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)
    assert names["samples"].cost.tokens == names["chain"].cost.tokens, "attempts of one token exceed nothing"
    assert names["oracle"].settings["checker"] == {"name": "reference", "signal": "gold"}
