"""The text format, byte for byte as SelFee was trained."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chain.strategies import texts

from selfee.chain.format import (
    asks_for_more,
    header,
    is_header,
    may_become_header,
    read_prompt,
    render_prompt,
    render_steps,
    render_target,
    split_prompt,
)
from selfee.chain.parser import read_chain
from selfee.chain.types import Chain, ChainEnd, Instruction, Section, Step
from selfee.errors import UsageError

WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nAdd the numbers.\n\n### Answer:\n"
)
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n### Instruction:\nAdd the numbers.\n\n### Input:\n1 2\n\n"
    "### Answer:\n"
)


def test_both_forms_of_the_prompt_equal_the_published_literals() -> None:
    assert render_prompt(Instruction("Add the numbers.")) == WITHOUT_INPUT
    assert render_prompt(Instruction("Add the numbers.", "1 2")) == WITH_INPUT


def test_a_chain_is_written_with_the_published_headers() -> None:
    steps = (Step("A0", "F1 Revision is needed."), Step("A1", "F2 Revision is not needed."))
    assert render_steps(steps) == (
        "A0\n\n### Feedback 1:\nF1 Revision is needed.\n\n### Revision 1:\nA1\n\n### Feedback 2:\n"
        "F2 Revision is not needed."
    )


@given(texts(), texts())
def test_a_prompt_that_was_cut_off_a_whole_text_is_the_same_prompt(question: str, target: str) -> None:
    instruction = Instruction(question)
    prompt = render_prompt(instruction)
    assert split_prompt(prompt + target, instruction) == (prompt, target)
    assert render_prompt(read_prompt(prompt)) == prompt


@given(texts(), texts().filter(bool))
def test_the_instruction_read_from_a_prompt_gives_that_prompt(question: str, context: str) -> None:
    prompt = render_prompt(Instruction(question, context))
    assert render_prompt(read_prompt(prompt)) == prompt


def test_the_instruction_may_hold_headers_because_the_prompt_is_never_parsed() -> None:
    instruction = Instruction("Explain:\n\n### Answer:\nx\n\n### Feedback 1:\nRevision is not needed.")
    whole = render_prompt(instruction) + "It is a format."
    prompt, target = split_prompt(whole, instruction)
    assert target == "It is a format."
    assert read_prompt(prompt) == instruction
    assert read_chain(target, instruction).final == "It is a format."


def test_texts_that_are_no_prompt_are_refused() -> None:
    with pytest.raises(UsageError, match="Answer"):
        split_prompt("no prompt at all")
    with pytest.raises(UsageError, match="does not begin"):
        split_prompt(WITHOUT_INPUT, Instruction("Another question"))
    with pytest.raises(UsageError, match="not one"):
        read_prompt("### Instruction:\nhello\n### Response:\n")


@pytest.mark.parametrize(
    "line", ["### Revision 1:", "### Revision1:", "###Revision 1 :", "### Revision 1:  ", "### Revision 1:\r"]
)
def test_header_variants_are_tolerated(line: str) -> None:
    assert is_header(line, Section.REVISION, 1)


@pytest.mark.parametrize(
    "line",
    [
        "### Revision 2:",
        "### Revision 11:",
        "### Feedback 1:",
        "### Revision 1: with text",
        "### Revision 1",
        "#### Revision 1:",
        "## Revision 1:",
        " ### Revision 1:",
        "# Revision 1:",
        "### revision 1:",
        "### Revision 1:" + " " * 100,
    ],
)
def test_other_lines_are_text(line: str) -> None:
    assert not is_header(line, Section.REVISION, 1)


@given(st.integers(1, 120), st.sampled_from([Section.FEEDBACK, Section.REVISION]))
def test_every_beginning_of_a_header_may_become_one(number: int, section: Section) -> None:
    line = header(section, number).strip("\n")
    assert is_header(line, section, number)
    assert all(may_become_header(line[:end], section, number) for end in range(len(line) + 1))


@pytest.mark.parametrize(
    ("steps", "place"),
    [
        ([Step("Intro\n### Feedback 1:\nmore")], "answer 0: line 2"),
        ([Step("### Feedback1 :")], "answer 0: line 1"),
        ([Step("a", "b\n\n### Revision 1:")], "feedback 1: line 3"),
        ([Step("a", "b"), Step("c\n### Feedback 2:\nd")], "revision 1: line 2"),
    ],
)
def test_content_that_would_be_read_as_the_next_header_is_refused_with_its_place(steps: list[Step], place: str) -> None:
    with pytest.raises(UsageError, match=place):
        render_steps(steps)
    assert "###" in render_steps(steps, check=False)


def test_content_with_any_other_header_is_written_and_read_back() -> None:
    steps = (Step("### Step 1\n### Feedback 2:\n### Revision 1:", "### Feedback 1:\n### Revision 2:"),)
    chain = read_chain(render_steps(steps), Instruction("q"))
    assert [(step.answer, step.feedback) for step in chain.steps] == [(steps[0].answer, steps[0].feedback)]


def test_a_revision_without_feedback_before_it_cannot_be_written() -> None:
    with pytest.raises(UsageError, match="no feedback"):
        render_steps([Step("a"), Step("b")])


def test_a_target_that_ends_by_asking_for_a_revision_is_told_from_one_that_accepts() -> None:
    wanting = read_chain("A\n\n### Feedback 1:\nRevision is needed.", Instruction("q"))
    content = read_chain("A\n\n### Feedback 1:\nRevision is not needed.", Instruction("q"))
    assert asks_for_more(wanting)
    assert not asks_for_more(content)
    assert wanting.end is ChainEnd.CAPPED
    assert render_target(Chain(Instruction("q"), (), ChainEnd.ACCEPTED)) == ""
