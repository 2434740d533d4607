"""Chat completions: one block of reasoning, one answer, valid for every client."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.serve.harness import CONTENT, CRITICAL, FIRST, SECOND, TARGET, Running, refused, scripted, serving
from tests.serve.schema import valid

from selfee.engines.scripted import Reply


def joined(chunks: list[dict[str, Any]], field: str, index: int = 0) -> str:
    """A field of all deltas of one choice."""
    return "".join(
        choice["delta"].get(field) or "" for chunk in chunks for choice in chunk["choices"] if choice["index"] == index
    )


def test_the_answer_is_the_last_revision_and_the_chain_is_reasoning(server: Running) -> None:
    row = server.chat()
    valid(ChatCompletion, row)
    message = row["choices"][0]["message"]
    assert message["content"] == SECOND
    assert message["reasoning"] == message["reasoning_content"]
    for text in (FIRST, CRITICAL, SECOND, CONTENT, "**Feedback 1**", "→ revision needed", "→ revision not needed"):
        assert text in message["reasoning"]
    assert [each["type"] for each in message["selfee"]["chain"]] == ["answer", "feedback", "revision", "feedback"]
    assert message["selfee"]["stop_cause"] == "autonomous"
    assert row["choices"][0]["finish_reason"] == "stop"


def test_every_chunk_is_valid_and_together_they_are_the_whole_answer(server: Running) -> None:
    chunks = server.chunks(stream_options={"include_usage": True}, seed=1)
    for chunk in chunks:
        valid(ChatCompletionChunk, chunk)
    whole = server.chat(seed=1)["choices"][0]["message"]
    assert joined(chunks, "content") == whole["content"]
    assert joined(chunks, "reasoning_content") == whole["reasoning_content"]
    assert joined(chunks, "reasoning") == whole["reasoning"]
    *inner, last, usage = chunks
    assert [choice["finish_reason"] for chunk in inner for choice in chunk["choices"]] == [None] * len(inner)
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    roles = [choice["delta"].get("role") for chunk in chunks for choice in chunk["choices"]]
    assert roles[0] == "assistant"
    assert not any(roles[1:])


def test_reasoning_comes_before_the_content_and_never_after(server: Running) -> None:
    kinds = [
        "content" if choice["delta"].get("content") else "reasoning"
        for chunk in server.chunks()
        for choice in chunk["choices"]
        if choice["delta"].get("content") or choice["delta"].get("reasoning")
    ]
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) == {"content", "reasoning"}


def test_usage_is_told_only_where_it_is_asked_for(server: Running) -> None:
    assert all("usage" not in chunk and chunk["choices"] for chunk in server.chunks())


def test_chunks_say_where_in_the_chain_they_belong(server: Running) -> None:
    marks = [chunk["selfee"] for chunk in server.chunks() if "selfee" in chunk]
    starts = [(mark["type"], mark["index"]) for mark in marks if mark.get("event") == "start"]
    assert starts == [("answer", 0), ("feedback", 1), ("revision", 1), ("feedback", 2)]
    ends = [mark["verdict"] for mark in marks if mark.get("event") == "end"]
    assert ends == ["none", "needed", "none", "not_needed"]
    assert marks[-1]["stop_cause"] == "autonomous"


@pytest.mark.parametrize("view", ["final", "raw", "inline"])
@pytest.mark.parametrize("most", [0, 1, 3])
def test_streamed_or_not_the_text_is_the_same_in_every_view(server: Running, view: str, most: int) -> None:
    fields: dict[str, Any] = {"selfee": {"view": view, "max_revisions": most}, "seed": 5}
    chunks, whole = server.chunks(**fields), server.chat(**fields)["choices"][0]["message"]
    assert joined(chunks, "content") == whole["content"]
    assert joined(chunks, "reasoning") == whole.get("reasoning", "")


def test_raw_is_the_exact_text_that_the_model_wrote(server: Running) -> None:
    assert server.chat(selfee={"view": "raw"})["choices"][0]["message"]["content"] == TARGET


@pytest.mark.parametrize(
    ("fields", "revisions"),
    [
        ({"selfee": {"mode": "off"}}, 0),
        ({"model": "script:off"}, 0),
        ({"model": "script:rev0"}, 0),
        ({"reasoning_effort": "none"}, 0),
        ({"reasoning_effort": "low"}, 1),
        ({"selfee": {"max_revisions": 0}}, 0),
        ({"model": "script:rev0", "selfee": {"max_revisions": 1}}, 1),
        ({}, 1),
    ],
)
def test_revisions_are_asked_for_by_field_name_or_effort(
    server: Running, fields: dict[str, Any], revisions: int
) -> None:
    message = server.chat(**fields)["choices"][0]["message"]
    kinds = [each["type"] for each in message["selfee"]["chain"]]
    assert kinds.count("revision") == revisions
    assert message["content"] == (SECOND if revisions else FIRST)


def test_without_revisions_there_is_no_reasoning_and_the_answer_comes_live(server: Running) -> None:
    chunks = server.chunks(model="script:off")
    assert joined(chunks, "reasoning") == ""
    assert sum(bool(choice["delta"].get("content")) for chunk in chunks for choice in chunk["choices"]) > 2


def test_an_overruled_verdict_is_told_as_forced() -> None:
    target = f"{FIRST}\n\n### Feedback 1:\n{CONTENT}"
    with serving(scripted(target, f"{SECOND}\n\n### Feedback 2:\n{CONTENT}", Reply(target))) as server:
        message = server.chat(selfee={"mode": "enforce"})["choices"][0]["message"]
    assert message["content"] == SECOND
    assert message["selfee"]["enforced"] == 1
    assert "→ revision not needed, but asked for" in message["reasoning"]
    assert [each["verdict"] for each in message["selfee"]["chain"]] == ["none", "forced", "none", "not_needed"]


def test_several_choices_are_several_chains_with_seeds_of_their_own(server: Running) -> None:
    row = server.chat(n=3, seed=7)
    valid(ChatCompletion, row)
    assert [choice["index"] for choice in row["choices"]] == [0, 1, 2]
    assert len({choice["message"]["selfee"]["seed"] for choice in row["choices"]}) == 3
    chunks = server.chunks(n=3, seed=7)
    for index in range(3):
        assert joined(chunks, "content", index) == SECOND


def test_a_budget_that_ends_within_a_revision_gives_the_last_whole_answer(server: Running) -> None:
    row = server.chat(max_completion_tokens=16)
    choice = row["choices"][0]
    assert choice["finish_reason"] in ("length", "stop")
    assert choice["message"]["content"] == FIRST
    assert row["usage"]["completion_tokens"] <= 16
    short = server.chat(max_tokens=2)["choices"][0]
    assert short["finish_reason"] == "length"
    assert short["message"]["content"] == "The sky"
    assert short["message"]["selfee"]["truncated"] is True


def test_usage_counts_every_token_and_which_of_them_were_reasoning(server: Running) -> None:
    usage = server.chat()["usage"]
    details = usage["completion_tokens_details"]
    assert 0 < details["reasoning_tokens"] < usage["completion_tokens"]
    final = usage["completion_tokens"] - details["reasoning_tokens"]
    assert len(SECOND.split()) <= final <= len(SECOND.split()) + 4  # with its header
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_reasoning_of_earlier_answers_is_not_told_to_the_model() -> None:
    with serving() as server:
        history = [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "First.", "reasoning_content": "SECRET", "reasoning": "SECRET"},
            {"role": "user", "content": "Two?"},
        ]
        response = server.post("/v1/chat/completions", {"messages": history})
        assert response.status_code == 200
        assert "x-selfee-ignored" not in response.headers
        prompt = server.engine.requests[0].prompt
    assert "First." in prompt
    assert "SECRET" not in prompt


def test_fields_without_effect_are_named_in_a_header(server: Running) -> None:
    response = server.post(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Why?", "x": 1}], "store": True, "frobnicate": 1, "user": "u"},
    )
    assert response.status_code == 200
    assert set(response.headers["x-selfee-ignored"].split(", ")) == {"store", "frobnicate", "user", "messages[0].x"}


def test_a_strict_server_refuses_what_it_does_not_know() -> None:
    with serving(strict=True) as server:
        body = {"messages": [{"role": "user", "content": "Why?"}], "frobnicate": 1}
        refused(server.post("/v1/chat/completions", body), 400, "frobnicate")


def test_an_error_in_the_middle_ends_the_stream_without_done() -> None:
    engine = scripted(Reply(TARGET, error="the engine broke", error_after=3, delay=0.01))
    with serving(engine) as server:
        body = {"messages": [{"role": "user", "content": "Why?"}], "stream": True}
        text = server.post("/v1/chat/completions", body).text
    assert "[DONE]" not in text
    assert '"error":{"message":"script: the engine broke"' in text.rstrip().splitlines()[-1]


def test_an_error_before_the_first_word_is_a_status() -> None:
    engine = scripted(Reply(TARGET, error="the engine broke"))
    with serving(engine) as server:
        body = {"messages": [{"role": "user", "content": "Why?"}], "stream": True}
        assert "the engine broke" in refused(server.post("/v1/chat/completions", body), 502)


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.sampled_from(["final", "raw", "inline"]))
def test_however_the_model_cuts_its_text_the_stream_is_the_same(sizes: list[int], view: str) -> None:
    texts = set()
    for size in sizes:
        with serving(scripted(Reply(TARGET, chunks=size))) as server:
            chunks = server.chunks(selfee={"view": view})
            texts.add((joined(chunks, "content"), joined(chunks, "reasoning")))
    assert len(texts) == 1
