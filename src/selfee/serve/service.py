"""What every route needs: the configuration, whoever computes, the places to compute, and the chains that live."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from selfee.serve.admission import Admission
from selfee.serve.config import ServerConfig
from selfee.serve.engine.backend import Backend
from selfee.serve.event_stream import Pace
from selfee.serve.http_body import read_model
from selfee.serve.native.store import ChainStore

M = TypeVar("M", bound=BaseModel)


@dataclass
class Service:
    """Made once for an application."""

    config: ServerConfig
    backend: Backend
    admission: Admission = field(init=False)
    chains: ChainStore = field(init=False)

    def __post_init__(self) -> None:
        limits = self.config.limits
        self.admission = Admission(self.backend.info.parallel, limits.queue, limits.per_key)
        self.chains = ChainStore(limits.kept_chains, limits.kept_seconds)

    @property
    def pace(self) -> Pace:
        """How long streams wait."""
        return Pace(self.config.limits.heartbeat_seconds, self.config.limits.send_seconds)

    def owner(self, request: Request) -> str:
        """Whose request it is: a key's, or an address's."""
        return str(request.scope.get("selfee.owner") or (request.client.host if request.client else ""))

    def place(self, owner: str) -> Callable[[Callable[[int], None]], AbstractAsyncContextManager[None]]:
        """A place to compute for this owner."""
        return lambda on_position: self.admission.place(owner, on_position)

    async def read(self, request: Request, kind: type[M]) -> M:
        """The request's body as this model."""
        limits = self.config.limits
        return await read_model(request, kind, limits.body, limits.body_seconds)
