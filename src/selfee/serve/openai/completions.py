"""``/v1/completions``: texts continued as they stand, with log-probabilities; a chain only where it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from selfee.chain.asking import derive_seed
from selfee.engines.base import Chunk, FinishReason, TokenLogprob, Usage
from selfee.engines.cancelling import Cancellation
from selfee.serve.admission import Ticket
from selfee.serve.asking import fresh_seed, params_of
from selfee.serve.engine.jobs import TextJob
from selfee.serve.openai.echoing import Echo, echoes_of
from selfee.serve.openai.looping import LoopWriter, asks_for_chain, plan_loop
from selfee.serve.openai.merging import merged
from selfee.serve.openai.writing import Row, Writer, as_events, head_of, respond
from selfee.serve.protocol.completions import CompletionRequest
from selfee.serve.protocol.errors import ApiError
from selfee.serve.service import Served, Service

_USUAL_TOKENS = 16  # as OpenAI has it


@dataclass(frozen=True)
class Plan:
    """One request, ready to be done: ``best_of`` jobs for each prompt, of which ``n`` are told."""

    model: Served
    jobs: tuple[TextJob, ...]
    count: int
    best_of: int
    echo: bool
    logprobs: int | None
    includes_usage: bool
    lanes: int  # jobs at a time


def completion_routes(service: Service) -> APIRouter:
    """Routes over a service."""
    router = APIRouter(tags=["openai"])

    @router.post("/v1/completions", operation_id="create_completion")
    async def create(request: Request) -> Response:
        """Continue a text as it stands; with ``selfee``, answer a prompt in SelFee's words by a chain."""
        asked = await service.read(request, CompletionRequest)
        model, suffix = service.find(asked.model)
        asked.check()
        owner = service.owner(request)
        writer: Writer
        if asks_for_chain(asked, suffix):
            loop = plan_loop(service, asked, model, suffix)
            loop = replace(loop, jobs=tuple(service.scoped(owner, job) for job in loop.jobs))
            tickets = model.admission.tickets(owner, len(loop.jobs))
            writer = LoopWriter(service, loop, tickets, str(asked.prompt) if asked.echo else "")
        else:
            plan = plan_completion(service, asked, model)
            plan = replace(plan, jobs=tuple(service.scoped(owner, job) for job in plan.jobs))
            writer = CompletionWriter(service, plan, model.admission.tickets(owner, plan.lanes))
        return await respond(service, request, writer, streams=bool(asked.stream))

    return router


def plan_completion(service: Service, asked: CompletionRequest, model: Served) -> Plan:
    """What is to be done. Raises ApiError (400)."""
    count, best_of = asked.n or 1, asked.best_of or asked.n or 1
    if best_of > (most := service.config.limits.choices):
        name = "best_of" if asked.best_of else "n"
        raise ApiError(400, f"{name}: {best_of}; expected 1 to {most} here", param=name, code="invalid_value")
    if not model.backend.info.can_complete:
        raise ApiError.refused("model", f"{model.name} only chats; expected one that completes texts")
    params = replace(fresh_seed(params_of(asked, model.defaults.params)), logit_bias=asked.biases())
    limit = _USUAL_TOKENS if asked.max_tokens is None else asked.max_tokens
    jobs = []
    for number, prompt in enumerate(asked.prompts()):
        text, tokens = (prompt, None) if isinstance(prompt, str) else ("", prompt)
        if not prompt:
            raise ApiError(400, "prompt: is empty; expected a text", param="prompt", code="invalid_value")
        for index in range(best_of):
            seed = derive_seed(params.seed or 0, number * best_of + index, "completion")
            told = 0 if asked.logprobs is None and best_of > count else asked.logprobs
            jobs.append(TextJob(text, replace(params, seed=seed), limit, asked.stops(), told, tokens))
    includes_usage = asked.stream_options is not None and asked.stream_options.include_usage
    lanes = min(len(jobs), model.backend.info.parallel, service.config.limits.per_key)
    return Plan(model, tuple(jobs), count, best_of, bool(asked.echo), asked.logprobs, includes_usage, lanes)


@dataclass
class _Text:
    """One continuation as it grows."""

    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: str | None = None
    usage: Usage | None = None

    def take(self, chunk: Chunk) -> None:
        self.pieces.append(chunk.text)
        self.logprobs += chunk.logprobs
        if chunk.finish_reason is not None:
            self.reason, self.usage = _REASONS[chunk.finish_reason], chunk.usage

    @property
    def score(self) -> float:
        """Mean log-probability of its tokens."""
        return sum(token.logprob for token in self.logprobs) / max(1, len(self.logprobs))


_REASONS = {
    FinishReason.END: "stop",
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CONTEXT: "length",
    FinishReason.CANCELLED: "stop",
}


