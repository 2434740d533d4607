"""Completions: texts continued as they stand, with log-probabilities of what was given and what was written."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from openai.types import Completion
from tests.serve.harness import Running, ok, refused
from tests.serve.schema import valid

from selfee.engines.base import Request, SamplingParams

PATH = "/v1/completions"
GREEDY = SamplingParams(temperature=0.0)


def complete(server: Running, **fields: Any) -> dict[str, Any]:
    row = ok(server.post(PATH, {"prompt": "the sky is", "max_tokens": 8, "temperature": 0} | fields))
    check(row)
    return row


def check(row: dict[str, Any]) -> None:
    """Validate a whole or a chunk.

    OpenAI's schema was written for wholes without echo: its own server leaves the reason open in chunks that are not
    the last, and has no likelihood for a prompt's first token.
    """
    plain = json.loads(json.dumps(row))
    for choice in plain["choices"]:
        choice["finish_reason"] = choice["finish_reason"] or "stop"
        told = choice["logprobs"]
        if told and told["token_logprobs"][:1] == [None]:
            told["token_logprobs"][0] = 0.0
            told["top_logprobs"] = told["top_logprobs"] and told["top_logprobs"][1:]
    valid(Completion, plain)


def text_of(server: Running, prompt: str, tokens: int) -> str:
    """What the engine itself writes."""
    return "".join(chunk.text for chunk in server.engine.stream(Request(prompt, GREEDY, tokens)))


def test_a_text_is_continued_as_the_engine_continues_it(tiny_server: Running) -> None:
    row = complete(tiny_server)
    assert row["choices"][0]["text"] == text_of(tiny_server, "the sky is", 8)
    assert row["choices"][0]["finish_reason"] == "length"
    assert row["usage"]["completion_tokens"] == 8
    assert row["choices"][0]["logprobs"] is None


def test_without_a_limit_sixteen_tokens_are_written(tiny_server: Running) -> None:
    row = ok(tiny_server.post(PATH, {"prompt": "the sky is", "temperature": 0}))
    assert row["usage"]["completion_tokens"] <= 16


def test_a_prompt_of_tokens_is_the_same_as_its_text(tiny_server: Running) -> None:
    told = ok(tiny_server.post("/tokenize", {"prompt": "the sky is", "return_token_strs": True}))
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert told["max_model_len"] == 2048
    assert complete(tiny_server, prompt=told["tokens"])["choices"] == complete(tiny_server)["choices"]
    plain = ok(tiny_server.post("/tokenize", {"prompt": "the sky is", "add_special_tokens": False}))["tokens"]
    assert ok(tiny_server.post("/detokenize", {"tokens": plain}))["prompt"] == "the sky is"
    refused(tiny_server.post(PATH, {"prompt": [10**8]}), 400)
    refused(tiny_server.post("/detokenize", {"tokens": [10**8]}), 400)


def test_several_prompts_are_continued_each_in_their_order(tiny_server: Running) -> None:
    prompts = [f"the sky {number}" for number in range(9)]  # more than go through the model together
    row = complete(tiny_server, prompt=prompts)
    assert [choice["index"] for choice in row["choices"]] == list(range(9))
    assert [choice["text"] for choice in row["choices"]] == [text_of(tiny_server, prompt, 8) for prompt in prompts]


def test_streamed_chunks_are_valid_and_join_to_the_whole(tiny_server: Running) -> None:
    fields = {"prompt": ["the sky is", "light"], "max_tokens": 10, "temperature": 0, "logprobs": 2}
    whole = complete(tiny_server, **fields)
    chunks = tiny_server.chunks(PATH, **fields, stream_options={"include_usage": True})
    for chunk in chunks:
        check(chunk)
    for choice in whole["choices"]:
        own = [each for chunk in chunks for each in chunk["choices"] if each["index"] == choice["index"]]
        assert "".join(each["text"] for each in own) == choice["text"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        assert all(each["finish_reason"] is None for each in own[:-1])
        for name in ("tokens", "token_logprobs", "text_offset"):
            assert [item for each in own if each["logprobs"] for item in each["logprobs"][name]] == (
                choice["logprobs"][name]
            )
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [chunks[-1]["usage"][name] for name in counts] == [whole["usage"][name] for name in counts]


def test_echo_tells_the_prompt_again_with_the_likelihood_of_its_tokens(tiny_server: Running) -> None:
    row = complete(tiny_server, echo=True, logprobs=3, max_tokens=1)
    choice = row["choices"][0]
    told = choice["logprobs"]
    assert choice["text"].startswith("the sky is")
    assert told["token_logprobs"][0] is None
    assert told["top_logprobs"][0] is None
    assert all(value <= 0 for value in told["token_logprobs"][1:])
    assert len(told["tokens"]) == len(told["token_logprobs"]) == len(told["top_logprobs"]) == len(told["text_offset"])
    expected = tiny_server.engine.score("the", [" sky is"])[0]
    count = len(ok(tiny_server.post("/tokenize", {"prompt": "the"}))["tokens"])
    assert sum(told["token_logprobs"][count:-1]) == pytest.approx(expected, abs=1e-4)
    for value, top in zip(told["token_logprobs"][1:], told["top_logprobs"][1:], strict=True):
        assert max(top.values()) >= value - 1e-9
    offsets = told["text_offset"]
    assert offsets == sorted(offsets)
    assert math.isfinite(told["token_logprobs"][-1])


def test_echo_of_a_text_alone_writes_nothing(tiny_server: Running) -> None:
    assert complete(tiny_server, echo=True, max_tokens=0)["choices"][0]["text"] == "the sky is"
    row = complete(tiny_server, echo=True, max_tokens=0, logprobs=0)
    assert row["usage"]["completion_tokens"] == 0
    refused(tiny_server.post(PATH, {"prompt": "x", "max_tokens": 0}), 400, "max_tokens")


def test_the_likeliest_of_several_is_chosen(tiny_server: Running) -> None:
    many = complete(tiny_server, temperature=1, seed=3, n=4, logprobs=0)["choices"]
    best = complete(tiny_server, temperature=1, seed=3, n=1, best_of=4, logprobs=0)["choices"]

    def mean(choice: dict[str, Any]) -> float:
        values = choice["logprobs"]["token_logprobs"]
        return float(sum(values) / len(values))

    assert len(best) == 1
    assert best[0]["text"] == max(many, key=mean)["text"]
    refused(tiny_server.post(PATH, {"prompt": "x", "n": 3, "best_of": 2}), 400, "best_of")
    refused(tiny_server.post(PATH, {"prompt": "x", "best_of": 2, "stream": True}), 400, "best_of")


def test_a_stop_string_ends_the_text_before_it(tiny_server: Running) -> None:
    whole = text_of(tiny_server, "the sky is", 8)
    middle = whole[len(whole) // 2 :][:3]
    choice = complete(tiny_server, stop=[middle])["choices"][0]
    assert choice["text"] == whole[: whole.index(middle)]
    assert choice["finish_reason"] == "stop"


def test_the_same_seed_gives_the_same_text_and_another_another(tiny_server: Running) -> None:
    def drawn(seed: int) -> str:
        return str(complete(tiny_server, temperature=1.5, seed=seed, max_tokens=20)["choices"][0]["text"])

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(5)}) > 1
    assert drawn(-1) == drawn(-1)


def test_what_completions_cannot_do_is_refused(tiny_server: Running) -> None:
    refused(tiny_server.post(PATH, {"prompt": "x", "suffix": "y"}), 400, "suffix")
    refused(tiny_server.post(PATH, {"prompt": ""}), 400, "prompt")
    refused(tiny_server.post(PATH, {"prompt": []}), 400, "prompt")
    refused(tiny_server.post(PATH, {"prompt": [["x"]]}), 400, "prompt")
    refused(tiny_server.post(PATH, {}), 400, "prompt")


def test_what_a_benchmark_wants_to_know_of_the_tokenizer(tiny_server: Running) -> None:
    info = ok(tiny_server.client.get("/tokenizer_info"))
    assert info["model_max_length"] == 2048
    assert info["eos_token"]
