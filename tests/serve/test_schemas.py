"""Answers held to a JSON schema: answers and revisions satisfy it, feedback stays free; where it cannot be, a 400."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import psutil
import pytest
from tests.serve.harness import QUESTION, Running, ok, refused, serving
from tests.tiny import CHATML, make_tiny

from selfee.chain.policy import RevisionPolicy
from selfee.chain.run import stream_chain
from selfee.chain.types import Section, SectionStart
from selfee.engines.base import Chunk, FinishReason, Request, SamplingParams
from selfee.engines.local import LocalEngine
from selfee.engines.runtime import load_runtime

CHAT = "/v1/chat/completions"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
    },
    "required": ["colour", "count", "words"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


@pytest.fixture(params=["llama", "chat"], scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Tiny models with either kind of vocabulary, one with a chat template."""
    pytest.importorskip("llguidance")
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    if request.param == "chat":
        make_tiny(path, n_ctx=2048, vocab="bpe", metadata={"tokenizer.chat_template": CHATML})
    else:
        make_tiny(path, n_ctx=2048, vocab="spm")
    with serving(LocalEngine(load_runtime(path), parallel=2)) as running:
        yield running


def check(text: str) -> None:
    """Whether a text is what the schema asks for."""
    row = json.loads(text)
    assert set(row) == {"colour", "count", "words"}
    assert row["colour"] in ("red", "blue")
    assert isinstance(row["count"], int)
    assert 0 <= row["count"] <= 99
    assert len(row["words"]) <= 2
    assert all(isinstance(word, str) and len(word) <= 4 for word in row["words"])


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_an_answer_satisfies_its_schema(model: Running, temperature: float) -> None:
    for seed in range(3):
        fields: dict[str, Any] = {"temperature": temperature, "seed": seed, "response_format": FORM}
        fields |= {"selfee": {"mode": "off"}}
        choice = model.chat(**fields)["choices"][0]
        assert choice["finish_reason"] == "stop"
        check(choice["message"]["content"])
        streamed = model.chunks(**fields)
        text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in streamed)
        assert text == choice["message"]["content"]


def test_responses_take_a_schema_in_their_own_form(model: Running) -> None:
    form = {"type": "json_schema", "name": "answer", "schema": SCHEMA}
    body = {"input": "x", "temperature": 0, "text": {"format": form}, "selfee": {"mode": "off"}}
    check(ok(model.post("/v1/responses", body))["output"][-1]["content"][0]["text"])


def test_any_object_is_an_object(model: Running) -> None:
    fields = {"response_format": {"type": "json_object"}, "selfee": {"mode": "off"}, "max_tokens": 1500, "seed": 1}
    choice = model.chat(**fields)["choices"][0]
    if choice["finish_reason"] == "stop":
        assert isinstance(json.loads(choice["message"]["content"]), dict)
    assert choice["message"]["content"].startswith("{")


class Noting:
    """An engine that says the same to everybody and notes who is held to a schema."""

    name, context_length, supports_chat, takes_schemas = "noting", None, False, True

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def stream(self, request: Request) -> Iterator[Chunk]:
        self.requests.append(request)
        yield Chunk(
            "Too long. Revision is needed." if request.schema is None else json.dumps({"x": len(self.requests)})
        )
        yield Chunk("", FinishReason.END)


def test_feedback_is_free_and_every_revision_is_held_to_the_schema() -> None:
    engine = Noting()
    with stream_chain(engine, "Why?", RevisionPolicy(2, 2), SamplingParams(), mode="guided", schema="{}") as stream:
        sections = [event.section for event in stream if isinstance(event, SectionStart)]
    schemas = [request.schema for request in engine.requests]
    assert sections == [Section.ANSWER, *[Section.FEEDBACK, Section.REVISION] * 2, Section.FEEDBACK]
    assert [schema for schema, section in zip(schemas, sections, strict=False) if section.is_answer] == ["{}"] * 3
    assert all(json.loads(step.answer) for step in stream.chain.steps)
    assert {schema for schema, section in zip(schemas, sections, strict=False) if not section.is_answer} == {None}


@pytest.mark.parametrize(
    "form",
    [
        {"type": "yaml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"schema": 5}},
        {"type": "json_schema", "json_schema": {"schema": {"enum": ["x" * 70_000]}}},
        {"type": "regex", "regex": "(a+)+$"},
    ],
)
def test_i7_what_is_no_form_is_refused(server: Running, form: dict[str, Any]) -> None:
    message = refused(server.post(CHAT, {"messages": [QUESTION], "response_format": form}), 400)
    assert message.startswith("response_format")


def test_i7_an_engine_that_cannot_is_named(server: Running) -> None:
    body = {"messages": [QUESTION], "response_format": FORM}
    assert "cannot hold its text to a schema" in refused(server.post(CHAT, body), 400, "response_format")
    refused(server.post(CHAT, body | {"stream": True}), 400, "response_format")
    form = {"type": "json_schema", "name": "answer", "schema": SCHEMA}
    for streams in (False, True):
        response = server.post("/v1/responses", {"input": "x", "stream": streams, "text": {"format": form}})
        assert refused(response, 400, "text.format").startswith("text.format")
    ok(server.post(CHAT, body | {"response_format": {"type": "text"}}))


def test_i7_in_single_pass_no_schema_fits_and_that_is_said(model: Running) -> None:
    body = {"messages": [QUESTION], "response_format": FORM, "selfee": {"drive": "single-pass"}}
    assert "single pass" in refused(model.post(CHAT, body), 400, "response_format")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nothing"},
        {"type": "string", "pattern": "(" * 50},
        {"$ref": "http://elsewhere.example/schema.json"},
    ],
)
def test_i7_a_schema_that_cannot_be_had_is_a_400(model: Running, schema: dict[str, Any]) -> None:
    refused(held_to(model, schema), 400, "response_format")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(((a{1,999}){1,999}){1,999}){1,999}"},
        {"type": "array", "minItems": 10**9, "items": {"type": "integer"}},
        {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}, "$ref": "#/$defs/a"},
        {"allOf": [{"pattern": f"^{letter * 500}"} for letter in "abcdefgh"], "type": "string"},
        {"enum": [f"{number:050}" for number in range(900)]},
    ],
    ids=["regex", "length", "circle", "contradiction", "choices"],
)
def test_i7_a_schema_made_to_take_for_ever_does_not(model: Running, schema: dict[str, Any]) -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    assert held_to(model, schema).status_code in (200, 400)
    assert process.memory_info().rss - before < 200 << 20
    assert model.client.get("/health").status_code == 200


def held_to(model: Running, schema: dict[str, Any]) -> httpx2.Response:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {"messages": [QUESTION], "max_tokens": 4, "response_format": form, "selfee": {"mode": "off"}}
    return model.post(CHAT, body)


def test_i7_without_the_package_it_is_said_what_to_install(
    tiny_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    body = {"messages": [QUESTION], "response_format": FORM, "selfee": {"mode": "off"}}
    assert "pip install 'selfee[json]'" in refused(tiny_server.post(CHAT, body), 400, "response_format")
