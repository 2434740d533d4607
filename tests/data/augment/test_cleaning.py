"""Proves src/selfee/data/augment: sentences, cleaning, leaks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.data.augment.cleaning import clean, is_refusal, restore
from selfee.data.augment.leaks import find_leaks, mask
from selfee.data.augment.sentences import sentence_spans

WORDS = st.lists(
    st.sampled_from(
        [
            "I apologize for the mistake.",
            "My apologies!",
            "Here is the revised answer:",
            "Revision:",
            "It costs 3.5 dollars.",
            "This revision addresses the feedback.",
            "\n\n",
            " ",
            "```python\nx = 1.5  # sorry for that\n```\n",
            "e.g. this one.",
            "The revision of 1848 was needed.",
        ]
    ),
    max_size=8,
).map("".join)


@given(WORDS | st.text())
def test_every_edit_can_be_undone(text: str) -> None:
    cleaned, edits = clean(text)
    assert restore(cleaned, edits) == text
    assert not text.strip() or cleaned.strip()


@given(WORDS | st.text())
def test_sentences_cover_everything_but_white_space_in_order(text: str) -> None:
    spans = sentence_spans(text)
    assert all(start < end for start, end in spans)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It costs 3.5 dollars, e.g. for bread. Yes!", ["It costs 3.5 dollars, e.g. for bread.", "Yes!"]),
        ("Dr. No came. He left?", ["Dr. No came.", "He left?"]),
        ("1. First\n2. Second", ["1. First", "2. Second"]),
        ("Use this:\n```\na. b. c\n\nd\n```\nDone.", ["Use this:", "```\na. b. c\n\nd\n```", "Done."]),
    ],
)
def test_numbers_abbreviations_and_code_do_not_end_a_sentence(text: str, sentences: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("I apologize for the confusion. It is 3.5.", "It is 3.5."),
        ("I apologize that I wrote 3.5 before. It is 4.", "It is 4."),
        ("My apologies for the error! Here is the corrected code:\n\nx = 1", "x = 1"),
        ("Thank you for pointing that out. Sorry for the mistake. It is 4.", "It is 4."),
        ("Revision: It is 4.", "It is 4."),
        ("The revised answer is as follows:\n\nIt is 4.", "It is 4."),
        ("Certainly! Here's a revised version of the answer:\n\nIt is 4.", "It is 4."),
        ("Sure, I'd be happy to revise the answer. Here is the revised answer: \nIt is 4.", "It is 4."),
        ("Certainly! It is 4.", "Certainly! It is 4."),
        ("**Revised answer:** It is 4.", "It is 4."),
        ("It is 4. This revision addresses the feedback by being clear.", "It is 4."),
        # True sentences stay, whatever words they hold.
        ("The revision of the law was needed.", "The revision of the law was needed."),
        ("It is 4. Each revision of the draft corrects it.", "It is 4. Each revision of the draft corrects it."),
        ("I apologize.", "I apologize."),
    ],
)
def test_apologies_and_announcements_go_and_true_sentences_stay(text: str, cleaned: str) -> None:
    assert clean(text)[0] == cleaned


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("N/A", True),
        (" n/a. ", True),
        ("As an AI language model, I cannot give medical advice.", True),
        ("I'm sorry, but I can't help with that.", True),
        ("Unfortunately, I am unable to access the internet.", True),
        ("I'm sorry, this question is unclear.", True),
        ("I cannot stress this enough: drink water.", False),
        ("I am sorry for the confusion. The answer is 4.", False),
        ("An AI model cannot feel.", False),
        ("Write N/A where there is no value.", False),
        ("Use this:\n```\nraise SystemExit('I cannot help')\n```", False),
    ],
)
def test_a_refusal_is_told_from_an_answer(text: str, refuses: bool) -> None:
    assert is_refusal(text) is refuses


GSM = "Natalia sold 48/2 = 24 clips in May.\nNatalia sold 48+24 = 72 clips altogether.\n#### 72"
CODE = "def min_cost(cost, m, n):\n    return cost[m][n] + min(cost[m-1][n], cost[m][n-1])"


@pytest.mark.parametrize(
    ("feedback", "reference", "answer", "kinds"),
    [
        ("You should get 72 instead.", GSM, "It is 96.", ["final"]),
        ("Good, 72 is right.", GSM, "It is 72.", []),  # the answer said it itself
        ("Add both months. Score: 7/10", GSM, "It is 96.", []),
        ("Natalia sold 48/2 = 24 clips in May.", GSM, "It is 96.", ["line"]),
        (f"Write it so: {CODE}", CODE, "x", ["text"]),
        ("Use: return cost[m][n] + min(cost[m-1][n], cost[m][n-1])", CODE, "x", ["line"]),
        ("The loop is wrong. Score: 3/10. Revision is needed.", CODE, "x", []),
        ("The correct answer is different.", GSM, "It is 96.", ["talk"]),
        ("Compare with the ground truth.", "", "x", ["talk"]),
        ("There are 3 steps missing.", "#### 3", "It is 5.", []),  # a small number tells nothing by itself
        ("The answer should be 3.", "#### 3", "It is 5.", ["final"]),
        ("The answer is B.", "B", "I choose (C).", ["final"]),
        ("Option B needs a reason.", "B", "The answer is B.", []),
        ("A better reason is needed.", "A", "The answer is C.", []),
    ],
)
def test_leaks_are_found_where_the_answer_is_told_and_nowhere_else(
    feedback: str, reference: str, answer: str, kinds: list[str]
) -> None:
    assert [leak.kind for leak in find_leaks(feedback, reference, answer)] == kinds


def test_masking_takes_out_what_tells_and_nothing_else() -> None:
    feedback = "You should get 72 instead. The correct answer is near."
    leaks = find_leaks(feedback, GSM, "It is 96.")
    assert mask(feedback, leaks) == "You should get […] instead. The correct answer is near."


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_no_text_breaks_the_leak_check(feedback: str, reference: str, answer: str) -> None:
    for leak in find_leaks(feedback, reference, answer):
        assert feedback[leak.start : leak.start + len(leak.text)] == leak.text
