"""The record of one judgment and its line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.errors import BadFileError, UsageError
from selfee.eval.scoring.judgment import Form, JudgeUsage, Judgment, Label, Shown, Unreadable

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
SHOWN = st.builds(
    Shown,
    NAMES,
    st.sampled_from(["", "ab"]),
    st.none() | st.integers(0, 9999),
    st.none() | st.integers(0, 99),
    st.none() | st.integers(0, 3),
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
USAGE = st.none() | st.builds(JudgeUsage, st.integers(0, 3), cost=st.none() | st.floats(0, 9))


@st.composite
def judgments(draw: st.DrawFn) -> Judgment:
    form = draw(st.sampled_from(Form))
    pair = form is not Form.SINGLE_SCORE
    result: dict[str, Any] = {"unreadable": draw(st.sampled_from(Unreadable))}
    if draw(st.booleans()):
        score = st.tuples(NUMBERS, NUMBERS) if pair else st.tuples(NUMBERS)
        result = {"scores": draw(score)} if draw(st.booleans()) else {"preference": draw(st.floats(0, 1))}
        if pair and draw(st.booleans()):
            result["label"] = draw(st.sampled_from(Label))
    return Judgment(
        form=form,
        question_id=draw(NAMES),
        first=draw(SHOWN),
        second=draw(SHOWN) if pair else None,
        judge=draw(NAMES),
        template=draw(NAMES),
        parameters=draw(st.dictionaries(NAMES, st.integers() | NAMES, max_size=2)),
        repeat=draw(st.integers(0, 2)),
        strong=draw(st.booleans()),
        notes=tuple(draw(st.lists(NAMES, max_size=2))),
        usage=draw(USAGE),
        **result,
    )


@given(judgments())
def test_a_line_read_back_is_the_same_judgment(judgment: Judgment) -> None:
    row = json.loads(json.dumps(judgment.as_row(), allow_nan=False))
    assert Judgment.from_row(row, "x:1") == judgment


def a_row(**changes: Any) -> dict[str, Any]:
    whole = Judgment(
        form=Form.PAIR_SCORES,
        question_id="1",
        first=Shown("a"),
        second=Shown("b"),
        judge="j",
        template="t",
        scores=(8.0, 9.0),
    ).as_row()
    return {name: value for name, value in (whole | changes).items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema": 2}, "schema 2"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"scores": [1]}, "1 scores; expected 2"),
        ({"scores": ["8", 9]}, "scores holds a str"),
        ({"scores": ...}, "expected scores or a label"),
        ({"unreadable": "empty"}, "not both"),
        ({"second": ...}, "expected 2 answers"),
        ({"form": "pair"}, "form is 'pair', not one of pair-scores"),
        ({"first": {"nom": "a"}}, "first has an unknown field 'nom'"),
        ({"first": {}}, "name"),
        ({"question_id": 1}, "question_id is a int"),
        ({"label": "A"}, "label is 'A'"),
        ({"parameters": []}, "parameters is a list"),
        ({"preference": 2}, "preference 2.0; expected 0 to 1"),
    ],
)
def test_a_damaged_line_is_refused_with_the_field(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadFileError, match=r"x:1: ") as caught:
        Judgment.from_row(a_row(**changes), "x:1")
    assert told in str(caught.value)


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="not finite"):
        Judgment(
            form=Form.SINGLE_SCORE,
            question_id="1",
            first=Shown("a"),
            judge="j",
            template="t",
            scores=(float("nan"),),
        )


def test_the_label_outranks_scores_and_preference_when_naming_the_winner() -> None:
    def winner(**result: Any) -> Label | None:
        return Judgment.from_row(a_row(scores=...) | result, "x:1").winner

    assert winner(scores=[8, 9]) is Label.SECOND
    assert winner(scores=[8, 8]) is Label.TIE
    assert winner(preference=0.7) is Label.FIRST
    assert winner(scores=[8, 9], label="tie") is Label.TIE
    assert winner(unreadable="empty") is None


def test_identical_texts_are_known_by_their_hash_and_unknown_texts_are_not_identical() -> None:
    assert Judgment.from_row(
        a_row(first={"name": "a", "sha256": "x"}, second={"name": "b", "sha256": "x"}), "x"
    ).has_identical_texts
    assert not Judgment.from_row(a_row(), "x").has_identical_texts
