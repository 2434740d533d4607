"""Which judgments are asked for: every pair in both orders, nothing twice, nothing missing without a word."""

from __future__ import annotations

import pytest
from tests.eval.biased_judge import INSTRUCTION as OBEYED

from selfee.errors import UsageError
from selfee.eval.answers import Answer, Turn
from selfee.eval.judging.controls import INSTRUCTION, KINDS, control_of, plan_controls
from selfee.eval.judging.items import Scope, pairs_between, pairs_of_rounds, plan_pairs, plan_singles
from selfee.eval.questions import Question

QUESTIONS = [Question(str(number), ("Why?", "Then?") if number == 2 else ("Why?",)) for number in range(3)]


def system(name: str, revision: int | None = None, ids: str = "012") -> list[Answer]:
    return [
        Answer(question.id, name, tuple(Turn(f"{name}{revision}{n}") for n in range(len(question.turns))), revision)
        for question in QUESTIONS
        if question.id in ids
    ]


SYSTEMS = {"a": system("a"), "b": system("b")}


def test_both_orders_of_every_turn_stand_beside_each_other() -> None:
    items = plan_pairs(QUESTIONS, SYSTEMS, [("a", "b")], Scope(repeats=2))
    told = [(item.question_id, item.first.name, item.repeat) for item in items]
    assert told[:4] == [("0", "a", 0), ("0", "b", 0), ("0", "a", 1), ("0", "b", 1)]
    assert len(told) == len(set(told)) == 4 * 2 * 2
    assert [item.question_id for item in items if item.turn] == ["2/2"] * 4


def test_one_order_alone_can_be_asked_for() -> None:
    assert {item.first.name for item in plan_pairs(QUESTIONS, SYSTEMS, [("a", "b")], Scope(swaps=False))} == {"a"}


def test_single_answers_are_judged_once_each() -> None:
    items = plan_singles(QUESTIONS, SYSTEMS, Scope())
    assert [(item.first.name, item.question_id) for item in items][:4] == [
        ("a", "0"),
        ("a", "1"),
        ("a", "2"),
        ("a", "2/2"),
    ]
    assert all(item.second is None for item in items)
    assert [len(item.shown()) for item in items] == [1] * 8


def test_a_question_that_one_has_not_answered_is_an_error_unless_it_is_allowed() -> None:
    systems = {"a": system("a"), "b": system("b", ids="02")}
    with pytest.raises(UsageError, match="b: has no answer to question '1'"):
        plan_pairs(QUESTIONS, systems, [("a", "b")], Scope())
    items = plan_pairs(QUESTIONS, systems, [("a", "b")], Scope(allow_missing=True))
    assert {item.question.id for item in items} == {"0", "2"}
    with pytest.raises(UsageError, match="no question that all"):
        plan_singles(QUESTIONS, {"c": []}, Scope(allow_missing=True))


def test_revisions_are_compared_with_the_one_before_or_with_the_first() -> None:
    systems = {f"m@{n}" if n is not None else "m": system("m", n) for n in (None, 10, 2, 0)}
    assert pairs_of_rounds(systems) == [("m@0", "m@2"), ("m@2", "m@10")]
    assert pairs_of_rounds(systems, "first") == [("m@0", "m@2"), ("m@0", "m@10")]
    with pytest.raises(UsageError, match="nothing to compare"):
        pairs_of_rounds({"m": system("m")})


def test_no_system_is_compared_with_itself() -> None:
    assert pairs_between({"a": [], "b": []}, {"b": []}) == [("a", "b")]
    with pytest.raises(UsageError, match="on both sides"):
        pairs_between({"a": []}, {"a": []})


def test_an_answer_with_more_turns_than_its_question_is_refused() -> None:
    answer = Answer("0", "a", (Turn("x"), Turn("y")))
    with pytest.raises(UsageError, match="answers 2 turns of question '0', which has 1"):
        plan_singles(QUESTIONS[:1], {"a": [answer]}, Scope())


def test_controls_change_the_last_turn_alone_and_are_systems_of_their_own() -> None:
    answer = system("a")[2]
    changed = {kind: control_of(answer, kind) for kind in KINDS}
    assert all(each.texts[0] == answer.texts[0] for each in changed.values())
    assert changed["same"].texts == answer.texts
    assert changed["same"].name == "a (control: same)"
    assert changed["padded"].texts[1].startswith(answer.texts[1])
    assert changed["instructed"].texts[1].endswith(INSTRUCTION)
    assert changed["empty"].texts[1] == "Sure."
    with pytest.raises(UsageError, match="'odd' is unknown"):
        control_of(answer, "odd")


def test_the_biased_judge_looks_for_the_instruction_that_the_control_gives() -> None:
    assert OBEYED == INSTRUCTION


def test_so_many_answers_are_judged_against_each_of_their_controls() -> None:
    items = plan_controls(QUESTIONS, system("a"), KINDS, 2, Scope())
    assert len(items) == 2 * 2 * len(KINDS)
    same = [item for item in items if "same" in item.first.name + (item.second.name if item.second else "")]
    assert all(one.sha256 == other.sha256 for one, other in (item.shown() for item in same))
