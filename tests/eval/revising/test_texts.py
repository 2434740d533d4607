"""Copying and editing are counted in words, as the usual tables define them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.eval.revising.texts import copied_share, edit_share, words_of

TEXTS = st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join)


def common(old: Sequence[str], new: Sequence[str]) -> int:
    """The definition of the longest common subsequence."""
    if not old or not new:
        return 0
    if old[-1] == new[-1]:
        return common(old[:-1], new[:-1]) + 1
    table = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i, one in enumerate(old):
        for j, other in enumerate(new):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def distance(old: Sequence[str], new: Sequence[str]) -> int:
    """The definition of Levenshtein's distance."""
    row = list(range(len(new) + 1))
    for i, one in enumerate(old, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(new, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != other))
    return row[-1]


@given(TEXTS, TEXTS)
def test_the_share_copied_is_the_longest_common_subsequence(before: str, after: str) -> None:
    new = words_of(after)
    expected = common(words_of(before), new) / len(new) if new else None
    assert copied_share(before, after) == expected


@given(TEXTS, TEXTS)
def test_the_share_edited_is_the_distance_over_the_longer_text(before: str, after: str) -> None:
    old, new = words_of(before), words_of(after)
    longest = max(len(old), len(new))
    assert edit_share(before, after) == (distance(old, new) / longest if longest else 0.0)


@given(TEXTS)
def test_a_text_copies_itself_whole(text: str) -> None:
    assert copied_share(text, text) in (1.0, None)
    assert edit_share(text, text) == 0.0


def test_words_and_marks_count_and_white_space_does_not() -> None:
    assert words_of("It's  5 km,\n not 6.") == ["It", "'", "s", "5", "km", ",", "not", "6", "."]
    assert copied_share("The sky is blue.", "The  sky is\nred.") == pytest.approx(4 / 5)
