"""A worker as FastChat's controller and servers know it: text in, the whole text so far out, again and again."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from selfee.chain.allowance import Allowance
from selfee.chain.format import framing, header, read_conversation
from selfee.chain.types import ChainFinished, CutReason, Event, Overruled, SectionStart, TextDelta
from selfee.engines.base import Chunk, FinishReason, SamplingParams
from selfee.engines.cancelling import Cancellation
from selfee.errors import ContextOverflowError, SelfeeError, UsageError
from selfee.serve.admission import Ticket
from selfee.serve.engine.jobs import ChainJob, Job, Outcome, TextJob
from selfee.serve.event_stream import EventStream, Pace
from selfee.serve.fleet import fastchat
from selfee.serve.fleet.worker import OWNER, RunningJobs, find_model, queue_length
from selfee.serve.protocol.errors import ApiError
from selfee.serve.service import Served, Service

View = Literal["raw", "final"]
"""Whether clients get the whole chain as the model writes it, or the answer delivered alone."""

_DOLLY = 11  # FastChat's name for: role, colon, line break, text, separator
_EVERY = 0.05  # seconds between two versions of a growing text
_MOST_TOKENS = 1 << 20


class Params(BaseModel):
    """What FastChat sends to a worker; fields that we do not know have no effect."""

    model_config = ConfigDict(extra="ignore")
    model: str = ""
    prompt: Annotated[str, Field(max_length=1 << 22)]
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    top_k: int | None = -1
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_new_tokens: Annotated[int, Field(ge=0, le=_MOST_TOKENS)] | None = 256
    stop: str | list[str] | None = None
    echo: bool | None = True
    seed: int | None = None
    request_id: Annotated[str, Field(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")] | None = None


class Prompt(BaseModel):
    """A text to count."""

    model: str = ""
    prompt: str


class Model(BaseModel):
    """A model that is asked about."""

    model: str = ""


class Stop(BaseModel):
    """Which stream is to end."""

    request_id: str | None = None


def door_routes(service: Service, jobs: RunningJobs, view: View) -> APIRouter:
    """The routes of FastChat's worker, over a service."""
    router = APIRouter(include_in_schema=False)

    @router.post("/worker_generate_stream")
    async def generate_stream(request: Request) -> Response:
        params = await service.read(request, Params)
        model = _model(service, params.model)
        id_ = params.request_id or secrets.token_hex(12)
        ticket = model.admission.tickets(OWNER)[0]
        try:
            cancellation = jobs.begin(id_)
        except ApiError:
            ticket.release()
            raise

        def close() -> None:
            ticket.release()
            jobs.end(id_)

        pace = Pace(service.config.limits.heartbeat_seconds, service.config.limits.send_seconds)
        lines = _lines(model, params, view, cancellation, ticket)
        headers = {"content-type": "application/octet-stream"}
        return EventStream(lines, pace, heartbeat=fastchat.END, headers=headers, on_close=close)

    @router.post("/worker_generate")
    async def generate(request: Request) -> Response:
        params = await service.read(request, Params)
        model = _model(service, params.model)
        last = b"{}"
        with_ticket = _lines(model, params, view, Cancellation(), model.admission.tickets(OWNER)[0])
        async for row in with_ticket:
            last = row
        return Response(last.rstrip(fastchat.END), media_type="application/json")

    @router.post("/worker_stop_stream")
    async def stop_stream(request: Request) -> Response:
        """Ends one stream: the original ended whichever looked first."""
        asked = Stop() if not int(request.headers.get("content-length", 0)) else await service.read(request, Stop)
        if asked.request_id is not None:
            jobs.cancel(asked.request_id)
        return JSONResponse(None)

    _add_facts(router, service)
    return router


def _add_facts(router: APIRouter, service: Service) -> None:
    @router.post("/worker_get_status")
    async def status() -> Response:
        return JSONResponse(status_of(service))

    @router.post("/count_token")
    async def count_token(request: Request) -> Response:
        asked = await service.read(request, Prompt)
        count = await _model(service, asked.model).backend.count_tokens(asked.prompt)
        return JSONResponse({"count": count, "error_code": fastchat.OK})

    @router.post("/model_details")
    async def model_details(request: Request) -> Response:
        asked = await service.read(request, Model)
        return JSONResponse(
            {"context_length": _model(service, asked.model).backend.info.context_length or _MOST_TOKENS}
        )

    @router.post("/worker_get_conv_template")
    async def conversation_template() -> Response:
        return JSONResponse({"conv": template()})

    @router.post("/worker_get_embeddings")
    async def embeddings() -> Response:
        return JSONResponse({"text": "embeddings: this worker gives none", "error_code": fastchat.INVALID_MODEL})


def status_of(service: Service) -> Mapping[str, Any]:
    """What a controller wants to know."""
    return {"model_names": [m.name for m in service.models], "speed": 1, "queue_length": queue_length(service)}


