"""The page's reader of event streams agrees with the one that our own engines use, however the bytes are cut."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serve.web.javascript import call, needs_node

from selfee.engines.sse import SseParser

pytestmark = needs_node

LINES = st.sampled_from(
    ["data: a", "data:b", "data", "data: ", "id: 7", "event: x", ": note", "", "", "", "retry: 5", "data: é空", "wrong"]
)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\r"])), max_size=14).map(
    lambda lines: "".join(line + ending for line, ending in lines) + "\n\n"
)


@settings(max_examples=25)
@given(st.lists(st.tuples(STREAMS, st.integers(1, 7)), min_size=1, max_size=60))
def test_any_cut_gives_the_events_of_the_engines_parser(streams: list[tuple[str, int]]) -> None:
    body = """
      const parser = new it.EventParser();
      const events = [];
      for (let at = 0; at < a[0].length; at += a[1]) events.push(...parser.feed(a[0].slice(at, at + a[1])));
      return events.map((event) => event.data);
    """
    for (text, _), told in zip(streams, call("sse.js", body, streams), strict=True):
        parser = SseParser()
        expected = [*parser.feed(text.encode()), *parser.finish()]
        assert told == expected


def test_names_and_numbers_of_events_are_told() -> None:
    text = 'id: 4\nevent: segment.delta\ndata: {"a":1}\n\n: ping\n\nevent: ping\ndata: {}\n\ndata: x\n\n'
    events: list[Any] = call("sse.js", "return new it.EventParser().feed(a)", [text])
    assert events == [
        [
            {"event": "segment.delta", "id": "4", "data": '{"a":1}'},
            {"event": "ping", "id": "4", "data": "{}"},
            {"event": "message", "id": "4", "data": "x"},
        ]
    ]
