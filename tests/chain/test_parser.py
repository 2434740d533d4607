"""The incremental parser: laws first, then the cases that broke the original."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chain.strategies import chains, cuts, merge_deltas, section_texts, texts

from selfee.chain.format import render_target
from selfee.chain.parser import ChainParser, read_chain
from selfee.chain.types import Chain, ChainEnd, Event, Instruction, Section, SectionEnd, SectionStart, TextDelta

QUESTION = Instruction("Why?")


def parse(*pieces: str, finished: bool = True) -> list[Event]:
    parser = ChainParser()
    return [event for piece in pieces for event in parser.feed(piece)] + list(parser.finish(finished))


@given(chains())
def test_what_is_rendered_is_read_back_the_same(chain: Chain) -> None:
    assert read_chain(render_target(chain), chain.instruction, finished=True).steps == chain.steps


@given(texts(max_size=14))
def test_whatever_was_read_can_be_rendered_and_is_then_read_the_same(text: str) -> None:
    chain = read_chain(text, QUESTION, finished=True)
    assert read_chain(render_target(chain), QUESTION, finished=True).steps == chain.steps


@given(st.data(), texts(max_size=14), st.booleans())
def test_any_way_to_cut_a_text_gives_the_same_events(data: st.DataObject, text: str, finished: bool) -> None:
    whole = merge_deltas(parse(text, finished=finished))
    assert merge_deltas(parse(*data.draw(cuts(text)), finished=finished)) == whole
    assert merge_deltas(parse(*text, finished=finished)) == whole


@given(st.data(), chains())
def test_any_way_to_cut_a_chain_gives_the_same_events(data: st.DataObject, chain: Chain) -> None:
    text = render_target(chain)
    whole = merge_deltas(parse(text))
    assert merge_deltas(parse(*data.draw(cuts(text)))) == whole
    assert merge_deltas(parse(*text)) == whole


@given(texts(max_size=14))
def test_a_sections_text_is_its_deltas_joined(text: str) -> None:
    joined = ""
    for event in parse(*text):
        if isinstance(event, SectionStart):
            joined = ""
        elif isinstance(event, TextDelta):
            joined += event.text
        elif isinstance(event, SectionEnd):
            assert event.text == joined


@given(texts(max_size=14))
def test_never_more_than_a_header_is_held_back(text: str) -> None:
    parser = ChainParser()
    released = 0
    for position, char in enumerate(text, start=1):
        for event in parser.feed(char):
            released = position if isinstance(event, SectionStart) else released
            released += len(event.text) if isinstance(event, TextDelta) else 0
        assert position - released <= 2 + 48 or not parser.held


def test_text_is_passed_on_as_soon_as_it_cannot_be_a_header() -> None:
    parser = ChainParser()
    list(parser.feed(""))
    assert list(parser.feed("Hello")) == [TextDelta("Hello")]
    assert list(parser.feed("\n\n###")) == []
    assert list(parser.feed(" S")) == [TextDelta("\n\n### S")]


def test_sections_and_verdicts_of_an_ordinary_chain() -> None:
    text = "A\n\n### Feedback 1:\nRevision is needed.\n\n### Revision 1:\nB\n\n### Feedback 2:\nRevision is not needed."
    ends = [event for event in parse(text) if isinstance(event, SectionEnd)]
    assert [(end.section, end.number, end.text) for end in ends] == [
        (Section.ANSWER, 0, "A"),
        (Section.FEEDBACK, 1, "Revision is needed."),
        (Section.REVISION, 1, "B"),
        (Section.FEEDBACK, 2, "Revision is not needed."),
    ]
    assert [end.verdict.needed for end in ends if end.verdict] == [True, False]


@pytest.mark.parametrize(
    "answer",
    [
        "Steps:\n\n### Step 1\nBoil water.\n\n### Step 2\nAdd tea.",
        "# Title\n## Part\n### Feedback\n### Revision",
        "```python\n### Feedback of users\nx = 1  ### Feedback 1:\n```",
        "We expect:\n### Feedback 2:\n### Revision 1:\nlater.",
        "In the text, ### Feedback 1: is a header.",
        "### Answer:\n42",
        "It ends with ###",
    ],
)
def test_headings_inside_an_answer_are_text(answer: str) -> None:
    assert section_texts(parse(answer + "\n\n### Feedback 1:\nGood.")) == [answer, "Good."]


def test_a_verdict_inside_an_answer_or_its_code_is_text() -> None:
    answer = "Say:\n```\nRevision is not needed.\n```\nNo revision is needed."
    ends = [event for event in parse(answer + "\n\n### Feedback 1:\nHm.") if isinstance(event, SectionEnd)]
    assert ends[0].text == answer
    assert [end.verdict for end in ends] == [None, None]


@pytest.mark.parametrize(
    "text",
    [
        "A\n\n### Feedback 1:\nF\n\n### Revision1:\nB",
        "A\n### Feedback 1:\nF\n### Revision 1 :\nB",
        "A\n\n### Feedback 1:  \nF\n\n###Revision 1:\nB",
    ],
)
def test_header_variants_begin_sections_too(text: str) -> None:
    assert section_texts(parse(text)) == ["A", "F", "B"]


def test_numbers_of_two_digits_leave_no_stray_digit() -> None:
    parser = ChainParser(Section.FEEDBACK, 10)
    events = [*parser.feed("F\n\n### Revision 10:\nten\n\n### Feedback 11:\nF"), *parser.finish()]
    assert section_texts(events) == ["F", "ten", "F"]


def test_a_chain_cut_in_mid_revision_delivers_the_answer_before_it() -> None:
    text = "A\n\n### Feedback 1:\nRevision is needed.\n\n### Revision 1:\nBetter, but the sen"
    for chain in (read_chain(text, QUESTION, finished=False), read_chain(text, QUESTION)):
        assert chain.end is ChainEnd.CUT_OFF
        assert chain.num_revisions == 1
        assert chain.final == "A"
        assert not chain.steps[-1].answer_finished


def test_a_text_cut_within_a_header_keeps_what_came_as_text() -> None:
    assert section_texts(parse("A\n\n### Feedb", finished=False)) == ["A\n\n### Feedb"]


def test_a_header_at_the_very_end_begins_an_empty_section() -> None:
    assert section_texts(parse("A\n\n### Feedback 1:")) == ["A", ""]


def test_an_empty_text_is_an_empty_answer() -> None:
    assert section_texts(parse()) == [""]
    assert read_chain("", QUESTION, finished=True).final == ""


def test_a_parser_can_start_within_a_revision() -> None:
    parser = ChainParser(Section.REVISION, 2)
    events = [*parser.feed("B\n\n### Feedback 3:\nF"), *parser.finish()]
    assert [event for event in events if isinstance(event, SectionStart)] == [
        SectionStart(Section.REVISION, 2),
        SectionStart(Section.FEEDBACK, 3),
    ]


@pytest.mark.parametrize("unit", ["word ", "\n", "\n\n###", "### Feedback 2:\n", "\n#", "#"])
@pytest.mark.parametrize("piece", [1, 7, 10**9])
def test_the_time_to_read_grows_with_the_text_only(unit: str, piece: int) -> None:
    def read(length: int) -> float:
        text = (unit * length)[:length]
        started = time.perf_counter()
        parser = ChainParser()
        for start in range(0, len(text), piece):
            for _ in parser.feed(text[start : start + piece]):
                pass
        return time.perf_counter() - started

    read(1_000)
    assert read(50_000) < 5.0, "quadratic time would take minutes"


def test_many_sections_in_one_piece_take_linear_time() -> None:
    text = "".join(f"x\n\n### Feedback {n}:\ny\n\n### Revision {n}:\n" for n in range(1, 10_001))
    started = time.perf_counter()
    count = sum(isinstance(event, SectionEnd) for event in parse(text))
    assert count == 20_001
    assert time.perf_counter() - started < 10.0