def template() -> Mapping[str, Any]:
    """SelFee's prompt as a conversation template of FastChat: what it renders is what ``render_prompt`` renders."""
    words = framing()
    return {
        "name": "selfee",
        "system_template": "{system_message}" + words.gap,
        "system_message": words.preamble,
        "roles": [words.question.removesuffix(":"), words.answer.removesuffix(":")],
        "messages": [],
        "offset": 0,
        "sep_style": _DOLLY,
        "sep": words.gap,
        "sep2": "",
        "stop_str": None,
        "stop_token_ids": None,
        "max_image_size_mb": None,
    }


def _model(service: Service, name: str) -> Served:
    return find_model(service, name) if name else service.models[0]


def _job(model: Served, params: Params) -> Job:
    """A chain where the prompt is a conversation in SelFee's words, else the text continued."""
    stop = (params.stop,) if isinstance(params.stop, str) else tuple(each for each in params.stop or () if each)
    plain = SamplingParams()
    sampling = replace(
        plain,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=max(0, params.top_k or 0),
        min_p=_given(params.min_p, plain.min_p),
        repeat_penalty=_given(params.repetition_penalty, plain.repeat_penalty),
        presence_penalty=_given(params.presence_penalty, plain.presence_penalty),
        frequency_penalty=_given(params.frequency_penalty, plain.frequency_penalty),
        seed=params.seed,
    )
    limit = params.max_new_tokens if params.max_new_tokens is not None else _MOST_TOKENS
    defaults = model.defaults
    try:
        instruction = read_conversation(params.prompt)
    except UsageError:
        return TextJob(params.prompt, sampling, limit, stop)
    return ChainJob(
        instruction,
        defaults.policy,
        sampling,
        defaults.budgets,
        Allowance(max(1, limit)),
        defaults.mode,
        defaults.prompts,
        stop,
    )


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


@dataclass
class _Growing:
    """The text so far of a stream, in its view."""

    view: View
    text: str = ""
    before: int = 0  # where the section under way begins
    final: str = ""
    finish: str | None = None
    usage: Mapping[str, int] | None = None

    def take(self, outcome: Outcome) -> None:
        """One more piece."""
        if isinstance(outcome, Chunk):
            self.text += outcome.text
            self.final = self.text
            if outcome.finish_reason is not None:
                cut = outcome.finish_reason in (FinishReason.LENGTH, FinishReason.CONTEXT)
                self.finish = "length" if cut else "stop"
                if outcome.usage is not None:
                    self._count(outcome.usage.prompt_tokens, outcome.usage.completion_tokens)
        else:
            self._take_event(outcome)

    def _take_event(self, event: Event) -> None:
        if isinstance(event, SectionStart):
            self.text += header(event.section, event.number)
            self.before = len(self.text)
        elif isinstance(event, TextDelta):
            self.text += event.text
        elif isinstance(event, Overruled):
            self.text = self.text[: self.before] + event.feedback
        elif isinstance(event, ChainFinished):
            self.final = event.chain.final
            self.finish = (
                "length" if event.chain.cut in (CutReason.LENGTH, CutReason.CONTEXT, CutReason.SPENT) else "stop"
            )
            self._count(event.chain.cost.prompt_tokens, event.chain.cost.tokens)

    def _count(self, prompt: int, completion: int) -> None:
        self.usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def line(self, prefix: str, *, last: bool = False) -> bytes:
        """The text as it is sent: in the final view nothing before the end."""
        shown = self.text if self.view == "raw" else self.final
        usage = self.usage or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        return fastchat.line(prefix + shown, usage=usage, finish_reason=(self.finish or "stop") if last else None)


async def _lines(
    model: Served, params: Params, view: View, cancellation: Cancellation, ticket: Ticket
) -> AsyncIterator[bytes]:
    prefix = params.prompt if params.echo else ""
    sent = 0.0
    async with ticket:
        try:
            job = _job(model, params)
            growing = _Growing(view if isinstance(job, ChainJob) else "raw")
            if isinstance(job, ChainJob) and job.params.seed is None:
                job = replace(job, params=replace(job.params, seed=secrets.randbits(32)))
            async with aclosing(model.backend.run(job, cancellation)) as outcomes:
                async for outcome in outcomes:
                    growing.take(outcome)
                    now = time.monotonic()
                    if growing.view == "raw" and now - sent >= _EVERY:
                        sent = now
                        yield growing.line(prefix)
            yield growing.line(prefix, last=True)
        except ContextOverflowError as error:
            yield fastchat.line(str(error), fastchat.CONTEXT_OVERFLOW)
        except UsageError as error:
            yield fastchat.line(str(error), fastchat.OUT_OF_RANGE)
        except SelfeeError as error:
            yield fastchat.line(str(error), fastchat.INTERNAL_ERROR)
