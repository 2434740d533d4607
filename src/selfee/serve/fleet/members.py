"""The two roles that serve models: a worker, and a server whose models are a fleet's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from fastapi import FastAPI

from selfee.errors import EngineError
from selfee.serve.app import make_app
from selfee.serve.config import Defaults, ServerConfig
from selfee.serve.fleet.backend import FleetBackend
from selfee.serve.fleet.directory import Directory
from selfee.serve.fleet.door import View, door_routes, status_of
from selfee.serve.fleet.membership import Membership
from selfee.serve.fleet.settings import Identity, Patience
from selfee.serve.fleet.worker import RunningJobs, facts_of, worker_routes
from selfee.serve.service import Served, Service


def make_worker(
    config: ServerConfig,
    models: Sequence[Served],
    identity: Identity | None = None,
    view: View = "raw",
    patience: Patience | None = None,
) -> FastAPI:
    """An application that serves models to everybody and to a fleet; without an identity it joins no controller."""
    app = make_app(config, models)
    service: Service = app.state.service
    jobs = RunningJobs()
    app.include_router(worker_routes(service, jobs))
    app.include_router(door_routes(service, jobs, view))
    if identity is not None:
        facts = lambda: {model.name: facts_of(model.backend.info) for model in models}  # noqa: E731
        service.companions.append(Membership(identity, lambda: status_of(service), facts, patience))
    return app


async def _find_models(directory: Directory) -> list[str]:
    """Names of the fleet's models; waits a while for the first. Raises EngineError where there is none."""
    until = time.monotonic() + directory.patience.worker
    await directory.start()
    try:
        while not (names := directory.registry.models()) and time.monotonic() < until:
            await asyncio.sleep(min(0.25, directory.patience.refresh))
            await directory.refresh()
    finally:
        await directory.close()
    if not names:
        raise EngineError(
            f"controller {directory.controller}: has no workers; expected one; start one with --role worker"
        )
    return names


def fleet_models(directory: Directory, defaults: Defaults, parallel: int) -> list[Served]:
    """All models of a fleet as it is now, to be served. Raises EngineError or UsageError where there are none."""
    names = asyncio.run(_find_models(directory))
    return [Served(FleetBackend(directory, name, parallel), defaults) for name in names]
