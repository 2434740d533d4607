"""The remote engine against a server at the socket: every way servers answer, fail and hang up."""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Request as HttpRequest
from werkzeug import Response

from selfee.engines.base import (
    ChatEngine,
    ChatRequest,
    Chunk,
    Engine,
    FinishReason,
    Message,
    Request,
    SamplingParams,
    ScoringEngine,
    chat_of,
    scoring_of,
)
from selfee.engines.connection import Limits, Timeouts
from selfee.engines.remote import RemoteEngine
from selfee.engines.retry import RetryPolicy
from selfee.errors import ContextOverflowError, EngineError, EngineTimeoutError, SelfeeError, UsageError

KEY = "sk-very-secret-0123456789"
FAST = RetryPolicy(attempts=3, first_delay=0.01, max_delay=0.02, deadline=2.0)
GREEDY = SamplingParams(temperature=0.0)
Answer = Callable[[dict[str, Any]], Response]


def event(payload: Any) -> bytes:
    return b"data: " + (payload if isinstance(payload, bytes) else json.dumps(payload).encode()) + b"\n\n"


def piece(text: str, finish: str | None = None, **fields: Any) -> bytes:
    return event({"choices": [{"index": 0, "text": text, "finish_reason": finish} | fields]})


USAGE = event(
    {
        "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
    }
)
DONE = event(b"[DONE]")


def sse(*parts: bytes, **fields: Any) -> Response:
    return Response(iter(parts), content_type="text/event-stream; charset=utf-8", **fields)


