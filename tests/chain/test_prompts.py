"""The words for turns: the historical ones literally, and nothing filled in twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from tests.chain.strategies import texts

from selfee.chain.prompts import PROMPT_SETS, Turn, fields_of, find_guided_prompt, find_prompts
from selfee.chain.types import Instruction
from selfee.errors import UsageError

CLASSIFY = (
    "Are there any comments or critiques for the above answer? If so, write one under 100 words. You may score the "
    "quality of the answer on the scale of 1-10 (1: no code/no sense; 10: perfect) Also, classify if revision is "
    'needed by responding "Revision is needed" or "Revision is not needed" at the end. Normally, score of less than 9 '
    "should be revised.\n\nCritique:"
)
NO_RHETORICS = (
    "Your revision should be simple and clear, so do not add any rhetorics such as apology for the past mistake."
)


def test_the_alpaca_prompts_are_the_published_ones() -> None:
    prompts = PROMPT_SETS["selfee-alpaca"]
    with_input = fields_of(Instruction("Add.", "1 2"), answer="3")
    alone = fields_of(Instruction("Why?"), answer="So.")
    assert prompts.critique[0].fill(with_input).content == f"Add.\n1 2\nHere is a proposed answer:\n3\n\n{CLASSIFY}"
    assert prompts.critique[0].fill(alone).content == f"Why?\nHere is a proposed answer:\nSo.\n\n{CLASSIFY}"
    revise = "Revise the answer based on your own critique within 500 words. " + NO_RHETORICS
    assert prompts.revise[0].text == f"{revise} Write as if the revised answer is the first try.\nRevision:"
    assert prompts.revise_later[0].text == f"{revise}\nRevision:"


def test_the_code_prompts_are_the_published_ones() -> None:
    prompts = PROMPT_SETS["selfee-code"]
    fields = fields_of(Instruction("Add."), answer="x", feedback="hm", reference="gold")
    assert [turn.fill(fields).content for turn in prompts.critique] == [
        "You are given a role as a teaching assistant. You are going to get an instruction and its corresponding "
        "answer. Your job is to make me find the answer by giving an appropriate feedback. If the proposed answer is "
        "different from the ground truth, that means there should be some revision. You should guide me by giving an "
        "instruction that helps me find the answer without directly mentioning it. You should not directly mention "
        "about the answer when giving a feedback, because that is a cheating.",
        "Here is the instruction:\nAdd.\n",
        "Here is the answer:\ngold\n",
        f"Here is my initial answer:\nx\n\n{CLASSIFY}",
    ]
    assert [turn.fill(fields).content for turn in prompts.critique_again] == [
        "x",
        f"Here is a revised proposed answer:\nx\n\n{CLASSIFY}",
    ]
    assert [turn.fill(fields).content for turn in prompts.revise] == [
        "hm",
        f"Revise the answer based on your own critique with minimal edits. {NO_RHETORICS} Write as if the revised "
        "answer is the first try.\nRevision:",
    ]
    roles = {turn.role for turn in (*prompts.answer, *prompts.critique, *prompts.critique_again, *prompts.revise)}
    assert roles == {"user"}


@given(texts(), texts())
def test_what_is_filled_in_is_never_filled_itself(answer: str, feedback: str) -> None:
    fields = fields_of(Instruction("Q"), answer=answer + "{feedback}", feedback=feedback + "{answer}")
    filled = Turn("user", "<{answer}|{feedback}|{unknown}>").fill(fields).content
    assert filled == f"<{answer}{{feedback}}|{feedback}{{answer}}|{{unknown}}>"


def test_prompts_are_found_by_name() -> None:
    assert all(find_prompts(name).name == name for name in PROMPT_SETS)
    assert find_guided_prompt("plain").examples == ()
    with pytest.raises(UsageError, match="standard, small, selfee-alpaca, selfee-code"):
        find_prompts("large")
    with pytest.raises(UsageError, match="example, plain"):
        find_guided_prompt("large")
