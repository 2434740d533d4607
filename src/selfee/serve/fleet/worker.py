"""What a worker serves beside everything else: jobs for others, who then share them out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from selfee.engines.cancelling import Cancellation
from selfee.errors import SelfeeError, UsageError
from selfee.serve.admission import Ticket
from selfee.serve.engine.jobs import Job, ModelInfo
from selfee.serve.engine.wire import error_to_json, job_from_json, outcome_to_json, sequence_to_json
from selfee.serve.event_stream import EventStream, Pace, data_event, unless_gone
from selfee.serve.protocol.errors import ApiError, BackendLostError
from selfee.serve.service import Served, Service

OWNER = "fleet"
_HEARTBEAT = 2.0
Id = Annotated[str, Field(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]


class RunRequest(BaseModel):
    """A job for a model; ``id`` is by what it can be cancelled."""

    model_config = ConfigDict(extra="forbid")
    id: Id
    model: str
    job: dict[str, Any]


class CancelRequest(BaseModel):
    """Which job is given up."""

    id: Id


class CallRequest(BaseModel):
    """A question about texts and tokens."""

    model_config = ConfigDict(extra="forbid")
    model: str
    name: Literal["count_tokens", "tokenize", "detokenize", "score"]
    words: dict[str, Any]


class RunningJobs:
    """Jobs under way by their ids: each is cancelled by its own, never by another's."""

    def __init__(self) -> None:
        self._running: dict[str, Cancellation] = {}

    def begin(self, id_: str) -> Cancellation:
        """A job begins. Raises ApiError (409) for an id that is taken."""
        if id_ in self._running:
            raise ApiError(409, "id: is another job's; expected a fresh one", param="id", code="conflict")
        self._running[id_] = Cancellation()
        return self._running[id_]

    def end(self, id_: str) -> None:
        """A job has ended."""
        self._running.pop(id_, None)

    def cancel(self, id_: str) -> bool:
        """Give one job up; False = there is none of this id."""
        cancellation = self._running.get(id_)
        if cancellation is not None:
            cancellation.set()
        return cancellation is not None


def worker_routes(service: Service, jobs: RunningJobs) -> APIRouter:
    """Routes over a service, for servers of the same fleet."""
    router = APIRouter(include_in_schema=False)

    @router.post("/fleet/run")
    async def run(request: Request) -> Response:
        asked = await service.read(request, RunRequest)
        model = find_model(service, asked.model)
        job = _read_job(asked.job)
        ticket = model.admission.tickets(OWNER)[0]
        try:
            cancellation = jobs.begin(asked.id)
        except ApiError:
            ticket.release()
            raise

        def close() -> None:
            ticket.release()
            jobs.end(asked.id)

        return EventStream(_rows(model, job, cancellation, ticket), _pace(service), on_close=close)

    @router.post("/fleet/cancel")
    async def cancel(request: Request) -> Response:
        asked = await service.read(request, CancelRequest)
        return JSONResponse({"cancelled": jobs.cancel(asked.id)})

    @router.post("/fleet/call")
    async def call(request: Request) -> Response:
        asked = await service.read(request, CallRequest)
        backend = find_model(service, asked.model).backend
        try:
            result = await unless_gone(request, getattr(backend, asked.name)(**asked.words))
        except TypeError as error:
            raise ApiError(400, "words: do not fit this question", param="words") from error
        except SelfeeError as error:
            return JSONResponse({"error": error_to_json(error)})
        if asked.name == "score":
            result = [sequence_to_json(sequence) for sequence in result]
        return JSONResponse({"result": result})

    return router


def find_model(service: Service, name: str) -> Served:
    """The model of this very name. Raises ApiError (404)."""
    for model in service.models:
        if model.name == name:
            return model
    raise ApiError(404, f"model: {name[:80]!r} is not here", param="model", code="model_not_found")


def facts_of(info: ModelInfo) -> Mapping[str, Any]:
    """What others need to know of a model."""
    return {
        "engine": info.engine,
        "context_length": info.context_length,
        "parallel": info.parallel,
        "mode": info.mode,
        "can_complete": info.can_complete,
        "end_text": info.end_text,
    }


def queue_length(service: Service) -> int:
    """Jobs under way and waiting."""
    started = [model.admission for model in service.models if model.is_started]
    return sum(admission.running + admission.waiting for admission in started)


def _pace(service: Service) -> Pace:
    return Pace(min(_HEARTBEAT, service.config.limits.heartbeat_seconds), service.config.limits.send_seconds)


def _read_job(row: Mapping[str, Any]) -> Job:
    try:
        return job_from_json(row)
    except (KeyError, TypeError, ValueError, AttributeError, SelfeeError) as error:
        raise ApiError(
            400, f"job: cannot be read ({type(error).__name__}); expected one of this version of selfee", param="job"
        ) from error


async def _rows(model: Served, job: Job, cancellation: Cancellation, ticket: Ticket) -> AsyncIterator[bytes]:
    async with ticket:
        try:
            async with aclosing(model.backend.run(job, cancellation)) as outcomes:
                async for outcome in outcomes:
                    yield data_event(outcome_to_json(outcome))
        except BackendLostError as error:
            yield data_event({"lost": str(error)})
            return
        except SelfeeError as error:
            yield data_event({"error": error_to_json(error)})
            return
        except ValueError as error:
            yield data_event({"error": error_to_json(UsageError(f"job: {error}"))})
            return
    yield data_event({"done": True})
