"""Does one job with an engine, in the thread that calls it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from selfee.chain.run import stream_chain
from selfee.engines.base import Engine, Request
from selfee.engines.cancelling import Cancellation, cancellable
from selfee.engines.scoring import ScoredSequence, ScoringRequest, token_scoring_of
from selfee.errors import UsageError
from selfee.serve.engine.jobs import ChainJob, Job, Outcome, TextJob


def outcomes(engine: object, job: Job, cancellation: Cancellation) -> Iterator[Outcome]:
    """What the job gives. Raises SelfeeError; once ``cancellation`` is set, it ends soon, as cut off."""
    if isinstance(job, ChainJob):
        return _chain(engine, job, cancellation)
    return _text(engine, job, cancellation)


def _chain(engine: object, job: ChainJob, cancellation: Cancellation) -> Iterator[Outcome]:
    with stream_chain(
        cancellable(engine, cancellation, job.scope, logprobs=job.logprobs),
        job.instruction,
        job.policy,
        job.params,
        mode=job.mode,
        budgets=job.budgets,
        prompts=job.prompts,
        stop=job.stop,
        allowance=job.allowance,
        start=job.start,
        schema=job.schema,
    ) as events:
        yield from events


def _text(engine: object, job: TextJob, cancellation: Cancellation) -> Iterator[Outcome]:
    if not isinstance(engine, Engine):
        raise UsageError("completions: this model only chats; expected one that completes text; use chat completions")
    yield from cancellable(engine, cancellation, job.scope).stream(
        Request(job.prompt, job.params, job.max_tokens, job.stop, job.logprobs, tokens=job.tokens)
    )


def call(engine: Any, name: str, cancellation: Cancellation, **words: Any) -> Any:
    """What an engine tells of texts and tokens. Raises UsageError where it cannot tell.

    Scoring ends soon after ``cancellation`` is set, with an EngineError; the others take no time.
    """
    if name == "score":
        return score(engine, cancellation=cancellation, **words)
    method = getattr(engine, name, None)
    if method is None:
        raise UsageError(
            f"model: {getattr(engine, 'name', 'this one')} does not tell its tokens; expected one that runs here"
        )
    return method(**words)


def score(
    engine: object, prompts: Sequence[str | Sequence[int]], top: int, cancellation: Cancellation, scope: str = ""
) -> list[ScoredSequence]:
    """How likely the tokens of prompts are, each given those before it."""
    scorer = token_scoring_of(engine)
    if scorer is None:
        raise UsageError("echo: this model does not score tokens; expected one that runs here; leave logprobs out")
    tokens = [scorer.encode_text(prompt) if isinstance(prompt, str) else list(prompt) for prompt in prompts]
    requests = [ScoringRequest(tuple(each), top=top, cancellation=cancellation, scope=scope) for each in tokens]
    return scorer.score_tokens(requests)
