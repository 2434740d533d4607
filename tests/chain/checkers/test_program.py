"""The program of an answer is found, and passes only if it does what its tests ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfee.chain.checkers import ProgramChecker
from selfee.chain.checkers.program import find_program, same_program
from selfee.chain.types import Instruction
from selfee.errors import UsageError
from selfee.jsonl import read_jsonl

ASKED = Instruction("Write add(a, b).")
TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]
GOOD = "def add(a, b):\n    return a + b"


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        f"Here it is:\n\n```python\n{GOOD}\n```\n\nIt adds.",
        f"```\n{GOOD}\n```",
        f"~~~python\n{GOOD}\n~~~",
        f"1. Like this:\n   ```python\n   {GOOD.replace(chr(10), chr(10) + '   ')}\n   ```",
        f"```python\n{GOOD}",
        f"```python\nimport math\n```\nand then\n```python\n{GOOD}\n```\nUse it:\n```python\nprint(add(1, 2))\n```",
        f"```bash\npip install x\n```\n```python\n{GOOD}\n```",
        f"Sure! I define a function.\n{GOOD}\n\nThis works because it adds.",
        f"```python\n{GOOD}\n\nif __name__ == '__main__':\n    raise SystemExit(1)\n```",
        f"```python\r\n{GOOD}\r\n```",
    ],
)
def test_a_program_is_found_however_it_is_shown(answer: str) -> None:
    check = ProgramChecker(TESTS).check(ASKED, answer)
    assert check.passed is True, check.reason


def test_the_share_of_tests_passed_is_the_score() -> None:
    check = ProgramChecker(TESTS).check(ASKED, "def add(a, b):\n    return abs(a) + b")
    assert (check.passed, check.score) == (False, 0.5)
    assert check.reason == "1 of 2 tests passed; failed: assert add(-1, 1) == 0"


def test_an_answer_without_a_program_does_not_pass() -> None:
    check = ProgramChecker(TESTS).check(ASKED, "You should add the two numbers.")
    assert check.passed is False
    assert check.reason == "no program found that Python can read"


def test_a_function_may_have_any_name_where_its_author_was_not_told_one() -> None:
    other = "def helper(a):\n    return a\n\ndef total(a, b):\n    return helper(a) + helper(b)"
    assert ProgramChecker(TESTS).check(ASKED, other).passed is False
    assert ProgramChecker(TESTS, any_name=True).check(ASKED, other).passed is True
    assert ProgramChecker(TESTS, any_name=True).check(ASKED, GOOD).passed is True
    recursive = (
        "def total(a, b):\n    return a if b == 0 else total(a + (1 if b > 0 else -1), b + (-1 if b > 0 else 1))"
    )
    assert ProgramChecker(TESTS, any_name=True).check(ASKED, recursive).passed is True
    assert ProgramChecker(TESTS, any_name=True).check(ASKED, "x = 1").passed is False


def test_tests_that_are_missing_or_no_python_are_refused() -> None:
    with pytest.raises(UsageError, match="there are none"):
        ProgramChecker([])
    with pytest.raises(UsageError, match="no Python"):
        ProgramChecker(["assert add(1, 2 =="])


def test_layout_comments_and_docstrings_do_not_make_another_program() -> None:
    other = "```python\ndef add(a,b):\n    '''Adds.'''\n    return (a+b)  # the sum\n```"
    assert same_program(GOOD) == same_program(other)
    assert same_program(GOOD) != same_program("def add(a, b):\n    return b + a")
    assert same_program("no program") is None


def test_a_long_text_without_a_program_is_searched_in_bearable_time() -> None:
    assert find_program("import this is what I said\n" * 3000) is None


@pytest.mark.corpus
@pytest.mark.minutes
def test_the_reference_programs_of_mbpp_pass_their_tests(corpus: Path) -> None:
    failed = []
    for _, row in read_jsonl(corpus / "public" / "mbpp.jsonl"):
        checker = ProgramChecker(row["test_list"], setup=row["test_setup_code"] or "")
        check = checker.check(ASKED, f"```python\n{row['code']}\n```")
        if not check.passed:
            failed.append((row["task_id"], check.reason))
    assert len(failed) <= 12, failed


@pytest.mark.corpus
def test_some_reference_programs_of_mbpp_pass_their_tests(corpus: Path) -> None:
    for _, row in list(read_jsonl(corpus / "public" / "mbpp.jsonl"))[:8]:
        checker = ProgramChecker(row["test_list"], setup=row["test_setup_code"] or "")
        check = checker.check(ASKED, f"```python\n{row['code']}\n```")
        assert check.passed, (row["task_id"], check.reason)
