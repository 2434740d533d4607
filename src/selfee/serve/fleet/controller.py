"""Knows the workers and says who gets the next job; speaks FastChat's controller protocol."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

import httpx2
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from selfee.engines.connection import trusted_certificates
from selfee.errors import UsageError
from selfee.serve.app import add_error_handlers
from selfee.serve.config import ServerConfig
from selfee.serve.event_stream import EventStream, Pace
from selfee.serve.fleet import fastchat
from selfee.serve.fleet.addresses import AllowedAddresses
from selfee.serve.fleet.registry import Registry, Worker
from selfee.serve.fleet.settings import Patience, authorization
from selfee.serve.guard import Guard
from selfee.serve.http_body import read_model
from selfee.serve.protocol.errors import ApiError
from selfee.serve.service import Service

Dispatch = Literal["least-busy", "lottery"]
Name = Annotated[str, Field(min_length=1, max_length=512)]
M = TypeVar("M", bound=BaseModel)

_MOST_WORKERS = 1024
_MOST_STATUS = 1 << 16
_CHUNK = 1 << 26


class Status(BaseModel):
    """What a worker says of itself."""

    model_names: Annotated[list[Name], Field(min_length=1, max_length=64)]
    speed: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    queue_length: Annotated[int, Field(ge=0, le=1 << 30)] = 0


class Ours(BaseModel):
    """What only our own workers say."""

    facts: dict[Name, dict[str, Any]]


class Registration(BaseModel):
    """A worker comes."""

    model_config = ConfigDict(extra="ignore")
    worker_name: Name
    check_heart_beat: bool = True
    worker_status: Status | None = None
    multimodal: bool = False
    selfee: Ours | None = None


class Beat(BaseModel):
    """A worker is there."""

    worker_name: Name
    queue_length: Annotated[int, Field(ge=0, le=1 << 30)]


class Wanted(BaseModel):
    """Somebody wants a worker for a model."""

    model_config = ConfigDict(extra="ignore")
    model: Name
    affinity: Annotated[str, Field(max_length=64)] = ""


class Named(BaseModel):
    """A worker that is spoken of."""

    worker: Name


class Controller:
    """The registry, and calls to workers."""

    def __init__(
        self, config: ServerConfig, allowed: AllowedAddresses, dispatch: Dispatch, patience: Patience, own: str
    ) -> None:
        self.registry = Registry(time.monotonic, patience.expiry)
        self.config = config
        self.patience = patience
        self._allowed = allowed
        self._dispatch = dispatch
        self._own = own

    async def start(self) -> None:
        """Get ready to call workers."""
        secret = self.config.access.keys[0] if self.config.access.keys else None
        self.client = httpx2.AsyncClient(
            headers=authorization(secret),
            timeout=httpx2.Timeout(100.0, connect=self.patience.connect),
            follow_redirects=False,
            trust_env=False,
            verify=trusted_certificates(),
        )

    async def close(self) -> None:
        """Call nobody any more."""
        await self.client.aclose()

    async def register(self, told: Registration) -> None:
        """A worker comes. Raises UsageError for an address that is not allowed, ApiError if it does not answer."""
        address = self._allowed.check(told.worker_name)
        if address == self._own:
            raise UsageError(f"worker: {address} is the controller itself; expected a worker")
        if address not in self.registry and len(self.registry.workers) >= _MOST_WORKERS:
            raise ApiError.busy(f"{_MOST_WORKERS} workers are there already", 60)
        status = told.worker_status or await self.ask_status(address)
        if status is None:
            raise ApiError(400, f"worker: {address} does not answer; expected it to run there", param="worker_name")
        self.registry.put(
            Worker(
                address,
                tuple(status.model_names),
                status.speed,
                status.queue_length,
                kind="fastchat" if told.selfee is None else "selfee",
                facts={} if told.selfee is None else told.selfee.facts,
                beats=told.check_heart_beat,
                multimodal=told.multimodal,
            )
        )

    async def ask_status(self, address: str) -> Status | None:
        """What a worker says of itself now; None if it does not answer sensibly."""
        try:
            body = b""
            async with asyncio.timeout(self.patience.status):
                async with self.client.stream("POST", f"{address}/worker_get_status") as answer:
                    async for piece in answer.aiter_bytes():
                        body += piece
                        if answer.status_code != 200 or len(body) > _MOST_STATUS:
                            return None
            return Status.model_validate_json(body)
        except (httpx2.HTTPError, TimeoutError, ValueError):
            return None

    async def check(self, address: str) -> bool:
        """Whether a worker is there; if not it is forgotten."""
        if address not in self.registry:
            return False
        status = await self.ask_status(address)
        if status is None:
            self.registry.remove(address)
            return False
        self.registry.beat(address, status.queue_length)
        return True

    async def refresh(self) -> None:
        """Ask all workers who they are."""
        for worker in self.registry.workers:
            status = await self.ask_status(worker.address)
            if status is None:
                self.registry.remove(worker.address)
            else:
                self.registry.put(
                    replace(worker, models=tuple(status.model_names), speed=status.speed, queue=status.queue_length)
                )

    def choose(self, model: str, affinity: str = "") -> Worker | None:
        """Who gets the next job for a model."""
        if self._dispatch == "lottery":
            able = [worker for worker in self.registry.workers if model in worker.models]
            return random.choices(able, [worker.speed for worker in able])[0] if able else None
        return self.registry.choose(model, affinity)

    async def read(self, request: Request, kind: type[M]) -> M:
        """The request's body."""
        return await read_model(request, kind, self.config.limits.body, self.config.limits.body_seconds)

    async def proxied(self, body: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """A worker's stream: the controller stands in for its workers."""
        worker = self.choose(str(body.get("model", "")))
        if worker is None:
            yield fastchat.line("no worker has this model", fastchat.NO_WORKER)
            return
        size = 0
        try:
            url = f"{worker.address}/worker_generate_stream"
            async with self.client.stream("POST", url, json=body) as answer:
                if answer.status_code != 200:
                    yield fastchat.line(f"the worker answers with status {answer.status_code}", fastchat.INTERNAL_ERROR)
                    return
                async for piece in answer.aiter_bytes():
                    size += len(piece)
                    if size > _CHUNK:
                        raise httpx2.ReadError("too much")
                    yield piece
        except httpx2.HTTPError:
            await self.check(worker.address)
            yield fastchat.END + fastchat.line("the worker was lost", fastchat.WORKER_TIMEOUT)


def make_controller(
    config: ServerConfig,
    allowed: AllowedAddresses | None = None,
    dispatch: Dispatch = "least-busy",
    patience: Patience | None = None,
    own: str = "",
) -> FastAPI:
    """The controller as an application; ``app.state.controller`` is its heart. ``own`` is where it is found."""
    controller = Controller(config, allowed or AllowedAddresses(), dispatch, patience or Patience(), own or config.url)

    service = Service(config, (), companions=[controller])

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = FastAPI(title="selfee controller", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.controller = controller
    app.state.service = service
    add_error_handlers(app)
    _add_own_routes(app, controller)
    _add_membership(app, controller)
    _add_questions(app, controller)
    app.add_middleware(Guard, config=config, metrics=service.metrics)
    return app


def _add_own_routes(app: FastAPI, controller: Controller) -> None:
    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/fleet/workers")
    async def workers() -> Response:
        rows = [
            {
                "address": worker.address,
                "models": list(worker.models),
                "speed": worker.speed,
                "queue": worker.queue + worker.sent,
                "kind": worker.kind,
                "facts": worker.facts,
                "multimodal": worker.multimodal,
            }
            for worker in controller.registry.workers
        ]
        return JSONResponse({"workers": rows})

    @app.post("/fleet/report")
    async def report(request: Request) -> Response:
        """Somebody lost a worker: look after it."""
        told = await controller.read(request, Named)
        return JSONResponse({"exist": await controller.check(told.worker)})

    @app.post("/fleet/leave")
    async def leave(request: Request) -> Response:
        """A worker says goodbye."""
        controller.registry.remove((await controller.read(request, Named)).worker)
        return JSONResponse(None)


def _add_membership(app: FastAPI, controller: Controller) -> None:
    @app.post("/register_worker")
    async def register_worker(request: Request) -> Response:
        await controller.register(await controller.read(request, Registration))
        return JSONResponse(None)

    @app.post("/receive_heart_beat")
    async def receive_heart_beat(request: Request) -> Response:
        told = await controller.read(request, Beat)
        return JSONResponse({"exist": controller.registry.beat(told.worker_name.rstrip("/"), told.queue_length)})

    @app.post("/refresh_all_workers")
    async def refresh_all_workers() -> Response:
        await controller.refresh()
        return JSONResponse(None)


def _add_questions(app: FastAPI, controller: Controller) -> None:
    def names(multimodal: bool | None = None) -> Response:
        rows = controller.registry.workers
        found = {model for worker in rows if multimodal in (None, worker.multimodal) for model in worker.models}
        return JSONResponse({"models": sorted(found)})

    @app.post("/list_models")
    async def list_models() -> Response:
        return names()

    @app.post("/list_multimodal_models")
    async def list_multimodal_models() -> Response:
        return names(multimodal=True)

    @app.post("/list_language_models")
    async def list_language_models() -> Response:
        return names(multimodal=False)

    @app.post("/get_worker_address")
    async def get_worker_address(request: Request) -> Response:
        wanted = await controller.read(request, Wanted)
        worker = controller.choose(wanted.model, wanted.affinity)
        return JSONResponse({"address": "" if worker is None else worker.address})

    @app.post("/worker_get_status")
    async def worker_get_status() -> Response:
        rows = controller.registry.workers
        return JSONResponse(
            {
                "model_names": controller.registry.models(),
                "speed": sum(worker.speed for worker in rows),
                "queue_length": sum(worker.queue + worker.sent for worker in rows),
            }
        )

    @app.post("/worker_generate_stream")
    async def worker_generate_stream(request: Request) -> Response:
        body = await controller.read(request, _Anything)
        pace = Pace(controller.config.limits.heartbeat_seconds, controller.config.limits.send_seconds)
        headers = {"content-type": "application/octet-stream"}
        return EventStream(controller.proxied(body.model_dump()), pace, heartbeat=fastchat.END, headers=headers)

    @app.get("/test_connection")
    async def test_connection() -> Response:
        return JSONResponse("success")


class _Anything(BaseModel):
    model_config = ConfigDict(extra="allow")
