"""The number that an answer ends with is found however it is written, and compared exactly."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.chain.checkers import NumberChecker, Signal
from selfee.chain.checkers.number import final_number, find_number, shown
from selfee.chain.types import Instruction
from selfee.errors import UsageError
from selfee.jsonl import read_jsonl

ASKED = Instruction("How many?")

WRITTEN = [
    ("#### 18", "18"),
    ("#### $1,234.50", "1234.5"),
    ("so \\boxed{\\frac{3}{4}}", "0.75"),
    ("\\boxed{72 \\text{ clips}}", "72"),
    ("The answer is $18.00.", "18"),
    ("**18 dollars**", "18"),
    ("**72**\n```", "72"),
    ("1 1/2", "1.5"),
    ("2½ cups", "2.5"),
    ("Total: 1,234.50", "1234.5"),
    ("It is -5.", "-5"),
    ("It is −5.", "-5"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("16 - 3 - 4 = 9 eggs", "9"),
    ("16-3=13", "13"),
    ("The final answer is 18 dollars for 9 eggs.", "18"),
    ("answer: 16 - 3 - 4 = 9", "9"),
    ("12 %", "12"),
    ("1e3", "1000"),
    (".5 miles", "0.5"),
    ("\\(18\\)", "18"),
    ("\\[ x = 42 \\]", "42"),
    ("$$72$$", "72"),
    ("Final Answer: \\$1,500", "1500"),
    ("x = 1/3", "1/3"),
    ("18 eggs/day", "18"),
    ("Natalia sold 48+24 = <<48+24=72>>72 clips", "72"),
    ("The answer is 5.\n\nI checked it: 2 + 3 = 5, with 4 steps taken.", "5"),
    ("#### 4. Calculate the total\nThe total is 7.", "7"),
]


@pytest.mark.parametrize(("text", "number"), WRITTEN)
def test_a_result_is_found_however_it_is_written(text: str, number: str) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize("text", ["", "no number at all", "a/b 3/0", "twenty"])
def test_a_text_without_a_number_has_none(text: str) -> None:
    assert final_number(text) is None


@given(st.fractions(max_denominator=1000).filter(lambda each: abs(each) < 10**9))
def test_what_is_shown_of_a_number_is_read_back_as_that_number(number: Fraction) -> None:
    found = find_number(f"The answer is {shown(number)}.")
    assert found is not None
    assert found[0] == number


@given(
    st.integers(-(10**12), 10**12), st.sampled_from(["{:,}", "{}", "{}.00", "#### {:,}", "\\boxed{{{:,}}}", "**{}**"])
)
def test_an_integer_is_the_same_in_every_dress(number: int, dress: str) -> None:
    assert final_number("There were 3 apples.\n" + dress.format(number)) == str(number)


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    found = final_number(text)
    assert found is None or Fraction(found) is not None


def test_a_long_hostile_text_is_read_quickly() -> None:
    assert final_number("1" * 100_000 + " " + "9," * 50_000 + "=\\frac{" * 10_000 + " the answer is 7.") == "7"


def test_the_right_number_passes_and_another_does_not() -> None:
    checker = NumberChecker("She sells 9 eggs.\n#### 18")
    assert checker.signal is Signal.GOLD
    assert checker.check(ASKED, "The answer is $18.").passed is True
    wrong = checker.check(ASKED, "The answer is $17.")
    assert wrong.passed is False
    assert wrong.reason == "found 17; expected 18"
    assert checker.check(ASKED, "I do not know.").passed is False


def test_a_reference_with_decimals_is_met_by_what_rounds_to_it() -> None:
    assert NumberChecker("66.67").check(ASKED, "66.66666").passed is True
    assert NumberChecker("-0.5").check(ASKED, "-0.45").passed is True
    assert NumberChecker("66.67").check(ASKED, "66.66").passed is False
    assert NumberChecker("67").check(ASKED, "66.6").passed is False


def test_a_reference_without_a_number_is_refused() -> None:
    with pytest.raises(UsageError, match="no number can be found"):
        NumberChecker("none")


@pytest.mark.corpus
def test_every_reference_of_gsm8k_is_read_exactly(corpus: Path) -> None:
    checked = 0
    for name in ("gsm8k_train.jsonl", "gsm8k_test_first660.jsonl"):
        for _, row in read_jsonl(corpus / "public" / name):
            expected = Fraction(Decimal(row["answer"].split("####")[1].strip().replace(",", "")))
            found = find_number(row["answer"])
            assert found is not None
            assert found[0] == expected
            checked += 1
    assert checked == 8133


@pytest.mark.corpus
def test_a_worked_solution_without_its_mark_still_gives_its_result_nearly_always(corpus: Path) -> None:
    right = 0
    for _, row in read_jsonl(corpus / "public" / "gsm8k_test_first660.jsonl"):
        body, _, result = row["answer"].partition("####")
        right += NumberChecker(result).check(ASKED, body).passed is True
    assert right >= 636  # the others end with another number: "15 liters of water out of the 24 liters"
