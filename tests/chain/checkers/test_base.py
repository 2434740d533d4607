"""Functions as checkers, and what becomes of a checker that misbehaves."""

from __future__ import annotations

from typing import Any

import pytest

from selfee.chain.checkers import FunctionChecker, Signal
from selfee.chain.checkers.base import run_check
from selfee.chain.types import Check, Cost, Instruction
from selfee.errors import UsageError

QUESTION = Instruction("Q")


@pytest.mark.parametrize(
    ("said", "check"),
    [
        (True, Check(True)),
        (False, Check(False)),
        (None, Check(None)),
        (3, Check(None, 3.0)),
        (0.5, Check(None, 0.5)),
        (Check(False, 2.0, "two of five"), Check(False, 2.0, "two of five")),
    ],
)
def test_a_function_says_whether_an_answer_passes_or_how_good_it_is(said: Any, check: Check) -> None:
    assert run_check(FunctionChecker(lambda instruction, answer: said), QUESTION, "A") == check


@pytest.mark.parametrize("said", ["yes", [], float("nan"), float("inf"), b""])
def test_nonsense_is_a_failed_check(said: Any) -> None:
    check = run_check(FunctionChecker(lambda instruction, answer: said), QUESTION, "A")
    assert (check.passed, check.score, check.failed) == (None, None, True)
    assert check.reason


@pytest.mark.parametrize(
    "error", [ValueError("bad\nvalue"), RecursionError(), MemoryError(), UsageError("no"), OSError(), SystemExit(1)]
)
def test_whatever_a_function_raises_is_a_failed_check(error: BaseException) -> None:
    def fail(instruction: Instruction, answer: str) -> bool:
        raise error

    check = run_check(FunctionChecker(fail), QUESTION, "A")
    assert check.failed
    assert check.reason.startswith(type(error).__name__)
    assert "\n" not in check.reason


def test_an_interrupt_is_no_finding() -> None:
    def interrupt(instruction: Instruction, answer: str) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_check(FunctionChecker(interrupt), QUESTION, "A")


def test_an_object_that_only_looks_like_a_checker_is_a_failed_check() -> None:
    class Liar:
        name = "liar"
        signal = Signal.EXTERNAL

        def check(self, instruction: Instruction, answer: str) -> Any:
            return "passed"

    assert run_check(Liar(), QUESTION, "A").failed


def test_reasons_are_one_line_and_time_is_noted() -> None:
    checker = FunctionChecker(lambda instruction, answer: Check(True, reason="a\n b " * 1000, cost=Cost(tokens=3)))
    check = run_check(checker, QUESTION, "A")
    assert check.reason.startswith("a b a b")
    assert len(check.reason) == 300
    assert check.cost is not None
    assert check.cost.tokens == 3
    assert check.cost.seconds > 0


def test_a_checker_has_a_name_and_says_what_it_knows() -> None:
    def exact(instruction: Instruction, answer: str) -> bool:
        return True

    assert FunctionChecker(exact, signal=Signal.GOLD).name == "exact"
    assert FunctionChecker(exact, name="gold").name == "gold"
    assert FunctionChecker(exact).signal is Signal.EXTERNAL
