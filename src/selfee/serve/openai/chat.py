"""``/v1/chat/completions``: the whole chain in one block of reasoning, then the final answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from selfee.serve.admission import Ticket
from selfee.serve.asking import instruction_of
from selfee.serve.openai.chains import Chains, Plan, chain_job, checked_count, choices_of, revisions_of
from selfee.serve.openai.merging import merged, together
from selfee.serve.openai.telling import (
    AnswerText,
    RawText,
    ReasoningText,
    about,
    finish_reason,
    inline,
    pieces,
    usage_of,
)
from selfee.serve.openai.writing import Row, as_events, head_of, respond
from selfee.serve.protocol.chat import EFFORT_ROUNDS, ChatRequest, SelfeeOptions
from selfee.serve.service import Service


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
        return await respond(service, request, ChatWriter(service, plan, tickets), streams=bool(asked.stream))

    return router


def plan_chat(service: Service, asked: ChatRequest) -> Plan:
    """What is to be done. Raises ApiError (400, 404)."""
    model, suffix = service.find(asked.model)
    asked.check()
    count = checked_count(service, asked.n)
    options = asked.selfee or SelfeeOptions()
    effort = None if asked.reasoning_effort is None else EFFORT_ROUNDS[asked.reasoning_effort]
    policy = revisions_of(options, suffix, effort, model.defaults.policy)
    job = chain_job(model, asked, instruction_of(asked.messages), options, policy, asked.limit, asked.schema_text)
    if biases := asked.biases():
        job = replace(job, params=replace(job.params, logit_bias=biases))
    includes_usage = asked.stream_options is not None and asked.stream_options.include_usage
    return Plan(model, choices_of(job, count), options.view or suffix.view or "final", includes_usage)


class ChatWriter:
    """Does the jobs of one request and writes the answer."""

    def __init__(self, service: Service, plan: Plan, tickets: list[Ticket]) -> None:
        self._plan = plan
        self._chains = Chains(service, plan, tickets)
        self.release = self._chains.release
        self._head = head_of("chatcmpl-", "chat.completion", plan.model.name) | {"service_tier": "default"}

    async def whole(self) -> Row:
        """See ``Writer.whole``."""
        choices = await together([self._choice(index) for index in range(len(self._chains))])
        return self._head | {"choices": choices, "usage": usage_of(self._chains.made)}

    async def _choice(self, index: int) -> Row:
        reasoning, raw = ReasoningText(), RawText()
        thought: list[str] = []
        written: list[str] = []
        async with aclosing(self._chains.events(index)) as events:
            async for event in events:
                thought += [told.text for told in reasoning.tell(event)]
                written += [told.text for told in raw.tell(event)]
        chain = self._chains[index]
        content = {"final": chain.final, "raw": "".join(written), "inline": "".join(thought) + inline(chain)}
        message: Row = {"role": "assistant", "content": content[self._plan.view], "refusal": None}
        if self._plan.view == "final" and not self._plan.is_plain:
            message |= {"reasoning_content": "".join(thought), "reasoning": "".join(thought)}
        message |= {"annotations": [], "selfee": about(chain)}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason(chain)}

    def stream(self) -> AsyncIterator[bytes]:
        """See ``Writer.stream``."""
        usage = (lambda: usage_of(self._chains.made)) if self._plan.includes_usage else None
        return as_events(self._head | {"object": "chat.completion.chunk"}, self._rows(), usage)

    async def _rows(self) -> AsyncGenerator[Row, None]:
        parts = [self._deltas(index) for index in range(len(self._chains))]
        async with aclosing(merged(parts)) as deltas:
            async for index, delta, reason, mark in deltas:
                choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
                yield {"choices": [choice]} | ({"selfee": mark} if mark else {})

    async def _deltas(self, index: int) -> AsyncGenerator[_Delta, None]:
        view, plan = self._plan.view, self._plan
        text: RawText | AnswerText | ReasoningText = ReasoningText()
        if view == "raw":
            text = RawText()
        elif plan.is_plain:
            text = AnswerText()
        names = ("content",) if view != "final" or plan.is_plain else ("reasoning_content", "reasoning")
        is_first = True
        async with aclosing(self._chains.events(index)) as events:
            async for event in events:
                if is_first:
                    is_first = False
                    yield index, {"role": "assistant", "content": "", "refusal": None}, None, {}
                for told in text.tell(event):
                    if told.text or told.mark:
                        yield index, dict.fromkeys(names, told.text) if told.text else {}, None, told.mark
        chain = self._chains[index]
        if view != "raw" and not plan.is_plain:
            for piece in pieces(chain.final if view == "final" else inline(chain)):
                yield index, {"content": piece}, None, {}
        yield index, {}, finish_reason(chain), {k: v for k, v in about(chain).items() if k != "chain"}


_Delta = tuple[int, dict[str, Any], str | None, dict[str, Any]]
"""Index of the choice, what is new, why it ended, where in the chain it belongs."""
