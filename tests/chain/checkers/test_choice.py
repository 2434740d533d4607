"""The letter that an answer chooses is found, and the article "A" is no choice."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfee.chain.checkers import ChoiceChecker
from selfee.chain.types import Instruction
from selfee.errors import UsageError
from selfee.jsonl import read_jsonl

OPTIONS = ["A)32400", "B)6000", "C)600", "D)60000", "E)10"]
ASKED = Instruction("How fast?")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        ("**C**", "C"),
        ("(C)", "C"),
        ("C) 600", "C"),
        ("Answer: C", "C"),
        ("The correct answer is option C.", "C"),
        ("The answer is (C), since A is too fast.", "C"),
        ("So \\boxed{C}", "C"),
        ("\\boxed{\\text{(C)}}", "C"),
        ("It cannot be (A). Therefore it must be (C).", "C"),
        ("The correct option is C) 600", "C"),
        ("A train goes 10 miles each minute, so the speed is 600.", "C"),
        ("A bird flies. The answer is 6000.", "B"),
        ("I do not know.", None),
        ("A train leaves.", None),
        ("The answer is a mystery.", None),
    ],
)
def test_a_choice_is_found_however_it_is_written(text: str, letter: str | None) -> None:
    assert ChoiceChecker("C", OPTIONS).chosen(text) == letter


def test_the_right_letter_passes_and_another_does_not() -> None:
    checker = ChoiceChecker("C", OPTIONS)
    assert checker.check(ASKED, "The answer is C.").passed is True
    assert checker.check(ASKED, "The answer is B.").reason == "found B; expected C"
    assert checker.check(ASKED, "None.").passed is False


def test_a_reference_that_is_no_option_is_refused() -> None:
    with pytest.raises(UsageError, match="none of A, B, C, D, E"):
        ChoiceChecker("F", OPTIONS)
    with pytest.raises(UsageError, match="has no letter"):
        ChoiceChecker("A", ["first"])


@pytest.mark.corpus
def test_rationales_of_aqua_that_name_their_letter_are_read_right(corpus: Path) -> None:
    named = right = 0
    for _, row in read_jsonl(corpus / "public" / "aqua_dev.jsonl"):
        checker = ChoiceChecker(row["correct"], row["options"])
        assert checker.check(ASKED, f"The answer is ({row['correct']}).").passed is True
        if any(sign in row["rationale"].lower() for sign in ("answer", "option", "ans:")):
            named += 1
            right += checker.check(ASKED, row["rationale"]).passed is True
    assert named > 100
    assert right / named > 0.9
