"""The process that computes gives what a thread gives, and what goes through the pipe comes out as it went in."""

from __future__ import annotations

import asyncio
import ctypes
import math
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.serve.harness import backend_of
from tests.serve.processes import served_process
from tests.tiny import make_tiny

from selfee.chain.allowance import Allowance
from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.chain.types import (
    Chain,
    ChainEnd,
    ChainFinished,
    Cost,
    CutReason,
    Exchange,
    Instruction,
    Overrule,
    Overruled,
    Section,
    SectionEnd,
    SectionStart,
    Step,
    TextDelta,
    Verdict,
    VerdictSource,
)
from selfee.engines.base import Chunk, FinishReason, SamplingParams, TokenLogprob, Usage
from selfee.engines.cancelling import Cancellation
from selfee.engines.local import LocalEngine
from selfee.engines.runtime import load_runtime
from selfee.engines.scoring import ScoredSequence, ScoredToken
from selfee.errors import ContextOverflowError, EngineError, UsageError
from selfee.serve.engine.backend import Backend
from selfee.serve.engine.jobs import ChainJob, Outcome, TextJob
from selfee.serve.engine.wire import (
    error_from_json,
    error_to_json,
    job_from_json,
    job_to_json,
    outcome_from_json,
    outcome_to_json,
    sequence_from_json,
    sequence_to_json,
)

T = TypeVar("T")
PARAMS = SamplingParams(temperature=0.5, seed=3, logit_bias={5: -math.inf, 7: 1.5}, samplers=("top_k", "temperature"))
STEP = Step("a", "b. Revision is needed.", Verdict(True, VerdictSource.USER), answer_cost=Cost(1, 0.5, 2, 1, (3,)))
JOBS = (
    TextJob("x", PARAMS, 5, ("\n",), 3),
    TextJob("", SamplingParams(), 5, (), None, (1, 2, 3)),
    ChainJob(Instruction("q", "i", (Exchange("a", "b"),), "s"), RevisionPolicy(1, None), PARAMS),
    ChainJob(
        Instruction("q"),
        RevisionPolicy(),
        PARAMS,
        Budgets(1, 2, 3),
        Allowance(5, 2.5),
        "turns",
        "small",
        ("x",),
        (STEP,),
        "key-1",
        True,
        '{"type": "object"}',
    ),
)
OUTCOMES: tuple[Outcome, ...] = (
    TextDelta("é\u2028"),
    SectionStart(Section.FEEDBACK, 2),
    SectionEnd(Section.ANSWER, 0, "t", False, None, Cost(1, 0.1, 2, 3, (4, 5), 6, 7, -0.5)),
    SectionEnd(Section.FEEDBACK, 1, "t", True, Verdict(False, VerdictSource.CHOICE, "p", 0.25, True), None),
    Overruled(1, "f", Overrule.APPENDED),
    ChainFinished(Chain(Instruction("q"), (STEP,), ChainEnd.CUT_OFF, "s", CutReason.LENGTH, 0, 1, "m", "e", {"a": 1})),
    Chunk("x"),
    Chunk("", FinishReason.END, Usage(1, 2, 3, 0.1, 0.2, 4, 5, 6), None),
    Chunk("y", FinishReason.STOP, None, "stop", (TokenLogprob(1, "a", -0.5, ((1, "a", -0.5), (2, "b", -1.0))),)),
)


@pytest.mark.parametrize("job", JOBS)
def test_jobs_go_through_the_pipe_unchanged(job: Any) -> None:
    assert job_from_json(job_to_json(job)) == job


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_outcomes_go_through_the_pipe_unchanged(outcome: Outcome) -> None:
    found = outcome_from_json(outcome_to_json(outcome))
    assert found == outcome
    if isinstance(outcome, SectionEnd) and isinstance(found, SectionEnd):
        assert found.cost == outcome.cost
        assert repr(found.verdict) == repr(outcome.verdict)


def test_scores_go_through_the_pipe_unchanged() -> None:
    token = ScoredToken(1, "a", -0.25, True, ((1, "a", -0.25), (2, "b", -2.0)))
    sequence = ScoredSequence((ScoredToken(0, "<s>"), token), token, 2)
    assert sequence_from_json(sequence_to_json(sequence)) == sequence


def test_errors_keep_their_kind() -> None:
    for error in (UsageError("u"), ContextOverflowError("c"), EngineError("e", retryable=True)):
        found = error_from_json(error_to_json(error))
        assert type(found) is type(error)
        assert str(found) == str(error)
        assert getattr(found, "retryable", None) == getattr(error, "retryable", None)
    assert isinstance(error_from_json(error_to_json(ZeroDivisionError("x"))), EngineError)


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", n_ctx=1024)