class Script:
    """Answers in order (the last one again and again) and keeps what was asked."""

    def __init__(self, server: HTTPServer, path: str, answers: Sequence[Response | Answer]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._answers = list(answers)
        server.expect_request(path).respond_with_handler(self._handle)

    def _handle(self, request: HttpRequest) -> Response:
        self.headers.append({name.lower(): value for name, value in request.headers})
        self.bodies.append(json.loads(request.data) if request.data else {})
        answer = self._answers[min(len(self.bodies), len(self._answers)) - 1]
        return answer(self.bodies[-1]) if callable(answer) and not isinstance(answer, Response) else answer


@pytest.fixture
def engine(httpserver: HTTPServer) -> Iterator[RemoteEngine]:
    with RemoteEngine(httpserver.url_for("/v1"), "m", api_key=KEY, limits=Limits(Timeouts(2.0, 1.0), FAST)) as engine:
        yield engine


def completions(server: HTTPServer, *answers: Response | Answer) -> Script:
    return Script(server, "/v1/completions", answers)


def ask(engine: RemoteEngine, prompt: str = "P", **fields: Any) -> list[Chunk]:
    return list(engine.stream(Request(prompt, **fields)))


def text_of(chunks: Iterable[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_a_remote_engine_completes_and_chats_but_does_not_claim_to_score(engine: RemoteEngine) -> None:
    assert isinstance(engine, Engine)
    assert isinstance(engine, ChatEngine)
    assert chat_of(engine) is engine
    assert not isinstance(engine, ScoringEngine)


def test_a_completion_streams_with_usage(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    script = completions(httpserver, sse(piece("Hel"), b": ping\n\n", piece("lo"), piece("", "stop"), USAGE, DONE))
    chunks = ask(engine, "Say", params=SamplingParams(temperature=0.5, seed=3), max_tokens=9)
    assert [chunk.text for chunk in chunks] == ["Hel", "lo", ""]
    assert [chunk.finish_reason for chunk in chunks] == [None, None, FinishReason.END]
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.seed) == (7, 4, 2, 3)
    assert script.bodies == [
        {
            "model": "m",
            "prompt": "Say",
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.95,
            "seed": 3,
        }
    ]
    assert script.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_chat_streams_and_ignores_reasoning(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": None},
        {"reasoning_content": "hmm"},
        {"content": "Hi", "reasoning": "x"},
        {"content": " you"},
    ]
    parts = [event({"choices": [{"index": 0, "delta": delta, "finish_reason": ""}]}) for delta in deltas]
    end = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    script = Script(httpserver, "/v1/chat/completions", [sse(*parts, end, DONE)])
    chunks = list(engine.stream_chat(ChatRequest([Message("system", "S"), Message("user", "U")])))
    assert (text_of(chunks), chunks[-1].finish_reason) == ("Hi you", FinishReason.END)
    assert script.bodies[0]["messages"] == [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    with pytest.raises(UsageError, match="prefix"):
        engine.stream_chat(ChatRequest([Message("user", "U")], prefix="x"))


def test_a_chat_asks_for_log_probabilities_in_its_own_words(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    told = {"content": [{"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Ho", "logprob": -1.5}]}]}
    part = event({"choices": [{"index": 0, "delta": {"content": "Hi"}, "logprobs": told, "finish_reason": None}]})
    end = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    script = Script(httpserver, "/v1/chat/completions", [sse(part, end, DONE)])
    chunks = list(engine.stream_chat(ChatRequest([Message("user", "U")], logprobs=5)))
    assert (script.bodies[0]["logprobs"], script.bodies[0]["top_logprobs"]) == (True, 5)
    [entry] = [entry for chunk in chunks for entry in chunk.logprobs]
    assert (entry.text, entry.logprob, list(entry.top)) == ("Hi", -0.5, [(-1, "Ho", -1.5)])
    with pytest.raises(UsageError, match="logprobs: -1"):
        ChatRequest([Message("user", "U")], logprobs=-1)


def test_an_answer_that_was_not_streamed_is_taken_whole(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    body = {"choices": [{"text": "whole", "finish_reason": "length"}]}
    completions(httpserver, Response(json.dumps(body), content_type="application/json"))
    chunks = ask(engine)
    assert (text_of(chunks), chunks[-1].finish_reason) == ("whole", FinishReason.LENGTH)


def test_samplers_that_not_all_servers_know_are_sent_only_when_asked_for(
    httpserver: HTTPServer, engine: RemoteEngine
) -> None:
    script = completions(httpserver, lambda _: sse(piece("x", "stop"), DONE))
    ask(engine, params=SamplingParams(top_k=5, repeat_penalty=1.3, logit_bias={17: -math.inf, 4: 1.5}))
    body = script.bodies[0]
    assert (body["top_k"], body["repeat_penalty"], body["repetition_penalty"]) == (5, 1.3, 1.3)
    assert body["logit_bias"] == {"17": -100.0, "4": 1.5}
    assert "mirostat" not in body
    assert "stop" not in body


@pytest.mark.parametrize("field", ["stop_reason", "matched_stop", "stopping_word"])
def test_the_matched_stop_string_is_read_where_a_server_names_it(
    httpserver: HTTPServer, engine: RemoteEngine, field: str
) -> None:
    script = completions(httpserver, sse(piece("text", "stop", **{field: "###"}), DONE))
    last = ask(engine, stop=["zz", "###"])[-1]
    assert (last.text, last.finish_reason, last.stop) == ("", FinishReason.STOP, "###")
    assert script.bodies[0]["stop"] == ["zz", "###"]


@pytest.mark.parametrize("value", [None, 2])
def test_a_server_that_names_stops_and_names_none_has_ended_by_itself(
    httpserver: HTTPServer, engine: RemoteEngine, value: int | None
) -> None:
    script = completions(httpserver, lambda _: sse(piece("text", "stop", stop_reason=value), DONE))
    for _ in range(2):
        last = ask(engine, stop=["###"])[-1]
        assert (last.finish_reason, last.stop) == (FinishReason.END, None)
    assert [body["stop"] for body in script.bodies] == [["###"], ["###"]]


@pytest.mark.parametrize(
    ("ahead", "ending"),
    [
        ("### Feedback", (FinishReason.STOP, "###")),
        ("", (FinishReason.END, None)),
        (" x ###", (FinishReason.END, None)),
    ],
)
def test_a_server_that_names_no_stop_is_asked_what_came_next(
    httpserver: HTTPServer, engine: RemoteEngine, ahead: str, ending: tuple[FinishReason, str | None]
) -> None:
    look = Response(
        json.dumps({"choices": [{"text": ahead, "finish_reason": "length"}]}), content_type="application/json"
    )
    later = sse(piece("more ##"), piece("# and on"), piece("", "length"), DONE)
    script = completions(httpserver, sse(piece("text\n", "stop"), DONE), look, later)
    chunks = ask(engine, stop=["###"])
    assert text_of(chunks) == "text\n"
    assert (chunks[-1].finish_reason, chunks[-1].stop) == ending
    assert (script.bodies[1]["prompt"], script.bodies[1]["stream"]) == ("Ptext\n", False)
    assert script.bodies[1]["temperature"] == 0.0
    chunks = ask(engine, stop=["###"])
    assert (text_of(chunks), chunks[-1].finish_reason, chunks[-1].stop) == ("more ", FinishReason.STOP, "###")
    assert "stop" not in script.bodies[2]


def test_a_stop_string_that_the_server_did_not_trim_is_trimmed(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    completions(httpserver, sse(piece("text #"), piece("## Feed"), piece("", "stop"), DONE))
    chunks = ask(engine, stop=["###"])
    assert (text_of(chunks), chunks[-1].finish_reason, chunks[-1].stop) == ("text ", FinishReason.STOP, "###")


def test_log_probabilities_come_in_both_shapes(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    legacy = {"tokens": ["a", "b"], "token_logprobs": [-0.1, -0.2], "top_logprobs": [{"a": -0.1, "c": -3.0}, None]}
    modern = {
        "content": [
            {"id": 5, "token": "d", "logprob": -0.3, "top_logprobs": [{"id": 5, "token": "d", "logprob": -0.3}]}
        ]
    }
    completions(httpserver, sse(piece("ab", logprobs=legacy), piece("d", "stop", logprobs=modern), DONE))
    chunks = ask(engine, logprobs=2)
    told = [entry for chunk in chunks for entry in chunk.logprobs]
    assert [(entry.token, entry.text, entry.logprob) for entry in told] == [
        (-1, "a", -0.1),
        (-1, "b", -0.2),
        (5, "d", -0.3),
    ]
    assert told[0].top == ((-1, "a", -0.1), (-1, "c", -3.0))
    assert told[2].top == ((5, "d", -0.3),)


def test_log_probabilities_of_a_stop_string_are_not_told(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    def told(token: str) -> dict[str, Any]:
        return {"content": [{"id": 1, "token": token, "logprob": -1.0}]}

    parts = [piece("a", logprobs=told("a")), piece("", logprobs=told("")), piece("", "stop", stop_reason="#")]
    completions(httpserver, sse(*parts, DONE))
    assert [entry.text for chunk in ask(engine, logprobs=0, stop=["#"]) for entry in chunk.logprobs] == ["a"]


def test_an_emoji_cut_into_two_escapes_arrives_whole(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    parts = [
        b'{"choices":[{"text":"a\\ud83c"}]}',
        b'{"choices":[{"text":"\\udf0d"}]}',
        b'{"choices":[{"text":"\\ud83c"}]}',
    ]
    completions(httpserver, sse(*map(event, parts), piece("", "stop"), DONE))
    assert text_of(ask(engine)) == "a🌍\ufffd"


@given(places=st.lists(st.integers(0, 5000), max_size=25))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cutting_of_the_bytes_gives_the_same_text(
    httpserver: HTTPServer, engine: RemoteEngine, places: list[int]
) -> None:
    data = b"".join([piece("é🌍 "), b": x\r\n\r\n", piece("zwei\n"), piece("", "stop"), USAGE, DONE])
    edges = [0, *sorted(place % len(data) for place in places), len(data)]
    httpserver.clear()
    completions(httpserver, sse(*[data[start:end] for start, end in itertools.pairwise(edges)]))
    assert [chunk.text for chunk in ask(engine)] == ["é🌍 ", "zwei\n", ""]


# --- failures before the first text -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_a_busy_server_is_asked_again(httpserver: HTTPServer, engine: RemoteEngine, status: int) -> None:
    busy = Response("busy", status=status)
    script = completions(httpserver, busy, busy, sse(piece("fine", "stop"), DONE))
    assert text_of(ask(engine)) == "fine"
    assert len(script.bodies) == 3


def test_retry_after_is_honoured(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    busy = Response("busy", status=429, headers={"Retry-After-Ms": "300"})
    completions(httpserver, busy, sse(piece("fine", "stop"), DONE))
    started = time.monotonic()
    assert text_of(ask(engine)) == "fine"
    assert time.monotonic() - started >= 0.3


def test_a_server_that_stays_busy_is_given_up(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    script = completions(httpserver, Response("overloaded", status=503))
    with pytest.raises(EngineError, match=r"HTTP 503: overloaded.*gave up after 3 attempts") as caught:
        ask(engine)
    assert caught.value.retryable
    assert len(script.bodies) == 3


def test_a_wait_that_is_too_long_is_refused_at_once(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    script = completions(httpserver, Response("slow down", status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(EngineError, match=r"wait 36.. s"):
        ask(engine)
    assert len(script.bodies) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (400, {"error": {"message": "bad 'stop'"}}, EngineError, "refuses the request .*bad 'stop'"),
        (
            401,
            {"error": {"message": f"key {KEY} is wrong"}},
            EngineError,
            r"does not know who asks .*key \[key\] is wrong",
        ),
        (403, {"detail": "no"}, EngineError, "may not do this .*no"),
        (422, {"detail": [{"loc": ["body", "top_k"], "msg": "int"}]}, EngineError, "refuses the request .*top_k"),
        (400, {"error": {"code": "context_length_exceeded", "message": "9 > 8"}}, ContextOverflowError, "9 > 8"),
        (
            400,
            {"error": {"type": "exceed_context_size_error", "message": "long", "code": 400}},
            ContextOverflowError,
            "long",
        ),
        (400, {"message": "maximum context length is 8", "object": "error"}, ContextOverflowError, "length is 8"),
        (501, "<html>no</html>", EngineError, "HTTP 501: <html>no</html>"),
        (418, [1], EngineError, "418"),
    ],
)
def test_what_a_server_refuses_is_said_once_and_clearly(
    httpserver: HTTPServer, engine: RemoteEngine, status: int, body: Any, kind: type[SelfeeError], message: str
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    script = completions(httpserver, Response(text, status=status, content_type="application/json"))
    with pytest.raises(kind, match=message) as caught:
        ask(engine)
    assert type(caught.value) is kind
    assert KEY not in str(caught.value)
    assert len(script.bodies) == 1


def test_an_unknown_model_is_answered_with_the_models_there_are(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    completions(httpserver, Response('{"error":{"message":"no m"}}', status=404))
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "a"}, {"id": "b"}]})
    with pytest.raises(EngineError, match="the server offers the models a, b; name one"):
        ask(engine)


def test_a_missing_route_is_told_from_a_missing_model(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    completions(httpserver, Response("Not Found", status=404))
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "m"}]})
    with pytest.raises(EngineError, match="lack this route; try chat completions"):
        ask(engine)


def test_without_a_name_the_only_model_is_used(httpserver: HTTPServer) -> None:
    script = completions(httpserver, sse(piece("x", "stop"), DONE))
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "only"}]})
    with RemoteEngine(httpserver.url_for("/v1")) as engine:
        ask(engine)
        assert engine.name.endswith("/v1#only")
    assert script.bodies[0]["model"] == "only"


def test_without_a_name_several_models_are_a_question(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": f"m{n}"} for n in range(20)]})
    with RemoteEngine(httpserver.url_for("/v1")) as engine, pytest.raises(UsageError, match=r"m0, m1.* and 8 more"):
        ask(engine)


def test_a_server_that_refuses_stream_options_is_asked_without(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    refusal = Response('{"error":{"message":"unknown field stream_options"}}', status=400)
    script = completions(httpserver, refusal, lambda _: sse(piece("x", "stop"), DONE))
    ask(engine)
    ask(engine)
    assert ["stream_options" in body for body in script.bodies] == [True, False, False]


def test_a_redirect_is_refused_and_the_key_stays(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    other = Script(httpserver, "/stolen", [Response("thanks")])
    completions(httpserver, Response("", status=307, headers={"Location": httpserver.url_for("/stolen")}))
    with pytest.raises(EngineError, match=r"redirects to http://.*/stolen; redirects are not followed"):
        ask(engine)
    assert other.headers == []


def test_a_web_page_is_not_taken_for_an_answer(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    completions(httpserver, Response("<html>", content_type="text/html"))
    with pytest.raises(EngineError, match="answered with text/html; expected an event stream"):
        ask(engine)


def test_nobody_listening_is_a_clear_error() -> None:
    with RemoteEngine("http://127.0.0.1:9/v1", "m", limits=Limits(retry=FAST)) as engine:
        with pytest.raises(EngineError, match=r"no connection .*is the server running there") as caught:
            ask(engine)
        assert caught.value.retryable


# --- failures within a stream -----------------------------------------------------------------------------------


def test_a_stream_that_just_ends_is_an_error(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    completions(httpserver, lambda _: sse(piece("half a sen")))
    stream = engine.stream(Request("P"))
    assert next(stream).text == "half a sen"
    with pytest.raises(EngineError, match="ended without saying why; the text is incomplete") as caught:
        next(stream)
    assert caught.value.retryable


def test_done_without_a_reason_is_an_error_too(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    completions(httpserver, lambda _: sse(piece("half"), DONE))
    with pytest.raises(EngineError, match="ended without saying why"):
        ask(engine)


def test_a_broken_line_is_an_error(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    completions(httpserver, lambda _: sse(piece("half"), b'data: {"choices": [{"te'))
    with pytest.raises(EngineError, match="expected a JSON object"):
        ask(engine)


def test_greedy_text_is_continued_where_the_stream_broke(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    cut = sse(piece("one"), piece(" two #"), headers={"Content-Length": "9999"})
    script = completions(httpserver, cut, sse(piece("5"), piece(" three", "stop", stop_reason=None), USAGE, DONE))
    chunks = ask(engine, "P:", params=GREEDY, max_tokens=10, stop=["##"])
    assert text_of(chunks) == "one two #5 three"
    assert [body["prompt"] for body in script.bodies] == ["P:", "P:one two #"]
    assert [body["max_tokens"] for body in script.bodies] == [10, 8]
    assert (chunks[-1].finish_reason, chunks[-1].usage) == (FinishReason.END, None)


def test_sampled_text_is_not_continued(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    script = completions(httpserver, sse(piece("one"), headers={"Content-Length": "9999"}))
    with pytest.raises(EngineError, match="broke off") as caught:
        ask(engine)
    assert caught.value.retryable
    assert len(script.bodies) == 1


def test_sampled_text_is_asked_again_if_nothing_was_delivered(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    empty = sse(piece(""), headers={"Content-Length": "9999"})
    completions(httpserver, empty, sse(piece("fine", "stop"), DONE))
    assert text_of(ask(engine)) == "fine"


def test_a_stream_that_breaks_again_and_again_is_given_up(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    script = completions(httpserver, lambda _: sse(piece("x")))
    with pytest.raises(EngineError, match="incomplete"):
        ask(engine, params=GREEDY)
    assert [body["prompt"] for body in script.bodies] == ["P", "Px", "Pxx"]


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        ({"message": "boom", "code": 500}, True),
        ({"message": "boom", "type": "server_error"}, True),
        ({"message": "boom", "type": "invalid_request_error"}, False),
        ("boom", False),
    ],
)
def test_an_error_within_the_stream_is_raised(
    httpserver: HTTPServer, engine: RemoteEngine, error: Any, retryable: bool
) -> None:
    completions(httpserver, lambda _: sse(piece("half"), event({"error": error})))
    with pytest.raises(EngineError, match="boom") as caught:
        ask(engine)
    assert caught.value.retryable is retryable


def test_an_error_as_first_event_is_retried(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    failed = sse(event({"error": {"message": "boom", "code": 503}}))
    completions(httpserver, failed, sse(piece("fine", "stop"), DONE))
    assert text_of(ask(engine)) == "fine"


def test_the_key_is_never_shown(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    assert KEY not in repr(engine)
    assert KEY not in repr(engine._server)
    for bad in (event({"error": {"message": KEY}}), event(b"x" * 70 + KEY.encode())):
        httpserver.clear()
        completions(httpserver, lambda _, bad=bad: sse(piece("half"), bad))  # type: ignore[misc]
        with pytest.raises(EngineError) as caught:
            ask(engine)
        assert KEY[:8] not in str(caught.value)


@pytest.mark.parametrize("reason", ["content_filter", "tool_calls", "bored"])
def test_an_ending_that_is_none_is_an_error(httpserver: HTTPServer, engine: RemoteEngine, reason: str) -> None:
    completions(httpserver, sse(piece("x", reason), DONE))
    with pytest.raises(EngineError, match=f"finish_reason '{reason}'"):
        ask(engine)


@pytest.mark.parametrize(
    "payload",
    [{"choices": 5}, {"choices": [5]}, {"choices": [{"text": 5}]}, {"choices": [{"text": "", "finish_reason": 5}]}],
)
def test_nonsense_is_refused(httpserver: HTTPServer, engine: RemoteEngine, payload: Any) -> None:
    completions(httpserver, lambda _: sse(piece("x"), event(payload)))
    with pytest.raises(EngineError):
        ask(engine)


def test_deep_nesting_is_refused(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    completions(httpserver, lambda _: sse(piece("x"), event(b"[" * 100_000)))
    with pytest.raises(EngineError, match="expected a JSON object"):
        ask(engine)


def test_a_silent_server_times_out(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    released = threading.Event()

    def hang(_: Any) -> Response:
        def parts() -> Iterator[bytes]:
            yield piece("x")
            released.wait(5)
            yield piece("y", "stop")

        return Response(parts(), content_type="text/event-stream")

    completions(httpserver, hang)
    with pytest.raises(EngineTimeoutError, match="no byte for 1 s"):
        ask(engine)
    released.set()


def test_heartbeats_do_not_outlast_the_total_time(httpserver: HTTPServer) -> None:
    def beat(_: Any) -> Response:
        def parts() -> Iterator[bytes]:
            for _ in range(30):
                time.sleep(0.05)
                yield b": ping\n\n"

        return Response(parts(), content_type="text/event-stream")

    completions(httpserver, beat)
    limits = Limits(Timeouts(total=0.3), FAST)
    with RemoteEngine(httpserver.url_for("/v1"), "m", limits=limits) as engine:
        started = time.monotonic()
        with pytest.raises(EngineTimeoutError, match=r"not finished within 0\.3 s"):
            ask(engine)
        assert time.monotonic() - started < 1.4


def test_an_answer_without_end_is_cut_off(httpserver: HTTPServer) -> None:
    completions(httpserver, lambda _: Response(iter([piece("x" * 100)] * 50), content_type="text/event-stream"))
    limits = Limits(retry=FAST, max_response_bytes=2000)
    with RemoteEngine(httpserver.url_for("/v1"), "m", limits=limits) as engine, pytest.raises(EngineError) as caught:
        ask(engine)
    assert "exceeds 2000 bytes" in str(caught.value)


def test_closing_the_iterator_hangs_up(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    sent: list[int] = []

    def endless(_: Any) -> Response:
        def parts() -> Iterator[bytes]:
            for number in range(200):
                sent.append(number)
                yield piece("x" * 10_000)
                time.sleep(0.01)

        return Response(parts(), content_type="text/event-stream")

    completions(httpserver, endless)
    stream = engine.stream(Request("P"))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    time.sleep(0.3)
    count = len(sent)
    time.sleep(0.1)
    assert len(sent) == count < 60


# --- scoring ----------------------------------------------------------------------------------------------------


def test_a_server_without_log_probabilities_does_not_score(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    plain = Response('{"choices":[{"text":"x","finish_reason":"length"}]}', content_type="application/json")
    script = completions(httpserver, plain)
    assert scoring_of(engine) is None
    assert scoring_of(engine) is None
    assert len(script.bodies) == 2


def test_a_server_that_refuses_the_probe_does_not_score(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    completions(httpserver, Response('{"error":{"message":"logprobs are not supported"}}', status=400))
    assert scoring_of(engine) is None


def test_a_server_that_echoes_scores_exactly(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    def echo(body: dict[str, Any]) -> Response:
        assert (body["echo"], body["max_tokens"]) == (True, 1)
        tokens = [*body["prompt"], "!"]
        logprobs = [None, *[-0.5 * (ord(c) % 3) for c in tokens[1:]]]
        choice = {"text": "".join(tokens), "logprobs": {"tokens": tokens, "token_logprobs": logprobs}}
        return Response(json.dumps({"choices": [choice]}), content_type="application/json")

    completions(httpserver, echo)
    scorer = scoring_of(engine)
    assert scorer is not None
    assert scorer.score("prompt", ["b", "bc", ""]) == [-0.5 * (98 % 3), -0.5 * (98 % 3 + 99 % 3), 0.0]


def test_a_server_that_shows_likely_tokens_is_walked_along(httpserver: HTTPServer, engine: RemoteEngine) -> None:
    tables = {"P": {"y": -1.0, "ye": -2.0, "n": -3.0}, "Pye": {"s": -0.5, "ll": -4.0}}

    def table(body: dict[str, Any]) -> Response:
        top = [{"token": token, "logprob": p} for token, p in tables.get(body["prompt"], {"a": -1, "b": -2}).items()]
        choice = {"text": "?", "logprobs": {"content": [{"token": "?", "logprob": -1, "top_logprobs": top}]}}
        return Response(json.dumps({"choices": [choice]}), content_type="application/json")

    script = completions(httpserver, table)
    scorer = scoring_of(engine)
    assert scorer is not None
    probes = len(script.bodies)
    assert scorer.score("P", ["yes", "yell", "q"]) == [-2.5, -6.0, -3.0]
    assert len(script.bodies) - probes == 2, "a table is asked for once"


# --- addresses and keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["ftp://host/v1", "http://", "host:80", "http://host:99999/v1", "http://[::1/v1", "http://h/v1?key=1", ""]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="expected https://host"):
        RemoteEngine(url, "m")


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="holds a password") as caught:
        RemoteEngine("https://me:hunter2@host/v1", "m")
    assert "hunter2" not in str(caught.value)


def test_a_bare_host_gets_the_usual_path() -> None:
    assert RemoteEngine("http://host:8000", "m").name == "http://host:8000/v1#m"
    assert RemoteEngine("http://host/api/", "m").name == "http://host/api#m"


@pytest.mark.parametrize("key", ["a b", "a\r\nX: y", "schlüssel"])
def test_a_key_that_would_break_the_header_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="API key") as caught:
        RemoteEngine("http://host/v1", "m", api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("fields", [{"stall": 0}, {"connect": -1}, {"total": float("nan")}])
def test_impossible_timeouts_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="timeout"):
        Timeouts(**fields)
