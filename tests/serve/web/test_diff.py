"""The page's word diff: what it tells as removed and added leads from one text to the other, by the shortest way."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serve.web.javascript import call, needs_node

pytestmark = needs_node

WORDS = st.sampled_from(
    ["a", "b", "the", "sky", "is", "blue", ",", ".", " ", "  ", "\n", "\n\n", "don't", "空", "é", "🙂"]
)
TEXTS = st.lists(WORDS, max_size=24).map("".join) | st.text(max_size=30)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=60)


def texts(changes: list[dict[str, str]], kind: str) -> str:
    return "".join(change["text"] for change in changes if change["kind"] in ("same", kind))


def shortest(old: str, new: str) -> int:
    """Length of the longest common subsequence, by the table that defines it."""
    row = [0] * (len(new) + 1)
    for left in old:
        before, row = row, [0] * (len(new) + 1)
        for at, right in enumerate(new):
            row[at + 1] = before[at] + 1 if left == right else max(before[at + 1], row[at])
    return row[-1]


@settings(max_examples=15)
@given(PAIRS)
def test_what_stays_and_what_comes_and_goes_join_to_the_two_texts(pairs: list[tuple[str, str]]) -> None:
    for function in ("diffWords", "readableChanges"):
        for (old, new), changes in zip(pairs, call("diff.js", f"return it.{function}(a[0], a[1])", pairs), strict=True):
            assert texts(changes, "removed") == old
            assert texts(changes, "added") == new


@settings(max_examples=15)
@given(st.lists(st.tuples(st.text("abc", max_size=20), st.text("abc", max_size=20)), min_size=1, max_size=60))
def test_the_edit_script_is_a_shortest_one(pairs: list[tuple[str, str]]) -> None:
    scripts = call("diff.js", "return it.diff([...a[0]], [...a[1]])", pairs)
    for (old, new), script in zip(pairs, scripts, strict=True):
        assert sum(kind == "same" for kind, _ in script) == shortest(old, new)


@settings(max_examples=15)
@given(st.lists(TEXTS, min_size=1, max_size=60))
def test_words_join_to_the_text_and_a_text_equals_itself(all_texts: list[str]) -> None:
    assert ["".join(words) for words in call("diff.js", "return it.words(a)", all_texts)] == all_texts
    for text, changes in zip(all_texts, call("diff.js", "return it.diffWords(a, a)", all_texts), strict=True):
        assert changes == ([{"kind": "same", "text": text}] if text else [])


def test_texts_that_share_nothing_are_told_as_replaced_in_a_bounded_number_of_steps() -> None:
    old, new = " ".join(f"old{n}" for n in range(8000)), " ".join(f"new{n}" for n in range(8000))
    (changes,) = call("diff.js", "return it.diffWords(a[0], a[1])", [(old, new)])
    assert texts(changes, "removed") == old
    assert texts(changes, "added") == new


def test_signs_and_blanks_are_no_words_to_count() -> None:
    counts: list[Any] = call(
        "diff.js",
        "return it.countWords(it.diffWords(a[0], a[1]))",
        [("The sky, is blue.", "The sky is very blue!"), ("", "one two"), ("gone", ""), ("same", "same")],
    )
    assert counts == [
        {"added": 1, "removed": 0, "kept": 4},
        {"added": 2, "removed": 0, "kept": 0},
        {"added": 0, "removed": 1, "kept": 0},
        {"added": 0, "removed": 0, "kept": 1},
    ]


def test_a_word_left_over_in_a_rewritten_passage_is_told_with_the_passage() -> None:
    old, new = (
        "Water is blue and the reflects on all of it",
        "Molecules scatter short waves the more strongly than long",
    )
    (changes,) = call("diff.js", "return it.readableChanges(a[0], a[1])", [(old, new)])
    assert [change["kind"] for change in changes] == ["removed", "added"]
