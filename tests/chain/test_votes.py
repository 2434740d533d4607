"""What an answer comes to, and which most attempts agree on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chain.strategies import texts

from selfee.chain.votes import (
    EXTRACTORS,
    boxed,
    by_pattern,
    count_votes,
    find_extractor,
    last_number,
    short_answer,
    whole_text,
)
from selfee.errors import UsageError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It is 42.", "42"),
        ("First 3, then 4", "4"),
        ("$1,234.50 in all", "1234.5"),
        ("1,234 and 12,34", "34"),
        ("x = -7", "-7"),
        ("x = \N{MINUS SIGN}7.0", "-7"),
        ("+5", "5"),
        ("0.50", "0.5"),
        ("1e3", "1000"),
        ("-0.0", "0"),
        ("no number", None),
        ("", None),
        ("9" * 1000, "9" * 1000),
        ("1e999", "1" + "0" * 999),
    ],
)
def test_the_last_number_is_written_the_one_way(text: str, number: str | None) -> None:
    assert last_number(text) == number


@given(st.integers(-(10**12), 10**12), st.integers(0, 3))
def test_one_number_in_all_its_spellings_is_one_answer(number: int, zeros: int) -> None:
    decimals = "." + "0" * zeros if zeros else ""
    assert last_number(f"so it is {number}{decimals}.") == last_number(f"{number:,}") == str(number)


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} or \boxed{ 2.0 }", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{unfinished", None),
        (r"\boxed{}", None),
        ("42", None),
    ],
)
def test_what_is_boxed_counts_with_its_own_braces(text: str, inner: str | None) -> None:
    assert boxed(text) == inner


def test_whole_texts_differ_in_words_only() -> None:
    assert whole_text("  The\n sky. ") == whole_text("the SKY") == "the sky"
    assert whole_text("(é !") == "é"
    assert whole_text(" .!? ") is None


def test_the_short_answer_is_what_is_boxed_or_the_last_number_or_the_text() -> None:
    assert short_answer(r"5 \boxed{6} 7") == "6"
    assert short_answer("5 or 7") == "7"
    assert short_answer("Yes.") == "yes"


def test_a_pattern_gives_its_first_group_or_the_whole_match() -> None:
    extract = find_extractor("/answer is (\\w+)|dunno/")
    assert extract("The answer is Blue!") == "blue"
    assert extract("Dunno, dunno") == "dunno"
    assert extract("none") is None
    assert extract.__name__ == "pattern answer is (\\w+)|dunno"
    with pytest.raises(UsageError, match="pattern"):
        by_pattern("(")


@pytest.mark.parametrize("name", ["numbers", "", "/", "//"])
def test_an_unknown_extractor_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="votes"):
        find_extractor(name)


@given(st.sampled_from(sorted(EXTRACTORS)), texts())
def test_whatever_an_answer_says_it_is_read_or_has_no_vote(name: str, text: str) -> None:
    found = find_extractor(name)(text)
    assert found is None or found


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=12))
def test_votes_count_every_attempt_once_and_most_come_first(answers: list[str | None]) -> None:
    votes = count_votes(answers)
    assert sorted(number for vote in votes for number in vote.attempts) == [
        number for number, answer in enumerate(answers) if answer is not None
    ]
    assert all(answers[number] == vote.answer for vote in votes for number in vote.attempts)
    keys = [(-len(vote.attempts), vote.attempts[0]) for vote in votes]
    assert keys == sorted(keys)
