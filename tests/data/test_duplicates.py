"""The same question is found again, also nearly the same; a different one is not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.data.duplicates import Duplicate, Duplicates, same_words, word_groups
from selfee.errors import UsageError

WORDS = [
    f"{a}{b}" for a in ("ba", "ko", "mi", "ta", "ru", "se") for b in ("lon", "mer", "nis", "pat", "vor", "gul", "dex")
]


def sentence(rng: random.Random, count: int) -> list[str]:
    return [rng.choice(WORDS) for _ in range(count)]


def jaccard(one: str, other: str) -> float:
    first, second = set(word_groups(one)), set(word_groups(other))
    return len(first & second) / len(first | second)


@given(st.text(max_size=60))
def test_a_question_repeats_itself(text: str) -> None:
    seen = Duplicates()
    assert seen.add("a", text) is None
    assert seen.add("b", text) == Duplicate("a", is_near=False)


def test_case_space_and_the_punctuation_of_sentences_make_no_difference() -> None:
    seen = Duplicates()
    seen.add("a", "Why is the sky blue?")
    assert seen.add("b", " why is  the sky\nblue") == Duplicate("a", is_near=False)
    assert seen.add("c", '"Why" is the sky blue ...') == Duplicate("a", is_near=False)


@pytest.mark.parametrize(
    ("one", "other"),
    [("What is 3+5?", "What is 3-5?"), ("Solve 2x = 4.", "Solve 2x > 4."), ("What is 1.5?", "What is 15?"), ("?", "!")],
)
def test_signs_that_mean_something_make_another_question(one: str, other: str) -> None:
    assert same_words(one) != same_words(other)


def test_near_duplicates_are_found_where_their_groups_overlap_and_only_there() -> None:
    rng = random.Random(1)
    found = {True: 0, False: 0}
    total = {True: 0, False: 0}
    for _ in range(400):
        words = sentence(rng, 60)
        changed = list(words)
        for place in rng.sample(range(60), rng.choice([1, 12])):
            changed[place] = rng.choice(WORDS)
        one, other = " ".join(words), " ".join(changed)
        is_near = jaccard(one, other) >= 0.8
        seen = Duplicates(0.8)
        assert seen.add("a", one, near=True) is None
        total[is_near] += 1
        found[is_near] += seen.add("b", other, near=True) is not None
    assert min(total.values()) > 100
    assert found[True] > 0.97 * total[True]
    assert found[False] < 0.03 * total[False]


def test_the_closest_earlier_question_is_named() -> None:
    rng = random.Random(2)
    first = sentence(rng, 80)
    second = [*first[:-7], *sentence(rng, 7)]
    seen = Duplicates(0.85)
    seen.add("far", " ".join(sentence(rng, 80)), near=True)
    seen.add("first", " ".join(first), near=True)
    assert seen.add("second", " ".join([*second, "end"]), near=True) == Duplicate("first", is_near=True)


def test_short_questions_and_those_not_asked_for_are_never_near() -> None:
    seen = Duplicates(0.5)
    seen.add("a", "write a function to find the sum", near=True)
    assert seen.add("b", "write a function to find the product", near=True) is None
    long = " ".join(WORDS)
    seen.add("c", long, near=True)
    assert seen.add("d", long + " more") is None


def test_near_duplicates_of_a_dropped_question_are_those_of_the_kept_one() -> None:
    seen = Duplicates(0.8)
    text = " ".join(WORDS)
    seen.add("a", text, near=True)
    assert seen.add("b", text + " one", near=True) == Duplicate("a", is_near=True)
    assert seen.add("c", text + " one", near=True) == Duplicate("a", is_near=True)


@pytest.mark.parametrize("threshold", [0.4, 1.1])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match=r"expected 0\.5 to 1"):
        Duplicates(threshold)


def test_long_runs_of_punctuation_take_no_longer_than_other_text() -> None:
    assert same_words("_" * 200_000 + "x" + "." * 200_000 + "y") == "x" + "." * 200_000 + "y"
