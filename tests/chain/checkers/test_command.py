"""A program as checker: its exit code decides, its last line scores, its misdeeds are its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from selfee.chain.checkers import CommandChecker, Signal
from selfee.chain.checkers.base import run_check
from selfee.chain.checkers.command import split_command
from selfee.chain.types import Check, Instruction
from selfee.errors import UsageError

QUESTION = Instruction("Q")


def run(program: str, answer: str = "the answer", timeout: float = 20.0) -> Check:
    checker = CommandChecker([sys.executable, "-I", "-S", "-c", program], timeout=timeout)
    return run_check(checker, QUESTION, answer)


def test_exit_code_0_passes_others_do_not_and_125_cannot_tell() -> None:
    assert run("import sys; sys.exit('answer' not in sys.stdin.read())").passed is True
    assert run("import sys; sys.exit(1)").passed is False
    check = run("import sys; sys.exit(125)")
    assert (check.passed, check.failed) == (None, False)


@pytest.mark.parametrize(
    ("last", "score"),
    [
        ("0.75", 0.75),
        ("-3", -3.0),
        (" 10 ", 10.0),
        ("nan", None),
        ("inf", None),
        ("-Infinity", None),
        ("1e999", None),
        ("7/10", None),
        ("9" * 5000, None),
        ("", 5.0),
    ],
)
def test_the_last_line_of_its_output_is_the_score_if_it_is_a_finite_number(last: str, score: float | None) -> None:
    check = run(f"print('5'); print({last!r})")
    assert (check.passed, check.score) == (True, score)


def test_its_last_words_are_the_reason() -> None:
    assert run("import sys; print('1 of 3 failed', file=sys.stderr); sys.exit(1)").reason == (
        "exit code 1: 1 of 3 failed"
    )
    long = run("print('x' * 100000)")
    assert len(long.reason) <= 300


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import time; time.sleep(60)", "killed after 1 s"),
        ("while True: print('x' * 9999)", "killed after 1 s"),
        ("import os; os.kill(os.getpid(), 11)", "died by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 40)", "died by signal 40"),
    ],
)
def test_a_program_that_hangs_or_dies_has_failed_itself(program: str, reason: str) -> None:
    check = run(program, timeout=1.0)
    assert (check.passed, check.score, check.failed) == (None, None, True)
    assert reason in check.reason


def test_an_answer_is_never_part_of_a_command_line() -> None:
    hostile = "$(touch pwned); `id`\n; exit 1 #\0\ud800"
    check = run("import sys; print(len(sys.argv)); sys.stdin.buffer.read()", hostile)
    assert (check.passed, check.score) == (True, 1.0)


def test_a_program_that_went_away_since_is_a_failed_check(tmp_path: object) -> None:
    checker = CommandChecker([sys.executable])
    checker._words = ("/nowhere/at/all",)
    check = checker.check(QUESTION, "A")
    assert check.failed
    assert "cannot be started" in check.reason


@pytest.mark.parametrize("words", [[], "python", ["/nowhere/at/all"], ["no-such-program-anywhere"]])
def test_what_cannot_be_run_is_refused_before_anything_is_asked(words: Sequence[str]) -> None:
    with pytest.raises(UsageError, match="command"):
        CommandChecker(words)


def test_a_line_is_split_as_a_shell_would_but_nothing_is_expanded() -> None:
    assert split_command("prog 'two words' $HOME *.py | x") == ("prog", "two words", "$HOME", "*.py", "|", "x")
    for wrong in ("prog 'open", " "):
        with pytest.raises(UsageError, match="command"):
            split_command(wrong)


def test_it_says_what_it_knows() -> None:
    checker = CommandChecker([sys.executable, "a b"], signal=Signal.GOLD)
    assert checker.name.endswith("'a b'")
    assert checker.signal is Signal.GOLD
    with pytest.raises(UsageError, match="timeout"):
        CommandChecker([sys.executable], timeout=0)
