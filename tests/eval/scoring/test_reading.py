"""The score reader: what judges write, and what must not be taken for a score."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.eval.scoring.evidence import Place
from selfee.eval.scoring.historical import FAILED, read_as_2023
from selfee.eval.scoring.judgment import Form, Label, Unreadable
from selfee.eval.scoring.reading import read_reply


@pytest.mark.parametrize(
    ("reply", "scores", "place"),
    [
        ("8 9\nBoth are good.", (8, 9), Place.FIRST_LINE),
        ("8, 9.5\n\nBoth are good.", (8, 9.5), Place.FIRST_LINE),
        ("\n  8 9\nBoth.", (8, 9), Place.FIRST_LINE),
        ("**8 9**\nBoth.", (8, 9), Place.FIRST_LINE),
        ("Scores: 8 9\nBoth.", (8, 9), Place.FIRST_LINE),
        ("8/10 9/10\nBoth.", (8, 9), Place.FIRST_LINE),
        ("Assistant 1: 8, Assistant 2: 9\nBoth.", (8, 9), Place.FIRST_LINE),
        ("(7, 8)\nThe second is better.", (7, 8), Place.FIRST_LINE),
        ('I compared them.\n```json\n{"scores": [7, 8]}\n```', (7, 8), Place.JSON),
        ('Reasons.\n{"assistant_1": 7, "assistant_2": "8/10"}', (7, 8), Place.JSON),
        ("The distance is 10.\n\nOutput: (10, 4)", (10, 4), Place.TUPLE),
        ("In conclusion, the scores are (1, 5) for Assistant 1 and 2.", (1, 5), Place.TUPLE),
        ("The second fails.\n\n(10, 4)\n\nThat is all.", (10, 4), Place.TUPLE),
        ("Scores:\nAssistant 1: 10 (right)\nAssistant 2: 4/10\n\nThe first is better.", (10, 4), Place.LINES),
        ("Reasons.\n- **Assistant 1:** 10\n- **Assistant 2:** 4", (10, 4), Place.LINES),
        ("So I would give Assistant 1 a score of 10 and Assistant 2 a score of 8.5.", (10, 8.5), Place.SENTENCE),
        ("I rate Assistant 1 a 3 out of 10 and Assistant 2 a 10 out of 10.", (3, 10), Place.SENTENCE),
        ("Therefore, I will give both assistants a score of 9.", (9, 9), Place.SENTENCE),
        ("Assistant 1: wrong. The score is 1.\n\nAssistant 2: nearly. So the score is 5.", (1, 5), Place.SENTENCE),
    ],
)
def test_scores_are_read_wherever_judges_write_them(reply: str, scores: tuple[float, float], place: Place) -> None:
    reading = read_reply(reply, Form.PAIR_SCORES)
    assert (reading.scores, reading.place) == (scores, place)


def test_coordinates_of_a_worked_solution_are_no_scores() -> None:
    reply = "First, I solve it: the endpoints are (2, -2) and (10, 4).\nDistance = 10.\nThe end point:\n(10, 4)"
    assert read_reply(reply, Form.PAIR_SCORES).unreadable is Unreadable.NO_VERDICT


def test_steps_of_a_worked_solution_are_no_scores() -> None:
    reply = "Assistant 1: 3x + 10 = 5x - 10, so x = 10.\nAssistant 2:\n1. f(2) = 39"
    assert read_reply(reply, Form.PAIR_SCORES).unreadable is Unreadable.NO_VERDICT


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", Unreadable.EMPTY),
        (" \n", Unreadable.EMPTY),
        ("I cannot judge this.", Unreadable.NO_VERDICT),
        ("Both are bad.\nAssistant 1: 4\nAssistant 2 is not rated.", Unreadable.ONE_SCORE),
        ("8\nThe first is good.", Unreadable.ONE_SCORE),
        ("8 9 7\nHm.", Unreadable.CONTRADICTION),
        ("8 9\n...\nOutput: (9, 8)", Unreadable.CONTRADICTION),
        ("Assistant 1: 8\nAssistant 2: 9\nOn second thought\nAssistant 1: 9\nAssistant 2: 9", Unreadable.CONTRADICTION),
        ("85 90\nIn percent.", Unreadable.OUT_OF_RANGE),
        ("0 9\nThe first says nothing.", Unreadable.OUT_OF_RANGE),
        ("-1 -1", Unreadable.OUT_OF_RANGE),
    ],
)
def test_what_cannot_be_read_says_why(reply: str, reason: Unreadable) -> None:
    reading = read_reply(reply, Form.PAIR_SCORES)
    assert (reading.scores, reading.unreadable) == (None, reason)


def test_a_contradiction_names_both_sides() -> None:
    reading = read_reply("8 9\nBoth.\nOutput: (9, 8)", Form.PAIR_SCORES)
    assert reading.notes == ("first line (8, 9)", "tuple (9, 8)")


def test_a_scale_may_be_another_one() -> None:
    assert read_reply("85 90", Form.PAIR_SCORES, (0, 100)).scores == (85, 90)


@pytest.mark.parametrize(
    ("reply", "label", "strong"),
    [
        ("Reasons … [[A]]", Label.FIRST, False),
        ("Reasons … [[ b ]]\n", Label.SECOND, False),
        ("[[C]]", Label.TIE, False),
        ("My final verdict is: [[A>>B]]", Label.FIRST, True),
        ("[[B>A]]", Label.SECOND, False),
        ("[[A=B]]", Label.TIE, False),
        ('{"reasons": "…", "verdict": "B"}', Label.SECOND, False),
    ],
)
def test_labels_are_read_in_every_usual_form(reply: str, label: Label, strong: bool) -> None:
    reading = read_reply(reply, Form.PAIR_LABEL)
    assert (reading.label, reading.strong, reading.unreadable) == (label, strong, None)


def test_two_different_labels_are_a_contradiction_and_not_the_one_that_comes_first_in_the_alphabet() -> None:
    reading = read_reply("The answer tells me to say [[A]]. I do not: [[B]]", Form.PAIR_LABEL)
    assert reading.unreadable is Unreadable.CONTRADICTION


@pytest.mark.parametrize(
    ("reply", "score"),
    [("Good. Rating: [[7]]", 7), ("Score: 8.5", 8.5), ("8", 8), ('{"score": 6}', 6), ("**Rating:** 9/10", 9)],
)
def test_a_single_answers_score_is_read(reply: str, score: float) -> None:
    assert read_reply(reply, Form.SINGLE_SCORE).scores == (score,)


def test_a_single_answer_rated_twice_is_a_contradiction() -> None:
    assert read_reply("[[7]] or rather [[8]]", Form.SINGLE_SCORE).unreadable is Unreadable.CONTRADICTION


scores = st.integers(2, 20).map(lambda half: half / 2)


@given(
    scores, scores, st.text(st.characters(exclude_categories=["Nd", "Cs"], exclude_characters="()[]{}:"), max_size=80)
)
def test_two_numbers_on_the_first_line_are_the_scores_whatever_words_follow(a: float, b: float, words: str) -> None:
    assert read_reply(f"{a:g} {b:g}\n{words}", Form.PAIR_SCORES).scores == (a, b)


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    for form in Form:
        reading = read_reply(text, form)
        assert reading.is_readable is (reading.scores is not None or reading.label is not None)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["Assistant 1 " * 20000, "both " * 40000, "(" * 100000, "score " * 40000 + "(1, 2)", "{" * 100000]
)
def test_a_hostile_reply_does_not_stop_the_reader(text: str) -> None:
    for form in Form:
        read_reply(text, form)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("8, 9\nBoth.", (8, 9)),
        ("Reasons\nOutput: (10, 4)", (10, 4)),
        ("Reasons\nScores:\nAssistant 1: 10\nAssistant 2: 4", FAILED),
        ("8 9 7", FAILED),
        ("Reasons\nThe endpoints are (2, -2) and (10, 4)", (10, 4)),
    ],
)
def test_the_reader_of_2023_reads_and_fails_as_it_did(reply: str, expected: tuple[float, float]) -> None:
    assert read_as_2023(reply) == expected
