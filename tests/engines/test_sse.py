"""Events come out the same however the bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.engines.sse import SseParser
from selfee.errors import EngineError

STREAM = (
    '\ufeffdata: {"a": "é🌍"}\r\n\r\n: heartbeat\n\nevent: x\ndata: one\ndata:two\r\rdata\n\nid: 1\n\n'
    "retry: 5\ndata:  padded\n\ndata: [DONE]"
).encode()
EVENTS = ['{"a": "é🌍"}', "one\ntwo", "", " padded", "[DONE]"]


def parse(*chunks: bytes) -> list[str]:
    parser = SseParser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events + list(parser.finish())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def test_a_stream_with_everything_in_it() -> None:
    assert parse(STREAM) == EVENTS


@given(st.lists(st.integers(0, 10_000), max_size=40))
def test_any_cutting_gives_the_same_events(places: list[int]) -> None:
    assert parse(*cut(STREAM, places)) == EVENTS


def test_byte_by_byte_gives_the_same_events() -> None:
    assert parse(*[bytes([byte]) for byte in STREAM]) == EVENTS


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=8))
def test_rubbish_never_crashes_and_never_depends_on_the_cutting(data: bytes, places: list[int]) -> None:
    assert parse(*cut(data, places)) == parse(data)


def test_broken_utf8_becomes_the_replacement_character() -> None:
    assert parse(b"data: a\xffb\n\n") == ["a\ufffdb"]


@pytest.mark.parametrize("flood", [b"data: " + b"x" * 200, b"data: xxxx\n" * 40])
def test_an_event_without_end_is_refused(flood: bytes) -> None:
    with pytest.raises(EngineError, match="exceeds 100 bytes"):
        list(SseParser(100).feed(flood))


def test_comments_without_end_cost_nothing() -> None:
    parser = SseParser(100)
    assert [event for _ in range(1000) for event in parser.feed(b": ping\n\n")] == []
