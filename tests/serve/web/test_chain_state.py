"""What the page makes of a chain's events is the chain: whatever was said, cut off, taken up again or told twice."""

from __future__ import annotations

from typing import Any

import pytest
from tests.serve.harness import serving
from tests.serve.web.javascript import call, needs_node
from tests.serve.web.site import CONTENT, CRITIC, FIRST, SECOND, story

pytestmark = needs_node

FOLD = """
  const chain = it.newChain({ messages: [{ role: "user", content: "q" }] });
  for (const event of a) it.applyEvent(chain, event);
  const told = chain.record;
  chain.record = null;
  const own = it.recordOf(chain);
  const segments = chain.segments.map(({ type, index, text, verdict, own, finished }) =>
    ({ type, index, text, verdict, own, finished }));
  return { told, own, segments, status: chain.status, final: it.deliveredOf(chain)?.text, cause: it.causeOf(chain) };
"""


def fold(*all_events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return call("chain.js", FOLD, all_events)


def essence(record: dict[str, Any]) -> list[Any]:
    return [
        (step["answer"], step["feedback"], step["verdict"] and (step["verdict"]["needed"], step["verdict"]["forced"]))
        for step in record["steps"]
    ]


@pytest.fixture(scope="module")
def chains() -> dict[str, list[dict[str, Any]]]:
    """Events of chains with different settings, as the server gives them."""
    with serving(story(0)) as server:
        return {
            "plain": server.events(),
            "enforced": server.events(min_revisions=2, max_revisions=3),
            "capped": server.events(max_revisions=0),
            "one": server.events(max_revisions=1, min_revisions=1),
        }


def test_a_record_made_of_events_is_the_one_that_the_server_made(chains: dict[str, list[dict[str, Any]]]) -> None:
    for name, state in zip(chains, fold(*chains.values()), strict=True):
        assert state["status"] == "completed", name
        assert essence(state["own"]) == essence(state["told"]), name
        assert state["final"] == chains[name][-1]["final"]


def test_events_told_twice_after_a_reconnection_count_once(chains: dict[str, list[dict[str, Any]]]) -> None:
    for events in chains.values():
        for cut in range(0, len(events), 7):
            once, twice = fold(events, events[:cut] + events[max(0, cut - 5) :])
            assert once == twice


def test_an_unfinished_section_is_no_part_of_a_record(chains: dict[str, list[dict[str, Any]]]) -> None:
    events = chains["plain"]
    half = next(
        n for n, event in enumerate(events) if event["type"] == "segment.started" and n > 0 and _index(event) == 1
    )
    (state,) = fold(events[: half + 3])
    assert essence(state["own"]) == [(FIRST, None, None)]
    assert state["segments"][-1]["finished"] is False


def _index(event: dict[str, Any]) -> int:
    return int(event["segment"]["index"])


def test_a_forced_revision_is_told_apart_from_one_that_the_model_wanted(
    chains: dict[str, list[dict[str, Any]]],
) -> None:
    (state,) = fold(chains["enforced"])
    verdicts = [segment["verdict"] for segment in state["segments"] if segment["type"] == "feedback"]
    assert verdicts[:2] == ["needed", "forced"]


def test_a_record_that_is_taken_up_again_shows_the_same_segments(chains: dict[str, list[dict[str, Any]]]) -> None:
    events = chains["plain"]
    (state,) = call("chain.js", "return it.segmentsOf(a)", [events[-1]["chain"]["steps"]])
    assert [(segment["type"], segment["text"]) for segment in state] == [
        ("answer", FIRST),
        ("feedback", CRITIC),
        ("revision", SECOND),
        ("feedback", CONTENT),
    ]


def test_the_oldest_conversations_go_first_and_the_latest_never() -> None:
    rows = [{"id": str(n), "updated": n, "size": 100} for n in range(10)]
    few, small, tiny = call(
        "history.js", "return it.tooMany(a[0], a[1], a[2])", [(rows, 4, 9999), (rows, 99, 350), (rows, 9, 1)]
    )
    assert few == ["5", "4", "3", "2", "1", "0"]
    assert small == ["6", "5", "4", "3", "2", "1", "0"]
    assert "9" not in tiny
    assert len(tiny) == 9
