"""What every route needs: the configuration, the models with their places to compute, and the chains that live."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from selfee.chain.types import Chain
from selfee.serve.admission import Admission
from selfee.serve.asking import Suffix, read_suffix, unknown_model
from selfee.serve.chain_log import ChainLog
from selfee.serve.config import Defaults, ServerConfig
from selfee.serve.engine.backend import Backend
from selfee.serve.engine.jobs import ChainJob, TextJob
from selfee.serve.event_stream import Pace
from selfee.serve.http_body import read_model
from selfee.serve.metrics import Metrics
from selfee.serve.native.store import ChainStore
from selfee.serve.protocol.errors import ApiError
from selfee.serve.protocol.fields import Fields

M = TypeVar("M", bound=BaseModel)
J = TypeVar("J", ChainJob, TextJob)


@dataclass
class Served:
    """A model: who computes, what holds where a request says nothing, and places to compute."""

    backend: Backend
    defaults: Defaults
    admission: Admission = field(init=False)

    @property
    def name(self) -> str:
        """What clients call it."""
        return self.backend.info.name

    @property
    def is_started(self) -> bool:
        """Whether it has places to compute."""
        return hasattr(self, "admission")


class Companion(Protocol):
    """Something that lives as long as a service."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


@dataclass
class Service:
    """Made once for an application. The first model is the one of requests that name none."""

    config: ServerConfig
    models: Sequence[Served]
    metrics: Metrics = field(default_factory=Metrics)
    companions: list[Companion] = field(default_factory=list)  # started once the models are ready

    def __post_init__(self) -> None:
        limits = self.config.limits
        self.chains = ChainStore(limits.kept_chains, limits.kept_seconds)
        self.is_stopping = False
        path = self.config.chain_log
        self._chain_log = None if path is None else ChainLog(path)

    async def start(self) -> None:
        """Get all models ready."""
        limits = self.config.limits
        for model in self.models:
            await model.backend.start()
            model.admission = Admission(model.backend.info.parallel, limits.queue, limits.per_key)
            self.metrics.watch(model.name, model.admission, model.backend)
        for companion in self.companions:
            await companion.start()

    def note_chain(self, model: str, chain: Chain, cause: str) -> None:
        """A chain has ended: count it, and keep it where that was asked for."""
        self.metrics.chain(model, chain, cause)
        if self._chain_log is not None:
            self._chain_log.add(model, chain)

    def refuse_more(self) -> None:
        """Take no new work; what is under way goes on."""
        self.is_stopping = True
        for model in self.models:
            if model.is_started:
                model.admission.is_closed = True

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""
        return any(model.admission.running or model.admission.waiting for model in self.models if model.is_started)

    async def cut(self) -> None:
        """End what is under way; its clients are told."""
        await self.chains.close()
        for model in self.models:
            await model.backend.cut()

    async def close(self) -> None:
        """Stop everything."""
        self.refuse_more()
        while self.companions:
            await self.companions.pop().close()
        await self.chains.close()
        for model in self.models:
            await model.backend.close()
        if self._chain_log is not None:
            self._chain_log.close()
            self._chain_log = None

    @property
    def is_ready(self) -> bool:
        """Whether all models can be asked."""
        return not self.is_stopping and all(model.backend.is_ready for model in self.models)

    def find(self, name: str | None) -> tuple[Served, Suffix]:
        """The model of this name, and what its suffix asks for. Raises ApiError (404)."""
        if name is None:
            return self.models[0], Suffix()
        for model in self.models:
            suffix = read_suffix(name, model.name)
            if suffix is not None:
                return model, suffix
        raise unknown_model(name, [model.name for model in self.models])

    @property
    def pace(self) -> Pace:
        """How long streams wait."""
        return Pace(self.config.limits.heartbeat_seconds, self.config.limits.send_seconds)

    def owner(self, request: Request) -> str:
        """Whose request it is: a key's, or an address's."""
        return str(request.scope.get("selfee.owner") or (request.client.host if request.client else ""))

    def scoped(self, owner: str, job: J) -> J:
        """The job, which shares nothing with those of others where the server is told so."""
        return replace(job, scope=owner) if self.config.isolate else job

    async def read(self, request: Request, kind: type[M]) -> M:
        """The request's body as this model; fields that nobody knows are told, or refused by a strict server."""
        limits = self.config.limits
        body = await read_model(request, kind, limits.body, limits.body_seconds)
        if isinstance(body, Fields):
            self.note_ignored(request, body.unknown_fields())
        return body

    def note_ignored(self, request: Request, names: Sequence[str]) -> None:
        """Say in a header which fields had no effect. Raises ApiError (400) where the server is strict."""
        if names and self.config.strict:
            raise ApiError(400, f"{names[0]}: is not known here; expected it to be left out", param=names[0])
        known: list[str] = request.scope.setdefault("selfee.ignored", [])
        known += [name for name in _printable(names) if name not in known]


def _printable(names: Sequence[str]) -> Iterator[str]:
    """Names as a header can hold them."""
    for name in names[:32]:
        shown = "".join(
            character if character.isascii() and character.isprintable() else "?" for character in name[:64]
        )
        yield shown if shown.strip() == shown and shown else f'"{shown}"'
