"""A worker whose engine is somebody else's server: here our own, as any that speaks OpenAI's API."""

from __future__ import annotations

from pathlib import Path

from tests.serve.fleet.parts import fleet
from tests.serve.fleet.test_fleet import TEXTS, native, texts
from tests.serve.harness import QUESTION, serving
from tests.serve.web.site import story
from tests.tiny import make_tiny

from selfee.chain.format import render_prompt
from selfee.chain.types import Instruction
from selfee.engines.base import Request, SamplingParams
from selfee.engines.connection import Limits, Timeouts
from selfee.engines.local import LocalEngine
from selfee.engines.remote import RemoteEngine
from selfee.engines.retry import RetryPolicy
from selfee.engines.runtime import load_runtime

QUICK = Limits(Timeouts(stall=5.0), RetryPolicy(attempts=2, first_delay=0.01, max_delay=0.02))


def test_a_chain_is_made_through_controller_worker_and_an_upstream_server() -> None:
    with (
        serving(story(0.001)) as upstream,
        fleet([RemoteEngine(f"{upstream.url}/v1", "script", limits=QUICK)]) as running,
    ):
        events = native(running)
        assert texts(events) == TEXTS
        assert events[-1]["stop_cause"] == "autonomous"
        told = running.ask("/v1/chat/completions", {"messages": [QUESTION]}).json()
        assert told["choices"][0]["message"]["content"] == TEXTS[2]
        assert upstream.service.is_busy is False


def test_an_upstream_model_gives_the_text_that_it_gives_here(tmp_path: Path) -> None:
    engine = LocalEngine(load_runtime(make_tiny(tmp_path / "tiny.gguf", n_ctx=2048)), parallel=2)
    prompt = render_prompt(Instruction("Why?"))
    here = "".join(chunk.text for chunk in engine.stream(Request(prompt, SamplingParams(temperature=0), 40)))
    with (
        serving(engine) as upstream,
        fleet([RemoteEngine(f"{upstream.url}/v1", "script", limits=QUICK)], mode="guided") as running,
    ):
        body = {"prompt": prompt, "max_tokens": 40, "temperature": 0}
        row = running.ask("/v1/completions", body).json()
        assert row["choices"][0]["text"] == here
        assert row["usage"]["completion_tokens"] == 40


def test_an_upstream_that_is_not_there_is_a_clear_error() -> None:
    """What breaks in the middle is in test_upstream.py: a worker drives the same engine."""
    with fleet([RemoteEngine("http://127.0.0.1:9/v1", "script", limits=QUICK)]) as running:
        answer = running.ask("/v1/chat/completions", {"messages": [QUESTION]})
        assert answer.status_code in (502, 503), answer.text
        assert "127.0.0.1:9" in answer.json()["error"]["message"]
