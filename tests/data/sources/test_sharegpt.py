"""Shared conversations: the first question and answer, of the right people, in English, with their code."""

from __future__ import annotations

from typing import Any

import pytest

from selfee.data.files import Row
from selfee.data.sources import SOURCES, Question, RefusedError, SourceSettings
from selfee.data.sources.base import QuestionRule

QUESTION = "How do I sort a list of words in Python by their length?"
ANSWER = "Use the key argument of the built-in function sorted, which takes a function of one word."


def talk(*turns: tuple[str, str], **fields: Any) -> dict[str, Any]:
    return {"id": "abc", "conversations": [{"from": who, "value": text} for who, text in turns]} | fields


def parse(row: dict[str, Any], rule: QuestionRule = QuestionRule.ANSWER) -> Question:
    return SOURCES["sharegpt"].parse(Row("sg.json:1", row), SourceSettings(question_rule=rule))


def refusal(row: dict[str, Any], rule: QuestionRule = QuestionRule.ANSWER) -> str:
    with pytest.raises(RefusedError) as caught:
        parse(row, rule)
    return caught.value.reason


def test_the_first_pair_is_taken_and_the_answer_kept_as_an_answer_not_as_a_reference() -> None:
    found = parse(talk(("human", QUESTION), ("gpt", ANSWER), ("human", "Thanks"), ("gpt", "Welcome")))
    assert found == Question(QUESTION, answer=ANSWER, extra={"conversation": "abc"})


def test_other_names_for_the_two_people_are_known() -> None:
    row = {"id": "x", "items": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]}
    assert parse(row).answer == ANSWER
    assert parse(talk(("system", "Be brief."), ("human", QUESTION), ("chatgpt", ANSWER))).instruction == QUESTION


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (talk(), "no conversation"),
        ({"id": "x"}, "field missing"),
        (talk(("gpt", ANSWER), ("human", QUESTION)), "begins with the assistant"),
        (talk(("human", QUESTION), ("human", QUESTION)), "no answer follows"),
        (talk(("human", QUESTION)), "no answer follows"),
        (talk(("narrator", QUESTION), ("gpt", ANSWER)), "unknown role"),
        (talk(("human", " "), ("gpt", ANSWER)), "empty question"),
        (talk(("human", QUESTION), ("gpt", "\n")), "empty answer"),
        (talk(("human", QUESTION), ("gpt", ANSWER), id="abc_13"), "later part of a conversation"),
        (talk(("human", QUESTION), ("gpt", "<div><p></p></div>")), "nothing but markup"),
        (
            talk(("human", "Was ist der Unterschied zwischen Python und Java?"), ("gpt", ANSWER)),
            "question not in English",
        ),
        (talk(("human", QUESTION), ("gpt", "Utilisez la fonction sorted avec un argument.")), "answer not in English"),
        (talk(("human", QUESTION), ("gpt", "Sure. Which words do you have?")), "answer ends in a question"),
    ],
)
def test_what_is_no_question_with_its_answer_is_refused(row: dict[str, Any], reason: str) -> None:
    assert refusal(row) == reason


def test_the_question_rule_can_be_chosen() -> None:
    asking, telling = (
        talk(("human", QUESTION), ("gpt", "Which *words*?**")),
        talk(("human", "Sort it."), ("gpt", ANSWER)),
    )
    assert refusal(asking) == "answer ends in a question"
    assert parse(asking, QuestionRule.NONE).answer == "Which *words*?**"
    assert parse(telling).instruction == "Sort it."
    assert refusal(telling, QuestionRule.QUERY) == "user asks nothing"
    assert parse(talk(("human", QUESTION), ("gpt", ANSWER), id="abc_0")).instruction == QUESTION
