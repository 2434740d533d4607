"""Stop strings never leak, and the answer never depends on how the text was cut."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from selfee.engines.base import TokenLogprob
from selfee.engines.stops import LogprobQueue, StopFilter


def run(pieces: Sequence[str], stops: Sequence[str]) -> tuple[list[str], str | None]:
    filter_ = StopFilter(stops)
    out = [filter_.feed(piece) for piece in pieces]
    return [*out, filter_.finish()], filter_.matched


def cut_by_definition(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """The first end of any stop string; of two ending together the longer: the slow twin."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


small = st.text(alphabet="abA\n", max_size=30)
stops = st.lists(st.text(alphabet="abA\n", min_size=1, max_size=5), max_size=4)


@given(st.lists(small, max_size=12), stops)
def test_any_cutting_gives_what_the_definition_gives(pieces: list[str], stops: list[str]) -> None:
    out, matched = run(pieces, stops)
    assert ("".join(out), matched) == cut_by_definition("".join(pieces), stops)


@given(small, stops)
def test_a_character_is_passed_on_as_soon_as_no_stop_string_can_begin_there(text: str, stops: list[str]) -> None:
    filter_ = StopFilter(stops)
    seen = ""
    for index, char in enumerate(text, start=1):
        seen += filter_.feed(char)
        if filter_.matched is None:
            tails = [k for stop in stops for k in range(len(stop)) if text[:index].endswith(stop[:k])]
            assert len(seen) == index - max(tails, default=0)
            assert filter_.emitted == len(seen)


def test_a_stop_string_across_three_chunks_never_shows() -> None:
    assert run(["Hello #", "##", " Feed", "back: x"], ["### Feedback"]) == (["Hello ", "", "", "", ""], "### Feedback")


def test_an_almost_stop_string_is_delivered_in_the_end() -> None:
    assert run(["Hello ##", "#"], ["### Feedback"]) == (["Hello ", "", "###"], None)


def test_an_overlapping_beginning_is_followed() -> None:
    assert run(["a", "a", "a", "b"], ["aab"]) == (["", "", "a", "", ""], "aab")


def test_a_very_long_stop_string_takes_linear_time() -> None:
    stop = "a" * 200_000 + "b"
    assert run(["a" * 1000, "c"], [stop]) == (["", "a" * 1000 + "c", ""], None)


def test_a_log_probability_waits_for_its_text() -> None:
    queue = LogprobQueue()
    first, second = TokenLogprob(1, "ab", -1.0), TokenLogprob(2, "cd", -2.0)
    queue.add(0, first)
    queue.add(2, second)
    assert queue.take(0) == ()
    assert queue.take(2) == (first,)
    assert queue.take(3) == (second,)
    assert queue.take(9) == ()
