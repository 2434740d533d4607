"""``/v1/responses``: every section of a chain as an item of its own, the final answer as the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from selfee.chain.types import (
    Chain,
    ChainFinished,
    CutReason,
    Event,
    Overruled,
    Section,
    SectionEnd,
    SectionStart,
    TextDelta,
    Verdict,
)
from selfee.engines.cancelling import Cancellation
from selfee.errors import MissingExtraError, SelfeeError, UsageError
from selfee.serve.admission import Ticket
from selfee.serve.asking import instruction_of
from selfee.serve.engine.jobs import ChainJob
from selfee.serve.event_stream import encode_json
from selfee.serve.native.telling import stop_cause, verdict_word
from selfee.serve.openai.chains import chain_job, revisions_of
from selfee.serve.openai.merging import once_written
from selfee.serve.openai.response_objects import (
    message_item,
    new_id,
    reasoning_item,
    response_object,
    text_part,
    usage_object,
)
from selfee.serve.openai.telling import about, final_tokens, finish_reason, heading, pieces
from selfee.serve.openai.writing import Row, respond
from selfee.serve.protocol.chat import EFFORT_ROUNDS
from selfee.serve.protocol.errors import ApiError, from_selfee
from selfee.serve.protocol.responses import ResponsesOptions, ResponsesRequest
from selfee.serve.service import Served, Service


def response_routes(service: Service) -> APIRouter:
    """Routes over a service."""
    router = APIRouter(tags=["openai"])

    @router.post("/v1/responses", operation_id="create_response")
    async def create(request: Request) -> Response:
        """Answer, revising the answer; drafts and feedback come as items of reasoning."""
        asked = await service.read(request, ResponsesRequest)
        model, job = plan_response(service, asked)
        job = service.scoped(service.owner(request), job)
        ticket = model.admission.tickets(service.owner(request))[0]
        writer = ResponseWriter(service, model, job, ticket, asked)
        return await respond(service, request, writer, streams=bool(asked.stream))

    return router


def plan_response(service: Service, asked: ResponsesRequest) -> tuple[Served, ChainJob]:
    """What is to be done. Raises ApiError (400, 404)."""
    model, suffix = service.find(asked.model)
    asked.check()
    options = asked.selfee or ResponsesOptions()
    effort = asked.reasoning.effort if asked.reasoning else None
    rounds = None if effort is None else EFFORT_ROUNDS[effort]
    policy = revisions_of(options, suffix, rounds, model.defaults.policy)
    limit, schema = asked.max_output_tokens, asked.schema_text
    return model, chain_job(model, asked, instruction_of(asked.messages()), options, policy, limit, schema)


@dataclass
class _Open:
    """The item under way."""

    name: str
    section: Section
    number: int
    text: str = ""
    verdict: Verdict | None = None


class ResponseWriter:
    """Does one job and writes the response, as events; whole, it is what the last event holds."""

    def __init__(self, service: Service, model: Served, job: ChainJob, ticket: Ticket, asked: ResponsesRequest) -> None:
        self._service = service
        self._model = model
        self._job = job
        self._ticket = ticket
        self.release = ticket.release
        self._as_messages = asked.selfee is not None and asked.selfee.items == "messages"
        self._is_plain = job.policy.max_revisions == 0
        self._row = response_object(asked, model.name, job.params.temperature, job.params.top_p)
        self._seq = 0
        self._open: _Open | None = None

    async def whole(self) -> Row:
        """The response. Raises ApiError, SelfeeError."""
        async with aclosing(self._events()) as events:
            async for _ in events:
                await asyncio.sleep(0)
        return self._row

    async def stream(self) -> AsyncIterator[bytes]:
        """The events as they go over the wire."""
        started = False
        try:
            async with aclosing(self._events()) as events:
                async for event in events:
                    started = True
                    yield self._encoded(event)
        except (ApiError, SelfeeError) as error:
            if not started:
                raise
            known = error if isinstance(error, ApiError) else from_selfee(error)
            self._row["status"] = "failed"
            self._row["error"] = {"code": "server_error", "message": known.message}
            yield self._encoded({"type": "response.failed", "response": self._row})

    def _encoded(self, event: Row) -> bytes:
        row = event | {"sequence_number": self._seq}
        self._seq += 1
        name: str = event["type"]
        return b"event: " + name.encode() + b"\ndata: " + encode_json(row) + b"\n\n"

    async def _events(self) -> AsyncGenerator[Row, None]:
        try:
            async with aclosing(self._made()) as events:
                async for event in events:
                    yield event
        except (UsageError, MissingExtraError) as error:
            raise _renamed(from_selfee(error)) from error

    async def _made(self) -> AsyncGenerator[Row, None]:
        chain: Chain | None = None
        is_first = True
        async with (
            self._ticket,
            aclosing(self._model.backend.run(self._job, Cancellation())) as stream,
            aclosing(once_written(stream)) as outcomes,
        ):
            async for outcome in outcomes:
                if isinstance(outcome, ChainFinished):
                    chain = outcome.chain
                    self._service.note_chain(self._model.name, chain, stop_cause(chain))
                    continue
                if is_first:
                    is_first = False
                    yield {"type": "response.created", "response": dict(self._row)}
                    yield {"type": "response.in_progress", "response": dict(self._row)}
                for event in self._tell(outcome):  # type: ignore[arg-type]
                    yield event
        assert chain is not None, "a chain's stream ends with the chain"
        if chain.cut is CutReason.CANCELLED:
            raise ApiError.stopping()
        for event in self._end(chain):
            yield event

    @property
    def _index(self) -> int:
        return len(self._row["output"])

    def _tell(self, event: Event) -> Iterator[Row]:
        if isinstance(event, SectionStart):
            yield from self._close(forced=False)
            kind = "msg" if self._is_plain or self._as_messages else "rs"
            self._open = _Open(new_id(kind), event.section, event.number)
            yield from self._begin(self._open.name)
        elif isinstance(event, TextDelta):
            assert self._open is not None, "text belongs to a section"
            self._open.text += event.text
            yield self._delta(event.text)
        elif isinstance(event, SectionEnd):
            assert self._open is not None, "a section ends that began"
            self._open.verdict = event.verdict
            if event.section is not Section.FEEDBACK and not self._is_plain:
                yield from self._close(forced=False)
        elif isinstance(event, Overruled):
            yield from self._close(forced=True)

    def _begin(self, name: str) -> Iterator[Row]:
        phase = "final_answer" if self._is_plain else "commentary"
        message = self._is_plain or self._as_messages
        item = message_item(name, None, phase) if message else reasoning_item(name, None, None)
        part = text_part("") if message else {"type": "reasoning_text", "text": ""}
        yield {"type": "response.output_item.added", "output_index": self._index, "item": item}
        yield self._at(name) | {"type": "response.content_part.added", "part": part}

    def _at(self, name: str) -> Row:
        return {"item_id": name, "output_index": self._index, "content_index": 0}

    def _delta(self, text: str) -> Row:
        assert self._open is not None, "text belongs to a section"
        if self._is_plain or self._as_messages:
            return self._at(self._open.name) | {"type": "response.output_text.delta", "delta": text, "logprobs": []}
        return self._at(self._open.name) | {"type": "response.reasoning_text.delta", "delta": text}

    def _close(self, *, forced: bool) -> Iterator[Row]:
        """End the item under way, now that its verdict is final."""
        opened, self._open = self._open, None
        if opened is None:
            return
        title = heading(opened.section, opened.number)
        if opened.section is Section.FEEDBACK:
            title += f" – {_TITLES['forced' if forced else verdict_word(opened.verdict)]}"
        if self._as_messages:
            yield from self._message_done(opened.name, opened.text, "commentary", "completed")
            return
        part = {"type": "reasoning_text", "text": opened.text}
        at = self._at(opened.name)
        yield at | {"type": "response.reasoning_text.done", "text": opened.text}
        yield at | {"type": "response.content_part.done", "part": part}
        item = reasoning_item(opened.name, title, opened.text)
        yield {"type": "response.output_item.done", "output_index": self._index, "item": item}
        self._row["output"].append(item)

    def _message_done(self, name: str, text: str, phase: str, status: str) -> Iterator[Row]:
        at = self._at(name)
        yield at | {"type": "response.output_text.done", "text": text, "logprobs": []}
        yield at | {"type": "response.content_part.done", "part": text_part(text)}
        item = message_item(name, text, phase, status)
        yield {"type": "response.output_item.done", "output_index": self._index, "item": item}
        self._row["output"].append(item)

    def _end(self, chain: Chain) -> Iterator[Row]:
        is_cut = finish_reason(chain) == "length"
        status = "incomplete" if is_cut else "completed"
        if self._is_plain and self._open is not None:
            yield from self._message_done(self._open.name, self._open.text, "final_answer", status)
        else:
            yield from self._close(forced=False)
            yield from self._final(chain.final)
        self._row["status"] = status
        if is_cut:
            self._row["incomplete_details"] = {"reason": "max_output_tokens"}
        self._row["usage"] = usage_object(chain, final_tokens(chain))
        self._row["selfee"] = about(chain)
        yield {"type": f"response.{status}", "response": self._row}

    def _final(self, text: str) -> Iterator[Row]:
        name = new_id("msg")
        item = message_item(name, None, "final_answer")
        yield {"type": "response.output_item.added", "output_index": self._index, "item": item}
        yield self._at(name) | {"type": "response.content_part.added", "part": text_part("")}
        for piece in pieces(text):
            yield self._at(name) | {"type": "response.output_text.delta", "delta": piece, "logprobs": []}
        yield from self._message_done(name, text, "final_answer", "completed")


def _renamed(error: ApiError) -> ApiError:
    """An error about a schema, which stands in another field here."""
    if error.param != "response_format":
        return error
    return replace(error, message=error.message.replace("response_format", "text.format", 1), param="text.format")


_TITLES = {
    "needed": "revision needed",
    "not_needed": "revision not needed",
    "forced": "revision not needed, but asked for",
    "none": "no verdict",
}
