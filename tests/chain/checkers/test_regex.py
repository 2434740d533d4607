"""A pattern as checker: also one that would take for ever."""

from __future__ import annotations

import pytest

from selfee.chain.checkers import RegexChecker
from selfee.chain.checkers.base import run_check
from selfee.chain.checkers.regex import search
from selfee.chain.types import Instruction
from selfee.errors import EngineError, UsageError

QUESTION = Instruction("Q")


def test_an_answer_passes_if_the_pattern_is_found() -> None:
    checker = RegexChecker(r"answer is (\d+)")
    assert checker.check(QUESTION, "So the answer is 42.").passed is True
    assert checker.check(QUESTION, "So the answer is 42.").reason == "found 'answer is 42'"
    assert checker.check(QUESTION, "I do not know.").passed is False


def test_a_pattern_that_takes_for_ever_is_a_failed_check_after_its_time() -> None:
    check = run_check(RegexChecker(r"(a+)+$", timeout=1.0), QUESTION, "a" * 64 + "!")
    assert (check.passed, check.failed) == (None, True)
    assert "within 1 s" in check.reason


def test_any_text_can_be_searched() -> None:
    text = "\0 \ud800 🫐 " + "x" * 100_000 + "\n"
    assert search(r"🫐", text) == ["🫐"]
    assert search(r"(y)?(x)(x)", text) == ["xx", "x"]
    assert search(r"^$(?!\n)", "abc") is None


def test_what_was_found_may_be_long() -> None:
    text = "🫐" * 100_000
    assert search("(?s)^(.*)$", text) == ["🫐" * 1000] * 2
    assert RegexChecker("(?s)^.*$").check(QUESTION, text).passed is True
    assert search("(a)?" * 99 + "🫐", text) == ["🫐"]


def test_a_pattern_that_needs_too_much_is_an_error() -> None:
    with pytest.raises(EngineError, match="pattern"):
        search("(", "x")


@pytest.mark.parametrize("pattern", ["(", "[", "a" * 10_001, "(?P<n>a)(?P<n>b)", "a{99999999999999999999}"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        RegexChecker(pattern)
    with pytest.raises(UsageError, match="timeout"):
        RegexChecker("a", timeout=-1)
