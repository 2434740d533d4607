"""F13 and F14 of the catalogue: what the server that computes does wrong never looks like a whole answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from tests.serve.harness import CONTENT, FIRST, QUESTION, SECOND, TARGET, Running, refused, serving
from werkzeug.wrappers import Request, Response

from selfee.engines.connection import Limits, Timeouts
from selfee.engines.remote import RemoteEngine
from selfee.engines.retry import RetryPolicy

CHAT = "/v1/chat/completions"
QUICK = Limits(Timeouts(stall=2.0), RetryPolicy(attempts=3, first_delay=0.01, max_delay=0.02))
WORDS = [TARGET[start : start + 7] for start in range(0, len(TARGET), 7)]


def piece(text: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def stream(*events: bytes) -> Response:
    return Response(iter(events), content_type="text/event-stream")


def whole() -> Response:
    return stream(*map(piece, WORDS), piece("", "stop"), b"data: [DONE]\n\n")


class Upstream:
    """Gives the answers it is told to, one after another, then the whole chain; remembers what it was asked."""

    def __init__(self, server: HTTPServer) -> None:
        self.answers: list[Any] = []
        self.prompts: list[str] = []
        self.url = server.url_for("/v1")
        server.expect_request("/v1/completions").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        self.prompts.append(request.get_json()["prompt"])
        if self.answers:
            found: Response = self.answers.pop(0)
            return found
        return whole()


@pytest.fixture
def upstream(httpserver: HTTPServer) -> Upstream:
    return Upstream(httpserver)


@pytest.fixture
def server(upstream: Upstream) -> Iterator[Running]:
    with serving(RemoteEngine(upstream.url, "m", limits=QUICK)) as running:
        yield running


def lines(server: Running) -> list[str]:
    body = {"messages": [QUESTION], "stream": True, "temperature": 0}
    with server.client.stream("POST", CHAT, json=body) as response:
        assert response.status_code == 200, response.read()
        return list(response.iter_lines())


@pytest.mark.parametrize("status", [429, 503, 529])
def test_f14_a_busy_server_is_asked_again_when_it_wants(upstream: Upstream, server: Running, status: int) -> None:
    upstream.answers = [Response("busy", status, {"retry-after": "0.1"})]
    assert server.chat()["choices"][0]["message"]["content"] == SECOND
    assert len(upstream.prompts) == 2


def test_f14_a_server_that_stays_busy_is_a_503_that_says_when_to_come_again(
    upstream: Upstream, server: Running
) -> None:
    upstream.answers = [Response("busy", 529) for _ in range(3)]
    response = server.post(CHAT, {"messages": [QUESTION]})
    assert "gave up after 3 attempts" in refused(response, 503, code="engine_failed")
    assert response.headers["retry-after"]


def test_f14_a_stream_that_breaks_at_any_word_is_gone_on_with_from_there(upstream: Upstream, server: Running) -> None:
    for count in (1, len(WORDS) // 2, len(WORDS) - 1):
        upstream.prompts.clear()

        def rest(count: int = count) -> Response:
            return stream(*map(piece, WORDS[count:]), piece("", "stop"), b"data: [DONE]\n\n")

        upstream.answers = [stream(*map(piece, WORDS[:count])), rest()]
        message = server.chat(temperature=0)["choices"][0]["message"]
        assert message["content"] == SECOND
        texts = [segment["text"] for segment in message["selfee"]["chain"]]
        assert (texts[0], texts[2], texts[3]) == (FIRST, SECOND, CONTENT)
        assert upstream.prompts[1] == upstream.prompts[0] + "".join(WORDS[:count])


@pytest.mark.parametrize(
    ("last", "name"),
    [
        (b"", "silent end"),
        (b"data: [DONE]\n\n", "done without a reason"),
        (b"data: {broken\n\n", "no JSON"),
        (b'data: {"error": {"message": "the model crashed", "code": 500}}\n\n', "error"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_f14_half_an_answer_is_never_taken_for_a_whole_one(
    upstream: Upstream, server: Running, last: bytes, name: str
) -> None:
    upstream.answers = [stream(*map(piece, WORDS[:9]), last) for _ in range(9)]
    found = lines(server)
    assert "data: [DONE]" not in found
    assert '"error"' in found[-2] if not found[-1] else '"error"' in found[-1], name
    assert not any('"finish_reason": "stop"' in line or '"finish_reason":"stop"' in line for line in found)


def test_f13_a_server_whose_accelerator_is_out_of_memory_is_a_clear_error(upstream: Upstream, server: Running) -> None:
    told = {"error": {"message": "CUDA out of memory. Tried to allocate 2.00 GiB", "type": "internal_error"}}
    upstream.answers = [Response(json.dumps(told), 500, content_type="application/json") for _ in range(3)]
    response = server.post(CHAT, {"messages": [QUESTION]})
    assert "CUDA out of memory" in refused(response, 503, code="engine_failed")
    assert response.headers["retry-after"]
    assert server.chat()["choices"][0]["message"]["content"] == SECOND  # once it has recovered


def test_f12_a_name_that_nobody_knows_is_said_so() -> None:
    with serving(RemoteEngine("http://no.such.host.invalid/v1", "m", limits=QUICK)) as server:
        message = refused(server.post(CHAT, {"messages": [QUESTION]}), 503, code="engine_failed")
        assert "no.such.host.invalid" in message
        assert "no connection" in message
        assert server.client.get("/health").status_code == 200
