"""The native API: events that can be taken up again, and a chain that does as a person says."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from tests.serve.harness import (
    CONTENT,
    FIRST,
    QUESTION,
    SECOND,
    TARGET,
    Running,
    native_events,
    ok,
    refused,
    scripted,
    serving,
)

from selfee.chain.format import render_prompt
from selfee.chain.record import from_json
from selfee.chain.types import Instruction, Section, SectionEnd, SectionStart, Verdict, VerdictSource
from selfee.engines.scripted import Reply
from selfee.serve.config import Limits
from selfee.serve.native.telling import Teller

PATH = "/v1/selfee/chat"
THIRD = "The air scatters blue light most of all."
SLOW = 0.03


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events if event["type"] != "segment.delta"]


def segments(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event["segment"] for event in events if event["type"] == "segment.completed"]


def test_a_chain_is_told_from_its_beginning_to_its_end(server: Running) -> None:
    events = server.events()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert names(events) == [
        "chain.created",
        "chain.started",
        *["segment.started", "segment.completed"] * 4,
        "chain.completed",
    ]
    assert [segment["type"] for segment in segments(events)] == ["answer", "feedback", "revision", "feedback"]
    assert [segment["verdict"] for segment in segments(events)] == ["none", "needed", "none", "not_needed"]
    for segment in segments(events):
        deltas = [event["text"] for event in events if event.get("segment_id") == segment["id"]]
        assert "".join(deltas) == segment["text"]
    assert segments(events)[2]["words"] == {"added": 7, "removed": 4, "kept": 1}
    diff = segments(events)[2]["diff"]
    assert "".join(piece["text"] for piece in diff if piece["kind"] != "removed") == SECOND
    assert {piece["kind"] for piece in diff} <= {"kept", "added", "removed"}
    assert "".join(piece["text"] for piece in diff if piece["kind"] == "removed").split()
    assert [segment["diff"] for segment in segments(events) if segment["type"] != "revision"] == [None] * 3
    last = events[-1]
    assert (last["final"], last["delivered"], last["stop_cause"]) == (SECOND, 1, "autonomous")
    assert from_json(last["chain"]).final == SECOND


def test_a_verdict_that_was_measured_is_a_score() -> None:
    for probability, score in ((0.25, 0.75), (None, None)):
        verdict = Verdict(False, VerdictSource.CHOICE, probability=probability)
        teller = Teller()
        list(teller.tell(SectionStart(Section.FEEDBACK, 1)))
        ((_, told),) = teller.tell(SectionEnd(Section.FEEDBACK, 1, "Good.", True, verdict))
        assert told["segment"]["score"] == score


def test_how_sure_the_model_was_of_each_section_is_told_where_that_is_asked_for(tiny_server: Running) -> None:
    fields = {"temperature": 0, "mode": "single-pass", "max_revisions": 0, "total_tokens": 12}
    (told,) = segments(tiny_server.events(logprobs=True, **fields))
    prompt = render_prompt(Instruction(QUESTION["content"]))
    completion = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 0}
    tokens = ok(tiny_server.post("/v1/completions", completion))["choices"][0]["logprobs"]["token_logprobs"]
    assert len(tokens) == 12
    assert told["mean_logprob"] == pytest.approx(sum(tokens) / 12)
    (silent,) = segments(tiny_server.events(**fields))
    assert (silent["mean_logprob"], silent["text"]) == (None, told["text"])


def test_a_section_s_tokens_are_its_own_where_all_come_in_one_stream() -> None:
    replies = (Reply(TARGET, logprob=-0.25),)
    with serving(scripted(*replies)) as server:
        events = server.events(logprobs=True)
    assert [segment["mean_logprob"] for segment in segments(events)] == [-0.25] * 4
    steps = from_json(events[-1]["chain"]).steps
    assert [step.answer_cost.mean_logprob for step in steps if step.answer_cost] == [-0.25] * 2


def test_not_streamed_the_chain_comes_whole(server: Running) -> None:
    row = ok(server.post(PATH, {"messages": [QUESTION], "stream": False}))
    assert row["status"] == "completed"
    assert from_json(row["chain"]).final == SECOND


def test_r14_a_stream_that_broke_is_taken_up_where_it_broke_off(server: Running) -> None:
    whole = server.events()
    name = whole[0]["chain_id"]
    for after in (0, 1, 7, len(whole) - 1, len(whole)):
        again = server.client.get(f"{PATH}/{name}/events", params={"after": after})
        assert list(native_events(iter(again.text.splitlines()))) == whole[after:]
    by_header = server.client.get(f"{PATH}/{name}/events", headers={"last-event-id": "7"})
    assert list(native_events(iter(by_header.text.splitlines()))) == whole[7:]
    assert from_json(ok(server.client.get(f"{PATH}/{name}"))["chain"]).final == SECOND
    refused(server.client.get(f"{PATH}/{name}/events", params={"after": "x"}), 400, "after")


def test_r14_a_chain_goes_on_while_nobody_listens_for_a_while() -> None:
    with serving(scripted(delay=SLOW)) as server:
        began = list(itertools.islice(_listen(server), 6))
        name = began[0]["chain_id"]
        rest = server.client.get(f"{PATH}/{name}/events", params={"after": 6})
        events = began + list(native_events(iter(rest.text.splitlines())))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["final"] == SECOND
    assert segments(events)[0]["text"] == FIRST


def test_a_chain_that_nobody_listens_to_any_more_is_stopped() -> None:
    with serving(scripted(delay=0.2)) as server:
        name = next(iter(list(itertools.islice(_listen(server, grace_seconds=0), 4))))["chain_id"]
        server.wait_idle()
        row = ok(server.client.get(f"{PATH}/{name}"))
    assert row["status"] == "completed"
    assert row["chain"]["cut"] == "cancelled"


def test_only_its_owner_can_find_a_chain(server: Running) -> None:
    refused(server.client.get(f"{PATH}/chain_{'0' * 32}"), 404, code="chain_not_found")
    refused(server.post(f"{PATH}/chain_x/control", {"action": "stop"}), 404)
    assert server.client.get(PATH).status_code == 405  # there is no list


def test_stop_delivers_what_is_finished() -> None:
    with serving(scripted(delay=SLOW)) as server:
        events = _control_when(server, "revision", {"action": "stop"})
    assert events[-1]["type"] == "chain.completed"
    assert events[-1]["stop_cause"] == "cancelled"
    assert events[-1]["final"] == FIRST
    assert events[-1]["truncated"] is True


def test_accept_takes_the_last_finished_answer_or_the_one_named() -> None:
    with serving(scripted(delay=SLOW)) as server:
        events = _control_when(server, "feedback", {"action": "accept"})
        name = events[0]["chain_id"]
        assert (events[-1]["stop_cause"], events[-1]["final"]) == ("accepted", FIRST)
        assert events[-1]["truncated"] is False
        server.wait_idle()
        refused(server.post(f"{PATH}/{name}/control", {"action": "accept", "answer": 5}), 400, "answer")


def test_nothing_can_be_accepted_before_it_is_finished() -> None:
    with serving(scripted(delay=0.1)) as server:
        listening = _listen(server)
        name = next(listening)["chain_id"]
        for wish in ({"action": "accept"}, {"action": "feedback", "feedback": "shorter"}):
            refused(server.post(f"{PATH}/{name}/control", wish), 409)
        ok(server.post(f"{PATH}/{name}/control", {"action": "stop"}))
        assert list(listening)[-1]["stop_cause"] == "cancelled"


def test_one_more_revises_once_more_than_the_model_would() -> None:
    more = f"{THIRD}\n\n### Feedback 3:\n{CONTENT}"
    with serving(scripted(Reply(TARGET, delay=0.01), more)) as server:
        events = _control_when(server, "revision", {"action": "one_more"})
    assert events[-1]["final"] == THIRD
    assert "chain.continued" in names(events)
    assert events[-1]["enforced"] == 1
    assert [segment["index"] for segment in segments(events) if segment["type"] == "revision"] == [1, 2]


def test_an_ended_chain_goes_on_with_one_more_or_ones_own_feedback() -> None:
    more, again = (f"{text}\n\n### Feedback {number}:\n{CONTENT}" for number, text in ((3, THIRD), (4, "Shorter.")))
    with serving(scripted(TARGET, more, again)) as server:
        events = server.events()
        name = events[0]["chain_id"]
        ok(server.post(f"{PATH}/{name}/control", {"action": "one_more"}))
        events += _from(server, name, len(events))
        assert events[-1]["final"] == THIRD
        ok(server.post(f"{PATH}/{name}/control", {"action": "feedback", "feedback": "Shorter, please"}))
        events += _from(server, name, len(events))
        assert events[-1]["final"] == "Shorter."
        own = [segment for segment in segments(events) if segment["source"] == "user"]
        assert own[0]["text"].startswith("Shorter, please")
        assert "Shorter, please" in server.engine.requests[-1].prompt
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        refused(server.post(f"{PATH}/{name}/control", {"action": "stop"}), 409)
        refused(server.post(f"{PATH}/{name}/control", {"action": "feedback", "feedback": " "}), 400, "feedback")


def test_own_feedback_interrupts_what_is_being_written() -> None:
    after = f"{THIRD}\n\n### Feedback 2:\n{CONTENT}"
    with serving(scripted(Reply(TARGET, delay=SLOW), after)) as server:
        events = _control_when(server, "feedback", {"action": "feedback", "feedback": "Mention air."})
    assert events[-1]["final"] == THIRD
    continued = next(event for event in events if event["type"] == "chain.continued")
    assert (continued["action"], continued["from_answer"]) == ("feedback", 0)
    assert [step["answer"] for step in events[-1]["chain"]["steps"]] == [FIRST, THIRD]
    assert "Mention air." in events[-1]["chain"]["steps"][0]["feedback"]


def test_a_forgotten_chain_goes_on_from_its_record() -> None:
    more = f"{THIRD}\n\n### Feedback 3:\n{CONTENT}"
    with serving(scripted(TARGET, more, more)) as server:
        record = server.events()[-1]["chain"]
        events = server.events(messages=None, chain=record, action="one_more")
        assert events[-1]["final"] == THIRD
        assert len(events[0]["steps"]) == 2
        refused(server.post(PATH, {"chain": record}), 400, "action")
        refused(server.post(PATH, {"chain": {"x": 1}, "action": "one_more"}), 400, "chain")
        refused(server.post(PATH, {"chain": record, "action": "one_more", "messages": [QUESTION]}), 400, "messages")


def test_an_enforced_revision_is_told_as_overruled() -> None:
    target = f"{FIRST}\n\n### Feedback 1:\n{CONTENT}"
    with serving(scripted(target, f"{SECOND}\n\n### Feedback 2:\n{CONTENT}")) as server:
        events = server.events(min_revisions=1)
    overruled = next(event for event in events if event["type"] == "segment.overruled")
    assert overruled["verdict"] == "forced"
    assert overruled["segment_id"] == segments(events)[1]["id"]
    assert events[-1]["enforced"] == 1


def test_silence_is_filled_with_pings() -> None:
    with serving(scripted(Reply(TARGET, delay=0.6, chunks=400))) as server:
        text = server.client.post(PATH, json={"messages": [QUESTION]}).text
        chat = server.client.post("/v1/chat/completions", json={"messages": [QUESTION], "stream": True}).status_code
    assert "event: ping" in text
    assert chat in (200, 502)


def test_who_waits_is_told_the_place_in_line() -> None:
    with serving(scripted(delay=0.02), parallel=1) as server:
        first = threading.Thread(target=server.events)
        first.start()
        server.wait_running()
        events = server.events()
        first.join()
    assert {"type": "chain.queued", "position": 1}.items() <= events[1].items()
    assert events[-1]["final"] == SECOND


def test_an_engine_that_fails_ends_the_chain_with_an_error() -> None:
    with serving(scripted(Reply(TARGET, error="the engine broke", error_after=12))) as server:
        events = server.events()
        assert events[-1]["type"] == "error"
        assert events[-1]["error"]["message"] == "script: the engine broke"
        row = ok(server.client.get(f"{PATH}/{events[0]['chain_id']}"))
        assert row["status"] == "failed"
        assert row["chain"]["steps"][0]["answer"] == FIRST


def test_events_that_are_no_longer_kept_are_410() -> None:
    with serving(limits=Limits(event_bytes=2000)) as server:
        name = server.events()[0]["chain_id"]
        refused(server.client.get(f"{PATH}/{name}/events"), 410)


def _listen(server: Running, **fields: Any) -> Iterator[dict[str, Any]]:
    with (
        httpx2.Client(base_url=server.url, timeout=30, trust_env=False) as client,
        client.stream("POST", PATH, json={"messages": [QUESTION]} | fields) as response,
    ):
        yield from native_events(response.iter_lines())


def _from(server: Running, name: str, after: int) -> list[dict[str, Any]]:
    text = server.client.get(f"{PATH}/{name}/events", params={"after": after}).text
    return list(native_events(iter(text.splitlines())))


def _control_when(server: Running, kind: str, wish: dict[str, Any]) -> list[dict[str, Any]]:
    """All events of a chain that is told ``wish`` while its first section of this kind is written."""
    events: list[dict[str, Any]] = []
    for event in _listen(server):
        events.append(event)
        if event["type"] == "segment.started" and event["segment"]["type"] == kind and wish:
            ok(server.post(f"{PATH}/{event['chain_id']}/control", wish))
            wish = {}
    return events


@pytest.mark.parametrize("action", ["pause", "", 1, None])
def test_an_unknown_control_is_refused(server: Running, action: Any) -> None:
    name = server.events()[0]["chain_id"]
    refused(server.post(f"{PATH}/{name}/control", {"action": action}), 400, "action")
