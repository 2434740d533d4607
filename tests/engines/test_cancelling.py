"""A request that is given up from another thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tiny import make_tiny

from selfee.chain.run import stream_chain
from selfee.chain.types import CutReason
from selfee.engines.base import (
    ChatEngine,
    CountingEngine,
    Engine,
    FinishReason,
    Request,
    SamplingParams,
    ScoringEngine,
)
from selfee.engines.cancelling import Cancellation, cancellable
from selfee.engines.local import LocalEngine
from selfee.engines.runtime import load_runtime
from selfee.engines.scripted import Reply, Rule, ScriptedEngine
from selfee.errors import UsageError

NO_END = SamplingParams(temperature=0.0, logit_bias={0: -100.0, 1: -100.0, 2: -100.0})


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    path = make_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", n_ctx=16_384)
    with LocalEngine(load_runtime(path), parallel=2) as engine:
        yield engine


def test_a_stream_ends_as_cancelled_at_the_next_token(engine: LocalEngine) -> None:
    cancellation = Cancellation()
    stream = cancellable(engine, cancellation).stream(Request("the sky", NO_END, max_tokens=200))
    for _ in range(3):
        next(stream)
    cancellation.set()
    rest = list(stream)
    assert rest[-1].finish_reason is FinishReason.CANCELLED
    assert len(rest) <= 2


def test_a_prompt_is_not_read_to_its_end_once_it_is_given_up(engine: LocalEngine) -> None:
    cancellation = Cancellation()
    prompt = "the sky is blue because " * 2500
    threading.Timer(0.05, cancellation.set).start()
    last = list(cancellable(engine, cancellation).stream(Request(prompt, NO_END, max_tokens=5)))[-1]
    assert last.finish_reason is FinishReason.CANCELLED
    began = time.monotonic()
    *_, fresh = engine.stream(Request("the sea" + prompt, NO_END, max_tokens=1))
    whole = time.monotonic() - began
    assert last.usage is not None
    assert last.usage.completion_tokens == 0
    assert last.usage.prompt_seconds + last.usage.completion_seconds < whole
    *_, again = engine.stream(Request(prompt, NO_END, max_tokens=1))  # what was read stays usable
    assert again.usage is not None
    assert fresh.finish_reason is FinishReason.LENGTH
    assert again.finish_reason is FinishReason.LENGTH


def test_a_request_given_up_before_it_begins_computes_nothing(engine: LocalEngine) -> None:
    cancellation = Cancellation()
    cancellation.set()
    chunks = list(cancellable(engine, cancellation).stream(Request("the sky", NO_END, max_tokens=50)))
    assert [chunk.finish_reason for chunk in chunks] == [FinishReason.CANCELLED]


def test_others_are_not_disturbed(engine: LocalEngine) -> None:
    alone = "".join(chunk.text for chunk in engine.stream(Request("light", NO_END, max_tokens=60)))
    cancellation = Cancellation()
    other = cancellable(engine, cancellation).stream(Request("the sky", NO_END, max_tokens=200))
    stream = engine.stream(Request("light", NO_END, max_tokens=60))
    done: list[str] = []

    def write() -> None:
        done.append("".join(chunk.text for chunk in stream))

    thread = threading.Thread(target=write)
    thread.start()
    next(other)
    cancellation.set()
    list(other)
    thread.join()
    assert done == [alone]


def test_a_chain_that_is_given_up_says_so_and_keeps_what_was_made() -> None:
    engine = ScriptedEngine(["A whole answer.", Reply("Feedback that never ends.", delay=0.02)], strict=False)
    cancellation = Cancellation()
    with stream_chain(cancellable(engine, cancellation), "Why?") as stream:
        for number, _ in enumerate(stream):
            if number == 6:
                cancellation.set()
    assert stream.chain.cut is CutReason.CANCELLED
    assert stream.chain.final == "A whole answer."


def test_the_engine_can_what_it_could_and_nothing_else() -> None:
    plain = cancellable(ScriptedEngine(strict=False), Cancellation())
    scoring = cancellable(ScriptedEngine(scores={"a": -1.0}, strict=False), Cancellation())
    assert isinstance(plain, Engine)
    assert isinstance(plain, ChatEngine)
    assert isinstance(scoring, CountingEngine) == isinstance(ScriptedEngine(strict=False), CountingEngine)
    assert isinstance(scoring, ScoringEngine)
    assert list(scoring.score("x", ["a"])) == [-1.0]
    assert isinstance(scoring, CountingEngine)
    assert scoring.count_tokens("two words") == 2

    class Bare:
        name = "bare"
        context_length = None

    assert not isinstance(cancellable(Bare(), Cancellation()), Engine | ChatEngine | CountingEngine)


def test_whoever_listens_late_is_told_at_once() -> None:
    cancellation, heard = Cancellation(), []
    cancellation.set()
    with cancellation.heard_by(lambda: heard.append(1)):
        pass
    cancellation.set()
    assert heard == [1]


def test_a_prompt_may_be_tokens(engine: LocalEngine) -> None:
    tokens = tuple(token for token, _ in engine.tokenize("the sky is"))
    texts = [
        "".join(chunk.text for chunk in engine.stream(request))
        for request in (
            Request("the sky is", NO_END, max_tokens=20),
            Request("", NO_END, max_tokens=20, tokens=tokens),
        )
    ]
    assert texts[0] == texts[1]
    assert engine.detokenize([token for token, _ in engine.tokenize("the sky is", add_special=False)]) == "the sky is"
    with pytest.raises(UsageError, match="does not exist"):
        engine.stream(Request("", NO_END, tokens=(10**9,)))


def test_rules_of_a_script_are_cancelled_too() -> None:
    engine = ScriptedEngine(rules=[Rule(Reply("one two three four five", delay=0.01))])
    cancellation = Cancellation()
    stream = cancellable(engine, cancellation).stream(Request("x"))
    next(stream)
    cancellation.set()
    assert list(stream)[-1].finish_reason is FinishReason.CANCELLED
    assert engine.cancelled == 1


def test_a_session_is_free_again_after_a_request_was_given_up(engine: LocalEngine, tmp_path: Path) -> None:
    for _ in range(5):
        cancellation = Cancellation()
        stream = cancellable(engine, cancellation).stream(Request("the sky", NO_END, max_tokens=20))
        next(stream)
        cancellation.set()
        list(stream)
    assert "".join(chunk.text for chunk in engine.stream(Request("the sky", NO_END, max_tokens=3)))
