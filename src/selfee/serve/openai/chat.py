"""``/v1/chat/completions``: the whole chain in one block of reasoning, then the final answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from selfee.chain.allowance import Allowance
from selfee.chain.asking import derive_seed
from selfee.chain.policy import RevisionPolicy
from selfee.chain.types import Chain, ChainFinished, CutReason, Event
from selfee.engines.cancelling import Cancellation
from selfee.errors import SelfeeError
from selfee.serve.admission import Ticket
from selfee.serve.asking import Suffix, View, fresh_seed, instruction_of, params_of, policy_of
from selfee.serve.engine.jobs import ChainJob
from selfee.serve.event_stream import DONE, EventStream, data_event, unless_gone
from selfee.serve.native.telling import stop_cause
from selfee.serve.openai.merging import merged, once_written, together
from selfee.serve.openai.telling import (
    AnswerText,
    RawText,
    ReasoningText,
    about,
    finish_reason,
    pieces,
    usage_of,
)
from selfee.serve.protocol.chat import EFFORT_ROUNDS, ChatRequest, SelfeeOptions
from selfee.serve.protocol.errors import ApiError, from_selfee
from selfee.serve.service import Served, Service


@dataclass(frozen=True)
class Plan:
    """One request, ready to be done: a job for each choice."""

    model: Served
    jobs: tuple[ChainJob, ...]
    view: View
    includes_usage: bool

    @property
    def is_plain(self) -> bool:
        """Whether there is one answer and nothing else to tell."""
        policy = self.jobs[0].policy
        return policy.max_revisions == 0 and self.view == "final"


def chat_routes(service: Service) -> APIRouter:
    """Routes over a service."""
    router = APIRouter(tags=["openai"])

    @router.post("/v1/chat/completions", operation_id="create_chat_completion")
    async def create(request: Request) -> Response:
        """Answer a conversation, revising the answer; its chain comes as reasoning."""
        asked = await service.read(request, ChatRequest)
        plan = plan_chat(service, asked)
        plan = replace(plan, jobs=tuple(service.scoped(service.owner(request), job) for job in plan.jobs))
        tickets = plan.model.admission.tickets(service.owner(request), len(plan.jobs))
        writer = ChatWriter(service, plan, tickets)
        if asked.stream:
            return EventStream(writer.stream(), service.pace, on_close=writer.release)
        try:
            return JSONResponse(await unless_gone(request, writer.whole()))
        finally:
            writer.release()

    return router


def plan_chat(service: Service, asked: ChatRequest) -> Plan:
    """What is to be done. Raises ApiError (400, 404)."""
    model, suffix = service.find(asked.model)
    asked.check()
    count = asked.n or 1
    most = service.config.limits.choices
    if count > most:
        raise ApiError(400, f"n: {count}; expected 1 to {most} here", param="n", code="invalid_value")
    options = asked.selfee or SelfeeOptions()
    effort = None if asked.reasoning_effort is None else EFFORT_ROUNDS[asked.reasoning_effort]
    policy = revisions_of(options, suffix, effort, model.defaults.policy)
    params = fresh_seed(params_of(asked, model.defaults.params))
    if biases := asked.biases():
        params = replace(params, logit_bias=biases)
    budgets = model.defaults.budgets
    if asked.limit is not None and policy.max_revisions == 0:
        budgets = replace(budgets, answer=asked.limit)
    job = ChainJob(
        instruction_of(asked.messages),
        policy,
        params,
        budgets,
        Allowance(asked.limit),
        options.drive or model.defaults.mode,
        options.prompts or (model.defaults.prompts if options.drive in (None, model.defaults.mode) else None),
        asked.stops(),
    )
    seed = params.seed or 0
    jobs = tuple(
        replace(job, params=replace(params, seed=derive_seed(seed, index, "choice"))) for index in range(count)
    )
    view = options.view or suffix.view or "final"
    includes_usage = asked.stream_options is not None and asked.stream_options.include_usage
    return Plan(model, jobs, view, includes_usage)


def revisions_of(
    options: SelfeeOptions, suffix: Suffix, effort: int | None, defaults: RevisionPolicy
) -> RevisionPolicy:
    """How many revisions to make: said by a field, else by the model's name, else by the effort."""
    if options.mode == "off":
        return RevisionPolicy(0, 0)
    least, most = options.min_revisions, options.max_revisions
    if options.mode == "enforce" and least is None:
        least = 1 if most is None else most
    if least is None and most is None:
        if suffix.revisions is not None:
            return RevisionPolicy(suffix.revisions, suffix.revisions)
        most = effort
    return policy_of(least, most, defaults)