def with_both(path: Path, work: Callable[[Backend], Coroutine[Any, Any, T]]) -> tuple[T, T]:
    """What the work gives with a process, and with threads."""

    async def run(backend: Backend) -> T:
        await backend.start()
        try:
            return await work(backend)
        finally:
            await backend.close()

    engine = LocalEngine(load_runtime(path), parallel=2)
    return asyncio.run(run(served_process(path).backend)), asyncio.run(run(backend_of(engine, mode="guided")))


async def gathered(outcomes: AsyncIterator[Outcome]) -> list[str]:
    """Texts and kinds of what came: what does not depend on the clock."""
    found = []
    async for outcome in outcomes:
        text = getattr(outcome, "text", "")
        found.append(f"{type(outcome).__name__} {text}")
    return found


def test_a_process_gives_the_same_as_a_thread(tiny_path: Path) -> None:
    async def work(backend: Backend) -> list[Any]:
        greedy = SamplingParams(temperature=0.0)
        chain = ChainJob(Instruction("Why?"), RevisionPolicy(1, 1), greedy, Budgets(20, 20, 20), mode="guided")
        return [
            await gathered(backend.run(TextJob("the sky is", greedy, 20, logprobs=1), Cancellation())),
            await gathered(backend.run(chain, Cancellation())),
            await backend.count_tokens("the sky"),
            [tuple(pair) for pair in await backend.tokenize("the sky is", add_special=True)],
            await backend.detokenize([5, 6, 7]),
            await backend.score(["the sky is", [1, 5, 6]], top=2),
        ]

    process, threads = with_both(tiny_path, work)
    assert process == threads


POOLS = """
import ctypes, sys, threading
from selfee.serve.engine.child import use_one_pool
if sys.argv[1] == "one":
    use_one_pool()
together = threading.Barrier(8)
def work():
    together.wait()
    kept = [bytearray(1000) for _ in range(1000)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def test_the_process_has_one_pool_of_memory_for_all_threads(tmp_path: Path) -> None:
    """With one for each thread it grows for minutes: what one thread frees is not there for the next."""
    if not hasattr(ctypes.CDLL(None), "malloc_info"):
        pytest.skip("not glibc")
    counts = {}
    for how in ("one", "many"):
        subprocess.run([sys.executable, "-c", POOLS, how, str(tmp_path / how)], check=True, timeout=60)
        counts[how] = (tmp_path / how).read_text().count("<heap ")
    assert counts["one"] == 1 < counts["many"]


def test_a_job_that_is_closed_leaves_nothing_behind(tiny_path: Path) -> None:
    async def work(backend: Backend) -> list[str]:
        job = TextJob("the sky is", SamplingParams(temperature=0.0, logit_bias={0: -100.0, 2: -100.0}), 800)
        for count in (1, 3, 10):
            seen = 0
            async with aclosing(backend.run(job, Cancellation())) as outcomes:
                async for _ in outcomes:
                    seen += 1
                    if seen == count:
                        break
        task = asyncio.create_task(gathered(backend.run(job, Cancellation())))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        short = TextJob("the sky is", SamplingParams(temperature=0.0), 4)
        return await gathered(backend.run(short, Cancellation()))

    process, threads = with_both(tiny_path, work)
    assert process == threads


def test_scoring_that_nobody_waits_for_is_given_up(tiny_path: Path) -> None:
    prompts = [[number + 5, *[5 + token % 40 for token in range(500)]] for number in range(12)]

    async def work(backend: Backend) -> bool:
        await backend.score(["the sky"], top=0)  # whatever is made at the first time
        began = time.monotonic()
        await backend.score(prompts[:6], top=0)
        whole = time.monotonic() - began
        task = asyncio.create_task(backend.score(prompts[6:], top=0))
        await asyncio.sleep(0.02)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await backend.score(["the sea"], top=0)  # waits for its turn
        assert time.monotonic() - began < whole
        cut = asyncio.create_task(backend.score([[*each, 7] for each in prompts], top=0))
        await asyncio.sleep(0.02)
        await backend.cut()
        with pytest.raises(EngineError, match="given up"):
            await cut
        return True

    assert with_both(tiny_path, work) == (True, True)


def test_errors_of_the_engine_come_as_they_are(tiny_path: Path) -> None:
    async def work(backend: Backend) -> str:
        with pytest.raises(ContextOverflowError) as caught:
            await gathered(backend.run(TextJob("the sky " * 3000, SamplingParams(), 4), Cancellation()))
        return str(caught.value)

    process, threads = with_both(tiny_path, work)
    assert process == threads
