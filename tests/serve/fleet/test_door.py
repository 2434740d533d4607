"""FastChat's wire protocol: what its programs would get from our worker and controller, and ours from its worker."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.fleet.parts import Part, registered, start_controller, start_worker, wait_for
from tests.serve.web.site import CONTENT, CRITIC, FIRST, SECOND, chain_text, story

from selfee.chain.format import framing, read_conversation, render_prompt
from selfee.chain.types import Exchange, Instruction
from selfee.engines.base import FinishReason, Request, SamplingParams
from selfee.errors import ContextOverflowError, EngineError, UsageError
from selfee.serve.fleet import fastchat
from selfee.serve.fleet.door import template

PROMPT = render_prompt(Instruction("Why is the sky blue?"))
WHOLE = chain_text(FIRST, CRITIC, SECOND, CONTENT)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[Part, Part]]:
    """A controller and a worker without a secret, as on one machine."""
    controller = start_controller(secret=None)
    worker = start_worker(story(0.001), controller.url, secret=None)
    wait_for(lambda: registered(controller))
    yield controller, worker
    worker.kill()
    controller.kill()


def post(part: Part, path: str, body: Any = None) -> Any:
    answer = httpx2.post(part.url + path, json=body, trust_env=False, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def stream(part: Part, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "model", "prompt": PROMPT, "temperature": 0, "max_new_tokens": 2000, "echo": False} | fields
    with httpx2.stream("POST", f"{part.url}/worker_generate_stream", json=body, trust_env=False) as answer:
        assert answer.status_code == 200
        return list(fastchat.read_lines(answer.iter_bytes()))


def test_the_worker_streams_the_whole_text_so_far_as_the_original_did(parts: tuple[Part, Part]) -> None:
    rows = stream(parts[1])
    texts = [row["text"] for row in rows]
    assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    assert texts[-1] == WHOLE
    assert {row["error_code"] for row in rows} == {0}
    assert [row["finish_reason"] for row in rows[:-1]] == [None] * (len(rows) - 1)
    assert rows[-1]["finish_reason"] == "stop"
    assert rows[-1]["usage"]["completion_tokens"] > 0
    assert stream(parts[1], echo=True)[-1]["text"] == PROMPT + WHOLE


def test_the_controller_stands_in_for_its_workers(parts: tuple[Part, Part]) -> None:
    controller, worker = parts
    assert stream(controller)[-1]["text"] == WHOLE
    assert stream(controller, model="nobody's")[0]["error_code"] == fastchat.NO_WORKER
    assert post(controller, "/worker_get_status")["model_names"] == ["model"]
    assert post(controller, "/list_models") == {"models": ["model"]}
    assert post(controller, "/list_language_models") == {"models": ["model"]}
    assert post(controller, "/list_multimodal_models") == {"models": []}
    assert post(controller, "/get_worker_address", {"model": "model"}) == {"address": worker.url}
    assert post(controller, "/get_worker_address", {"model": "other"}) == {"address": ""}
    assert post(controller, "/receive_heart_beat", {"worker_name": "http://127.0.0.1:1", "queue_length": 0}) == {
        "exist": False
    }
    assert post(controller, "/refresh_all_workers") is None
    assert registered(controller) == [worker.url]


def test_the_worker_says_what_it_is(parts: tuple[Part, Part]) -> None:
    worker = parts[1]
    assert post(worker, "/worker_get_status") == {"model_names": ["model"], "speed": 1, "queue_length": 0}
    assert post(worker, "/count_token", {"prompt": "one two three"}) == {"count": 3, "error_code": 0}
    assert post(worker, "/model_details", {"model": "model"})["context_length"] > 0
    assert post(worker, "/worker_get_conv_template")["conv"] == template()
    assert post(worker, "/worker_generate", {"prompt": PROMPT, "echo": False, "max_new_tokens": 900})["text"] == WHOLE
    assert post(worker, "/worker_stop_stream") is None
    assert post(worker, "/worker_get_embeddings", {"input": ["x"]})["error_code"] == fastchat.INVALID_MODEL


def test_wrong_requests_end_with_a_code_and_never_a_crash(parts: tuple[Part, Part]) -> None:
    worker = parts[1]
    for body in ({}, {"prompt": 5}, {"prompt": "x", "max_new_tokens": -1}, {"prompt": "x", "top_p": 7}):
        answer = httpx2.post(f"{worker.url}/worker_generate_stream", json=body, trust_env=False)
        assert answer.status_code == 400, body
    (row,) = stream(worker, prompt="no conversation, and no rule of the script fits it either")
    assert row["error_code"] == fastchat.INTERNAL_ERROR
    assert "no rule fits" in row["text"]


def test_a_stream_is_stopped_by_its_own_id_and_no_other(parts: tuple[Part, Part]) -> None:
    worker = start_worker(story(0.03), parts[0].url, secret=None, name="slow")
    body = {"prompt": PROMPT, "echo": False, "max_new_tokens": 2000, "request_id": "mine-mine-mine"}
    with httpx2.stream("POST", f"{worker.url}/worker_generate_stream", json=body, trust_env=False) as answer:
        pieces = answer.iter_bytes()
        first = next(pieces)
        post(worker, "/worker_stop_stream", {"request_id": "some-other-stream"})
        post(worker, "/worker_stop_stream")
        post(worker, "/worker_stop_stream", {"request_id": "mine-mine-mine"})
        rows = list(fastchat.read_lines(iter([first, *pieces])))
    assert len(rows[-1]["text"]) < len(WHOLE)
    worker.kill()


def dolly(conversation: Any, messages: list[tuple[int, str | None]]) -> str:
    """What FastChat renders with the style that our template names, as its documentation of the style says."""
    text: str = conversation["system_template"].format(system_message=conversation["system_message"])
    separators = [conversation["sep"], conversation["sep2"]]
    for index, (role, message) in enumerate(messages):
        text += conversation["roles"][role] + ":\n"
        if message:
            text += message + separators[index % 2] + ("\n\n" if index % 2 else "")
    return text


@given(st.lists(st.tuples(TEXT, TEXT), max_size=3), TEXT)
def test_what_fastchat_renders_is_the_prompt_that_the_model_was_trained_on(
    told: list[tuple[str, str]], last: str
) -> None:
    messages: list[tuple[int, str | None]] = []
    for question, answer in told:
        messages += [(0, question), (1, answer)]
    prompt = dolly(template(), [*messages, (0, last), (1, None)])
    instruction = Instruction(last, "", tuple(Exchange(*turn) for turn in told))
    assert prompt == render_prompt(instruction)


@given(
    st.lists(st.tuples(TEXT, TEXT), max_size=3),
    TEXT,
    st.sampled_from(["", "Be brief."]),
    st.sampled_from(["", "the input"]),
)
def test_a_conversation_is_read_back_from_its_prompt(
    told: list[tuple[str, str]], last: str, system: str, given_input: str
) -> None:
    if given_input and (told or system):
        return
    instruction = Instruction(last, given_input, tuple(Exchange(*turn) for turn in told), system)
    assert read_conversation(render_prompt(instruction)) == instruction


@pytest.mark.parametrize(
    "prompt", ["", "Hello", PROMPT + "Because", PROMPT.replace("Answer", "Response"), framing().preamble]
)
def test_other_texts_are_no_conversation(prompt: str) -> None:
    with pytest.raises(UsageError):
        read_conversation(prompt)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b"]), TEXT), min_size=1, max_size=6), st.integers(1, 9))
def test_objects_are_read_however_the_bytes_are_cut(rows: list[dict[str, str]], size: int) -> None:
    rows = [row | {"text": "x"} for row in rows]
    raw = b"\0".join(json.dumps(row).encode() + b"\0" for row in rows)
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    assert list(fastchat.read_lines(iter(pieces))) == rows


@pytest.mark.parametrize("raw", [b"no json\0", b"[1]\0", b'{"error_code": 0}\0', b'{"text": 5}\0', b"{"])
def test_what_is_no_object_with_a_text_is_an_error(raw: bytes) -> None:
    with pytest.raises(EngineError, match="FastChat worker"):
        list(fastchat.read_lines(iter([raw])))


def serve_rows(httpserver: Any, *rows: dict[str, Any]) -> fastchat.FastChatEngine:
    body = b"".join(json.dumps(row).encode() + b"\0" for row in rows)
    httpserver.expect_request("/worker_generate_stream").respond_with_data(body)
    return fastchat.FastChatEngine(httpserver.url_for("").rstrip("/"), "plain")


def test_an_engine_over_a_fastchat_worker_tells_pieces_usage_and_the_reason(httpserver: Any) -> None:
    engine = serve_rows(
        httpserver,
        {"text": "The", "error_code": 0},
        {"text": "The sk\ufffd", "error_code": 0},
        {"text": "The ský is blue", "error_code": 0, "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
        {"text": "The ský is blue", "error_code": 0, "finish_reason": "length"},
    )
    chunks = list(engine.stream(Request("p", SamplingParams(), 4)))
    assert "".join(chunk.text for chunk in chunks) == "The ský is blue"
    assert chunks[-1].finish_reason is FinishReason.LENGTH
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    engine.close()


def test_stop_strings_are_found_even_if_the_worker_ignores_them(httpserver: Any) -> None:
    engine = serve_rows(httpserver, {"text": "one st", "error_code": 0}, {"text": "one stop two", "error_code": 0})
    chunks = list(engine.stream(Request("p", stop=(" stop",))))
    assert "".join(chunk.text for chunk in chunks) == "one"
    assert chunks[-1].stop == " stop"
    engine.close()


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"text": "too long", "error_code": fastchat.CONTEXT_OVERFLOW}, ContextOverflowError),
        ({"text": "**NETWORK ERROR**", "error_code": 50002}, EngineError),
    ],
)
def test_error_codes_of_a_fastchat_worker_are_errors(
    httpserver: Any, row: dict[str, Any], error: type[Exception]
) -> None:
    engine = serve_rows(httpserver, {"text": "The", "error_code": 0}, row)
    with pytest.raises(error):
        list(engine.stream(Request("p")))
    engine.close()


def test_a_worker_that_takes_text_back_is_an_error(httpserver: Any) -> None:
    engine = serve_rows(httpserver, {"text": "The sky", "error_code": 0}, {"text": "A sea", "error_code": 0})
    with pytest.raises(EngineError, match="took back"):
        list(engine.stream(Request("p")))
    engine.close()
