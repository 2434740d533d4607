"""The Responses API: every section an item, the final answer the last, valid and the same streamed or not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from tests.serve.harness import CONTENT, FIRST, SECOND, TARGET, Running, data_rows, ok, refused, scripted, serving
from tests.serve.schema import valid

from selfee.engines.scripted import Reply

PATH = "/v1/responses"


def events_of(server: Running, **fields: Any) -> list[dict[str, Any]]:
    with server.client.stream("POST", PATH, json={"input": "Why?", "stream": True} | fields) as response:
        assert response.status_code == 200, response.read()
        return [json.loads(row) for row in data_rows(response.iter_lines())]


def without_ids(row: dict[str, Any]) -> dict[str, Any]:
    """A response without what differs from one to the next."""
    plain = json.loads(json.dumps(row))
    for item in plain["output"]:
        del item["id"]
    for segment in plain["selfee"]["chain"]:
        del segment["seconds"]
    return {name: value for name, value in plain.items() if name not in ("id", "created_at")}


def test_drafts_are_reasoning_and_the_answer_is_a_message(server: Running) -> None:
    row = ok(server.post(PATH, {"input": "Why?"}))
    response = valid(Response, row)
    assert response.output_text == SECOND
    assert [item["type"] for item in row["output"]] == ["reasoning"] * 4 + ["message"]
    assert row["output"][-1]["phase"] == "final_answer"
    assert [item["summary"][0]["text"] for item in row["output"][:-1]] == [
        "Answer",
        "Feedback 1 – revision needed",
        "Revision 1",
        "Feedback 2 – revision not needed",
    ]
    assert row["output"][0]["content"][0]["text"] == FIRST
    assert row["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


@pytest.mark.parametrize("options", [{}, {"mode": "off"}, {"items": "messages"}])
def test_every_event_is_valid_and_the_last_holds_what_is_not_streamed(server: Running, options: dict[str, Any]) -> None:
    events = events_of(server, selfee=options, seed=1)
    for event in events:
        valid(ResponseStreamEvent, event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.completed"
    whole = ok(server.post(PATH, {"input": "Why?", "selfee": options, "seed": 1}))
    assert without_ids(events[-1]["response"]) == without_ids(whole)
    for index, item in enumerate(events[-1]["response"]["output"]):
        own = [event for event in events if event.get("output_index") == index]
        assert own[0]["type"] == "response.output_item.added"
        assert own[-1]["type"] == "response.output_item.done"
        assert own[-1]["item"] == item
        deltas = "".join(event["delta"] for event in own if event["type"].endswith("delta"))
        assert deltas == item["content"][0]["text"]


def test_drafts_may_be_messages_of_another_phase(server: Running) -> None:
    row = ok(server.post(PATH, {"input": "Why?", "selfee": {"items": "messages"}}))
    assert [item["phase"] for item in row["output"]] == ["commentary"] * 4 + ["final_answer"]


def test_without_revisions_there_is_one_message(server: Running) -> None:
    row = ok(server.post(PATH, {"input": "Why?", "reasoning": {"effort": "none"}}))
    assert [item["type"] for item in row["output"]] == ["message"]
    assert valid(Response, row).output_text == FIRST


def test_a_conversation_with_instructions_and_earlier_reasoning() -> None:
    with serving() as server:
        items = [
            {"role": "user", "content": "One?"},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "SECRET"}],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "First."}]},
            {"role": "user", "content": [{"type": "input_text", "text": "Two?"}]},
        ]
        ok(server.post(PATH, {"input": items, "instructions": "Be brief."}))
        prompt = server.engine.requests[0].prompt
    assert prompt.startswith("Be brief.")
    assert "First." in prompt
    assert "SECRET" not in prompt


def test_a_budget_that_is_used_up_makes_the_response_incomplete(server: Running) -> None:
    row = ok(server.post(PATH, {"input": "Why?", "max_output_tokens": 2}))
    valid(Response, row)
    assert row["status"] == "incomplete"
    assert row["incomplete_details"] == {"reason": "max_output_tokens"}
    assert events_of(server, max_output_tokens=2)[-1]["type"] == "response.incomplete"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("conversation", "conv_1"),
        ("background", True),
        ("tools", [{"type": "web_search"}]),
        ("prompt", {"id": "x"}),
    ],
)
def test_what_needs_a_memory_is_refused(server: Running, field: str, value: Any) -> None:
    refused(server.post(PATH, {"input": "Why?", field: value}), 400, field)


def test_store_is_taken_and_told_to_have_no_effect(server: Running) -> None:
    response = server.post(PATH, {"input": "Why?", "store": True})
    assert ok(response)["store"] is False
    assert response.headers["x-selfee-ignored"] == "store"


@pytest.mark.parametrize(
    "value", [None, 5, [], [{"type": "function_call"}], [{"role": "wizard", "content": "x"}], [{"content": "x"}]]
)
def test_input_that_cannot_be_read_is_refused(server: Running, value: Any) -> None:
    response = server.post(PATH, {"input": value})
    refused(response, 400)
    assert response.json()["error"]["param"].startswith("input")


def test_a_failure_in_the_middle_is_an_event() -> None:
    with serving(scripted(Reply(TARGET, error="the engine broke", error_after=3))) as server:
        events = events_of(server)
    valid(ResponseStreamEvent, events[-1])
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["message"] == "script: the engine broke"


def test_an_overruled_feedback_says_so() -> None:
    target = f"{FIRST}\n\n### Feedback 1:\n{CONTENT}"
    with serving(scripted(target, f"{SECOND}\n\n### Feedback 2:\n{CONTENT}")) as server:
        row = ok(server.post(PATH, {"input": "Why?", "selfee": {"min_revisions": 1}}))
    titles = [item["summary"][0]["text"] for item in row["output"][:-1]]
    assert titles[1] == "Feedback 1 – revision not needed, but asked for"
