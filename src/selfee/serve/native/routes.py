"""The routes of the native API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from selfee.chain.allowance import Allowance
from selfee.chain.record import from_json
from selfee.chain.types import Chain
from selfee.errors import BadFileError
from selfee.serve.asking import Suffix, fresh_seed, instruction_of, only, params_of, policy_of
from selfee.serve.config import Defaults
from selfee.serve.engine.jobs import ChainJob
from selfee.serve.event_stream import EventStream, unless_gone
from selfee.serve.native.live import LiveChain, Sent
from selfee.serve.protocol.errors import ApiError
from selfee.serve.protocol.native import ControlRequest, NativeRequest
from selfee.serve.service import Service


def native_routes(service: Service) -> APIRouter:
    """Routes over a service."""
    router = APIRouter(tags=["selfee"])

    @router.post("/v1/selfee/chat", operation_id="create_chain")
    async def create(request: Request) -> Response:
        """Make a chain; stream its events."""
        asked = await service.read(request, NativeRequest)
        chain = _begin(service, service.owner(request), asked)
        if asked.stream:
            return _event_stream(service, chain, 0)
        try:
            await unless_gone(request, chain.wait())
        finally:
            if chain.is_running:
                chain.stop()
        return JSONResponse(chain.as_json(), status_code=200 if chain.status == "completed" else 502)

    @router.get("/v1/selfee/chat/{chain_id}", operation_id="get_chain")
    async def show(chain_id: str, request: Request) -> Response:
        """How a chain stands, with all of it that there is."""
        return JSONResponse(service.chains.find(chain_id, service.owner(request)).as_json())

    @router.get("/v1/selfee/chat/{chain_id}/events", operation_id="listen_to_chain")
    async def listen(chain_id: str, request: Request) -> Response:
        """Listen again, from the event after ``after`` on."""
        chain = service.chains.find(chain_id, service.owner(request))
        return _event_stream(service, chain, _after(request))

    @router.post("/v1/selfee/chat/{chain_id}/control", operation_id="control_chain")
    async def control(chain_id: str, request: Request) -> Response:
        """Accept, one more, stop, or a person's own feedback."""
        wish = await service.read(request, ControlRequest)
        chain = service.chains.find(chain_id, service.owner(request))
        chain.control(wish)
        return JSONResponse({"id": chain.id, "status": chain.status, "last_seq": chain.seq})

    return router


def _begin(service: Service, owner: str, asked: NativeRequest) -> LiveChain:
    limits = service.config.limits
    model, suffix = service.find(asked.model)
    known, wish = _known_chain(asked)
    chain = LiveChain(
        model.backend,
        service.scoped(owner, _job(model.defaults, asked, known, suffix)),
        lambda: model.admission.tickets(owner)[0],
        owner=owner,
        grace=limits.grace_seconds if asked.grace_seconds is None else asked.grace_seconds,
        most_bytes=limits.event_bytes,
        on_end=lambda chain, cause: service.note_chain(model.name, chain, cause),
    )
    chain.start(wish, known)
    service.chains.add(chain)
    return chain


def _known_chain(asked: NativeRequest) -> tuple[Chain | None, ControlRequest | None]:
    if asked.chain is None:
        return None, None
    if asked.messages is not None:
        raise ApiError(400, "messages: a chain is given too; expected one of them", param="messages")
    if asked.action is None:
        raise ApiError(400, "action: is missing; expected one_more, feedback or go_on beside a chain", param="action")
    try:
        known = from_json(asked.chain, "chain")
    except BadFileError as error:
        raise ApiError(400, str(error), param="chain", code="invalid_value") from None
    return known, ControlRequest(action=asked.action, feedback=asked.feedback, answer=asked.answer)


def _job(defaults: Defaults, asked: NativeRequest, known: Chain | None, suffix: Suffix) -> ChainJob:
    if known is not None:
        instruction = known.instruction
    elif asked.messages:
        instruction = instruction_of(asked.messages, asked.input)
    else:
        raise ApiError(400, "messages: there are none; expected a question", param="messages")
    budgets = only(
        {
            "answer": asked.max_answer_tokens,
            "feedback": asked.max_feedback_tokens,
            "revision": asked.max_revision_tokens,
        }
    )
    params = fresh_seed(params_of(asked, defaults.params))
    return ChainJob(
        instruction,
        policy_of(*_rounds(asked, suffix), defaults.policy),
        params,
        replace(defaults.budgets, **budgets),
        Allowance(asked.total_tokens, asked.total_seconds),
        asked.mode or defaults.mode,
        asked.prompts or (defaults.prompts if asked.mode in (None, defaults.mode) else None),
        asked.stops(),
        logprobs=asked.logprobs,
    )


def _rounds(asked: NativeRequest, suffix: Suffix) -> tuple[int | None, int | None]:
    if asked.min_revisions is None and asked.max_revisions is None:
        return suffix.revisions, suffix.revisions
    return asked.min_revisions, asked.max_revisions


def _after(request: Request) -> int:
    text = request.query_params.get("after") or request.headers.get("last-event-id") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ApiError(400, f"after: {text[:40]!r} is no number of an event; expected 0 or more", param="after")
    return int(text)


def _event_stream(service: Service, chain: LiveChain, after: int) -> EventStream:
    ping = {"type": "ping", "t": 0}
    heartbeat = b"event: ping\ndata: " + json.dumps(ping).encode() + b"\n\n"
    headers = {"x-selfee-chain": chain.id}
    return EventStream(_encoded(chain.listen(after)), service.pace, heartbeat=heartbeat, headers=headers)


async def _encoded(events: AsyncIterator[Sent]) -> AsyncIterator[bytes]:
    async for sent in events:
        yield b"id: %d\nevent: %s\ndata: %s\n\n" % (sent.seq, sent.name.encode(), sent.data)
