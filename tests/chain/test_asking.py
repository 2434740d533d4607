"""Seeds, limits, margins and budgets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chain.strategies import cuts, texts

from selfee.chain.asking import Asked, Asker, Trimmer, derive_seed
from selfee.chain.budgets import HEADER_TOKENS, Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.chain.types import Section
from selfee.engines.base import Chunk, FinishReason, SamplingParams
from selfee.engines.scripted import ScriptedEngine
from selfee.errors import EngineError, UsageError


@given(st.data(), texts(), st.booleans(), st.booleans())
def test_a_trimmer_gives_the_stripped_text_however_it_is_cut(
    data: st.DataObject, text: str, start: bool, end: bool
) -> None:
    trimmer = Trimmer(start=start, end=end)
    trimmed = "".join(trimmer.feed(piece) for piece in data.draw(cuts(text)))
    expected = text.lstrip() if start else text
    assert trimmed == (expected.rstrip() if end else expected)


def test_derived_seeds_are_fixed_for_ever_and_the_first_is_the_chains_own() -> None:
    assert [derive_seed(7, index) for index in range(3)] == [7, 4149949613, 1435380607]  # printf 7/1 | b2sum -l 32
    assert len({derive_seed(seed, index) for seed in range(50) for index in range(50)}) > 2_400


def test_a_limit_is_lowered_to_what_the_context_window_leaves() -> None:
    asker = Asker(ScriptedEngine(context_length=10), SamplingParams(), seed=1)
    limits = []

    def open_stream(params: SamplingParams, limit: int) -> Iterator[Chunk]:
        limits.append(limit)
        yield Chunk("", FinishReason.END)

    assert asker.room("one two three") == 6
    assert asker.ask(open_stream, 100, "one two three").lowered
    assert not asker.ask(open_stream, 5, "one two three").lowered
    assert limits == [6, 5]


def test_an_engine_that_ends_without_a_reason_is_an_error() -> None:
    asked = Asked(iter([Chunk("a"), Chunk("b")]), 1, 10)
    with pytest.raises(EngineError, match="without a finish reason"):
        list(asked)


def test_nothing_is_read_after_the_finish_reason() -> None:
    asked = Asked(iter([Chunk("a", FinishReason.END), Chunk("b")]), 1, 10)
    assert [chunk.text for chunk in asked] == ["a"]
    assert asked.ending is FinishReason.END


def test_long_pieces_count_as_the_tokens_they_hold() -> None:
    counting, guessing = Asker(ScriptedEngine(), SamplingParams(), 1), Asker(object(), SamplingParams(), 1)
    assert counting.count("a") == guessing.count("a") == counting.count("") == 1
    assert counting.count("one two three four five") == 5
    assert guessing.count("x" * 40) == 10


def test_a_request_makes_room_for_all_sections_that_may_follow() -> None:
    budgets = Budgets(answer=100, feedback=10, revision=50)
    after = 10 + HEADER_TOKENS
    each_round = 60 + 2 * HEADER_TOKENS
    assert budgets.ahead(Section.ANSWER, 0, RevisionPolicy(0, 0)) == 100 + after
    assert budgets.ahead(Section.ANSWER, 0, RevisionPolicy(0, 2)) == 100 + 2 * each_round + after
    assert budgets.ahead(Section.FEEDBACK, 1, RevisionPolicy(0, 2)) == 10 + 2 * each_round
    assert budgets.ahead(Section.REVISION, 2, RevisionPolicy(0, 2)) == 50 + after
    assert budgets.ahead(Section.REVISION, 9, RevisionPolicy(0, None)) > 50 + after


@pytest.mark.parametrize("name", ["answer", "feedback", "revision"])
def test_a_budget_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        Budgets(**{name: 0})
