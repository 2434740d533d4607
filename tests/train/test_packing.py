"""Packing: every example once, none split, none seen by its neighbour."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.train.chains import some_chains, tiny_tokenizer

from selfee.train.dataset import Example, Weights, encode_lesson
from selfee.train.lessons import Objective, Part, lessons_of
from selfee.train.packing import PARTS, attention_mask, collate, pack


def some_examples(count: int = 6) -> list[Example]:
    return [
        encode_lesson(lesson, tiny_tokenizer("bpe"), Weights(flawed=0.5), 2048)
        for chain in some_chains(count)
        for lesson in lessons_of(chain, Objective.FULL)
    ]


@given(lengths=st.lists(st.integers(1, 50), max_size=60))
def test_packing_puts_every_example_into_one_row_and_overfills_none(lengths: list[int]) -> None:
    rows = pack(lengths, 50)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in row) <= 50 for row in rows)
    filled = sorted(sum(lengths[index] for index in row) for row in rows)
    assert len(filled) < 2 or filled[0] + filled[1] > 50  # no two rows could have been one


def test_a_packed_row_keeps_ids_weights_and_sections_and_counts_positions_anew() -> None:
    first, second, third = some_examples(3)
    batch = collate([[first, second], [third]], padding=7)
    cut = len(first.ids)
    assert batch.ids_BT[0, :cut].tolist() == list(first.ids)
    assert batch.ids_BT[0, cut : cut + len(second.ids)].tolist() == list(second.ids)
    assert batch.weights_BT[0, cut : cut + len(second.ids)].tolist() == second.weights
    assert batch.positions_BT[0, cut] == 0
    assert batch.segments_BT[0, cut - 1 : cut + 1].tolist() == [1, 2]
    assert batch.tokens == sum(len(example.ids) for example in (first, second, third))
    assert (batch.ids_BT[1, len(third.ids) :] == 7).all()
    assert (batch.weights_BT[1, len(third.ids) :] == 0).all()
    assert PARTS[batch.parts_BT[0, cut - 1]] is first.spans[-1].part
    assert PARTS[batch.parts_BT[0, cut]] is Part.PROMPT
    assert batch.is_packed
    assert not collate([[first], [second]], padding=7).is_packed


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_the_mask_is_causal_within_each_example_and_blind_across(lengths: list[int]) -> None:
    segments = np.array([[number for number, length in enumerate(lengths, 1) for _ in range(length)] + [0]])
    mask = attention_mask(segments)[0, 0]
    for row in range(len(mask)):
        seen = [column for column in range(len(mask)) if segments[0, column] == segments[0, row] and column <= row]
        assert np.flatnonzero(mask[row]).tolist() == seen
        assert seen  # a row that sees nothing would be undefined