class ChatWriter:
    """Does the jobs of one request and writes the answer."""

    def __init__(self, service: Service, plan: Plan, tickets: list[Ticket]) -> None:
        self._service = service
        self._plan = plan
        self._tickets = tickets
        self._began = time.monotonic()
        self._chains: dict[int, Chain] = {}
        self._head = {
            "id": "chatcmpl-" + secrets.token_hex(12),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": plan.model.name,
            "system_fingerprint": "selfee",
            "service_tier": "default",
        }

    def release(self) -> None:
        """Give places back that were never used."""
        for ticket in self._tickets:
            ticket.release()

    async def whole(self) -> dict[str, Any]:
        """The answer as one object. Raises ApiError, SelfeeError."""
        choices = await together([self._choice(index) for index in range(len(self._plan.jobs))])
        usage = usage_of([self._chains[index] for index in sorted(self._chains)])
        return self._head | {"choices": choices, "usage": usage}

    async def _choice(self, index: int) -> dict[str, Any]:
        reasoning, raw = ReasoningText(), RawText()
        thought: list[str] = []
        written: list[str] = []
        async with aclosing(self._events(index)) as events:
            async for event in events:
                thought += [told.text for told in reasoning.tell(event)]
                written += [told.text for told in raw.tell(event)]
        chain = self._chains[index]
        content = {"final": chain.final, "raw": "".join(written), "inline": _inline("".join(thought), chain.final)}
        message: dict[str, Any] = {"role": "assistant", "content": content[self._plan.view], "refusal": None}
        if self._plan.view == "final" and not self._plan.is_plain:
            message |= {"reasoning_content": "".join(thought), "reasoning": "".join(thought)}
        message |= {"annotations": [], "selfee": about(chain)}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason(chain)}

    async def stream(self) -> AsyncIterator[bytes]:
        """The answer as chunks."""
        head = self._head | {"object": "chat.completion.chunk"}
        if self._plan.includes_usage:
            head |= {"usage": None}
        started = False
        try:
            parts = [self._deltas(index) for index in range(len(self._plan.jobs))]
            async with aclosing(merged(parts)) as deltas:
                async for index, delta, reason, mark in deltas:
                    started = True
                    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
                    yield data_event(head | {"choices": [choice]} | ({"selfee": mark} if mark else {}))
        except (ApiError, SelfeeError) as error:
            if not started:
                raise
            known = error if isinstance(error, ApiError) else from_selfee(error)
            yield data_event(known.body)
            return  # without [DONE]: nobody may take this for a whole answer
        if self._plan.includes_usage:
            usage = usage_of([self._chains[index] for index in sorted(self._chains)])
            yield data_event(head | {"choices": [], "usage": usage})
        yield DONE

    async def _deltas(self, index: int) -> AsyncGenerator[_Delta, None]:
        view, plan = self._plan.view, self._plan
        text: RawText | AnswerText | ReasoningText = ReasoningText()
        if view == "raw":
            text = RawText()
        elif plan.is_plain:
            text = AnswerText()
        names = ("content",) if view != "final" or plan.is_plain else ("reasoning_content", "reasoning")
        is_first, sent = True, 0
        async with aclosing(self._events(index)) as events:
            async for event in events:
                if is_first:
                    is_first = False
                    yield index, {"role": "assistant", "content": "", "refusal": None}, None, {}
                for told in text.tell(event):
                    sent += len(told.text)
                    if told.text or told.mark:
                        yield index, dict.fromkeys(names, told.text) if told.text else {}, None, told.mark
        chain = self._chains[index]
        if view != "raw" and not plan.is_plain:
            final = chain.final if view == "final" else _INLINE_GAP + chain.final
            for piece in pieces(final):
                yield index, {"content": piece}, None, {}
        yield index, {}, finish_reason(chain), {k: v for k, v in about(chain).items() if k != "chain"}

    async def _events(self, index: int) -> AsyncGenerator[Event, None]:
        """The events of one choice, when its turn has come. Raises where its chain failed."""
        model = self._plan.model
        async with (
            self._tickets[index],
            aclosing(model.backend.run(self._plan.jobs[index], Cancellation())) as stream,
            aclosing(once_written(stream)) as outcomes,
        ):
            async for outcome in outcomes:
                if self._began:
                    self._service.metrics.first_piece(model.name, time.monotonic() - self._began)
                    self._began = 0
                if isinstance(outcome, ChainFinished):
                    chain = outcome.chain
                    self._chains[index] = chain
                    self._service.note_chain(model.name, chain, stop_cause(chain))
                    if chain.cut in (CutReason.ERROR, CutReason.CANCELLED):
                        continue  # the error comes next
                yield outcome  # type: ignore[misc]
        if self._chains[index].cut is CutReason.CANCELLED:
            raise ApiError.stopping()


_Delta = tuple[int, dict[str, Any], str | None, dict[str, Any]]
"""Index of the choice, what is new, why it ended, where in the chain it belongs."""

_INLINE_GAP = "\n\n---\n\n"


def _inline(thought: str, final: str) -> str:
    return thought + _INLINE_GAP + final