class CompletionWriter:
    """Does the jobs of one request and writes the answer."""

    def __init__(self, service: Service, plan: Plan, tickets: list[Ticket]) -> None:
        self._service = service
        self._plan = plan
        self._tickets = tickets
        self._texts = [_Text() for _ in plan.jobs]
        self._echoes: Sequence[Echo] = ()
        self._echoing = asyncio.Lock()
        self._head = head_of("cmpl-", "text_completion", plan.model.name)

    def release(self) -> None:
        """See ``Writer.release``."""
        for ticket in self._tickets:
            ticket.release()

    async def whole(self) -> dict[str, Any]:
        """See ``Writer.whole``."""
        async with aclosing(self._pieces()) as pieces:
            async for _ in pieces:
                pass
        choices: list[dict[str, Any]] = []
        for number in range(len(self._plan.jobs) // self._plan.best_of):
            for index in self._best(number):
                choices.append(self._choice(len(choices), index, number))
        return self._head | {"choices": choices, "usage": self._usage()}

    def _best(self, number: int) -> list[int]:
        """Which of a prompt's continuations are told."""
        first, count = number * self._plan.best_of, self._plan.best_of
        own = list(range(first, first + count))
        if count == self._plan.count:
            return own
        return sorted(own, key=lambda index: -self._texts[index].score)[: self._plan.count]

    def _choice(self, position: int, index: int, number: int) -> dict[str, Any]:
        text = self._texts[index]
        echo = self._echoes[number] if self._echoes else Echo()
        logprobs = None
        if self._plan.logprobs is not None:
            logprobs = logprobs_object([*echo.tokens, *text.logprobs], 0, self._plan.logprobs)
        written = echo.text + "".join(text.pieces)
        return {"index": position, "text": written, "logprobs": logprobs, "finish_reason": text.reason or "stop"}

    def stream(self) -> AsyncIterator[bytes]:
        """See ``Writer.stream``."""
        return as_events(self._head, self._rows(), self._usage if self._plan.includes_usage else None)

    async def _rows(self) -> AsyncGenerator[Row, None]:
        offsets = [0] * len(self._plan.jobs)
        async with aclosing(self._pieces()) as pieces:
            async for index, text, tokens, reason in pieces:
                logprobs = None
                if self._plan.logprobs is not None and tokens:
                    logprobs = logprobs_object(tokens, offsets[index], self._plan.logprobs)
                offsets[index] += sum(len(token.text) for token in tokens)
                yield {"choices": [{"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}]}

    async def _pieces(self) -> AsyncGenerator[_Piece, None]:
        lanes = [self._lane(number) for number in range(len(self._tickets))]
        async with aclosing(merged(lanes)) as pieces:
            async for piece in pieces:
                yield piece

    async def _lane(self, lane: int) -> AsyncGenerator[_Piece, None]:
        """Every so-manieth job, one after another, in one place."""
        plan = self._plan
        async with self._tickets[lane]:
            if plan.echo:
                async with self._echoing:
                    if not self._echoes:
                        self._echoes = await echoes_of(plan.model.backend, plan.jobs[:: plan.best_of], plan.logprobs)
            for index in range(lane, len(plan.jobs), len(self._tickets)):
                if plan.echo:
                    echo = self._echoes[index // plan.best_of]
                    yield index, echo.text, list(echo.tokens), None
                async with aclosing(self._chunks(index)) as chunks:
                    async for chunk in chunks:
                        self._texts[index].take(chunk)
                        yield index, chunk.text, list(chunk.logprobs), self._texts[index].reason
        self._service.metrics.text(
            plan.model.name, [self._texts[index].usage for index in range(lane, len(plan.jobs), len(self._tickets))]
        )

    async def _chunks(self, index: int) -> AsyncGenerator[Chunk, None]:
        job = self._plan.jobs[index]
        echo = self._echoes[index // self._plan.best_of] if self._echoes else Echo()
        if (known := echo.continuation(job)) is not None:
            yield known
            return
        async with aclosing(self._plan.model.backend.run(job, Cancellation())) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Chunk), "a text gives chunks"
                if outcome.finish_reason is FinishReason.CANCELLED:
                    raise ApiError.stopping()
                yield outcome

    def _usage(self) -> dict[str, Any]:
        prompt = completion = cached = 0
        for index, text in enumerate(self._texts):
            if text.usage is None:
                continue
            completion += text.usage.completion_tokens
            if index % self._plan.best_of == 0:
                prompt += text.usage.prompt_tokens
                cached += text.usage.cached_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        }


_Piece = tuple[int, str, list[TokenLogprob], str | None]
"""Index of the choice, what is new, its tokens, why it ended."""


def logprobs_object(tokens: Sequence[TokenLogprob], offset: int, wanted: int) -> dict[str, Any]:
    """Log-probabilities in the form of completions; a first token, before which nothing stands, has none."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    known = [token.logprob == token.logprob for token in tokens]  # NaN = none
    tops: list[dict[str, float] | None] = []
    for token, is_known in zip(tokens, known, strict=True):
        if not is_known:
            tops.append(None)
            continue
        top: dict[str, float] = {}
        for _, text, value in token.top[:wanted]:
            top.setdefault(text, value)
        tops.append(top)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob if is_known else None for token, is_known in zip(tokens, known, strict=True)],
        "top_logprobs": tops if wanted else None,
        "text_offset": offsets,
    }
