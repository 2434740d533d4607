"""A question keeps its id, and a file of samples gives back what was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.data.sample import (
    Sample,
    content_id,
    make_sample,
    read_samples,
    sample_from_json,
    sample_to_json,
    write_samples,
)
from selfee.errors import BadFileError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    return make_sample(
        draw(TEXTS),
        draw(TEXTS),
        draw(TEXTS),
        draw(TEXTS),
        reference=draw(st.none() | TEXTS),
        answer=draw(st.none() | TEXTS),
        origin=draw(TEXTS),
        extra=draw(st.dictionaries(TEXTS, st.integers() | TEXTS, max_size=2)),
    )


@given(samples())
def test_what_is_written_as_json_is_read_back_the_same(sample: Sample) -> None:
    assert sample_from_json(sample_to_json(sample)) == sample


@given(st.lists(samples(), max_size=4))
def test_a_file_gives_back_its_samples_in_order(
    tmp_path_factory: pytest.TempPathFactory, written: list[Sample]
) -> None:
    path = tmp_path_factory.mktemp("samples") / "samples.jsonl"
    write_samples(path, written)
    assert list(read_samples(path)) == written


@given(TEXTS, TEXTS)
def test_the_id_depends_on_where_the_instruction_ends(instruction: str, input: str) -> None:
    if input:
        assert content_id(instruction, input) != content_id(instruction + input, "")


def test_the_id_of_a_question_never_changes() -> None:
    assert content_id("Why is the sky blue?") == "8c4c8867093ef2ebd25a"
    assert make_sample("a", "train", "Why?").id == make_sample("b", "test", "Why?", reference="x").id


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"source": "alpaca"}, "no field 'instruction'"),
        ({"instruction": 3}, "'instruction' is a int; expected a text"),
        ({"instruction": "Why?", "extra": []}, "'extra' is a list; expected an object"),
        ({"instruction": "Why?", "id": content_id("How?")}, "that of another question"),
    ],
)
def test_a_bad_line_is_named_with_its_field(tmp_path: Path, row: dict[str, object], words: str) -> None:
    with pytest.raises(BadFileError, match=words) as caught:
        sample_from_json(row, "samples.jsonl:7")
    assert str(caught.value).startswith("samples.jsonl:7: ")
