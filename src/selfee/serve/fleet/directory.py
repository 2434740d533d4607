"""Who the workers are, as a server that has jobs for them knows it: asked of the controller, and remembered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import httpx2

from selfee.engines.connection import trusted_certificates
from selfee.errors import EngineError, UsageError
from selfee.serve.fleet.registry import Registry, Worker
from selfee.serve.fleet.settings import Patience, authorization


class Directory:
    """Follows a controller. ``start`` comes first; several models share one."""

    def __init__(self, controller: str, secret: str | None = None, patience: Patience | None = None) -> None:
        self.controller = controller.rstrip("/")
        self.patience = patience or Patience()
        self.registry = Registry(time.monotonic, expiry=float("inf"))
        self._shunned: dict[str, float] = {}
        self._secret = secret
        self._client: httpx2.AsyncClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._users = 0
        self.is_reachable = False

    @property
    def client(self) -> httpx2.AsyncClient:
        """For calls to workers: they carry the secret, and go nowhere but where they are sent."""
        assert self._client is not None, "start comes first"
        return self._client

    async def start(self) -> None:
        """Ask the controller, and go on asking. Raises EngineError where it does not answer the first time."""
        self._users += 1
        if self._task is not None:
            return
        patience = self.patience
        self._client = httpx2.AsyncClient(
            headers=authorization(self._secret),
            timeout=httpx2.Timeout(patience.stall, connect=patience.connect),
            limits=httpx2.Limits(max_connections=None),
            follow_redirects=False,
            trust_env=False,
            verify=trusted_certificates(),
        )
        await self.refresh()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Ask no more."""
        self._users -= 1
        if self._users > 0 or self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        await self.client.aclose()

    async def refresh(self) -> None:
        """Ask once. Raises EngineError."""
        where = f"controller {self.controller}"
        try:
            answer = await self.client.get(f"{self.controller}/fleet/workers", timeout=self.patience.status)
        except httpx2.HTTPError as error:
            self.is_reachable = False
            raise EngineError(
                f"{where}: no answer ({type(error).__name__}); is it running there?", retryable=True
            ) from error
        if answer.status_code == 401:
            raise UsageError(f"{where}: does not know this secret; expected the one it was started with")
        if answer.status_code != 200:
            raise EngineError(f"{where}: answers with status {answer.status_code}; expected a selfee controller")
        self.is_reachable = True
        told = [_worker(row) for row in answer.json()["workers"]]
        for gone in {worker.address for worker in self.registry.workers} - {worker.address for worker in told}:
            self.registry.remove(gone)
        for worker in told:
            self.registry.put(worker)

    async def choose(self, model: str, affinity: str, exclude: set[str]) -> Worker:
        """Who gets a job; waits a while for a worker. Raises EngineError where none comes."""
        until = time.monotonic() + self.patience.worker
        while True:
            now = time.monotonic()
            self._shunned = {address: end for address, end in self._shunned.items() if end > now}
            worker = self.registry.choose(model, affinity, exclude | set(self._shunned))
            worker = worker or self.registry.choose(model, affinity, exclude)
            if worker is not None:
                return worker
            if now >= until:
                raise EngineError(f"{model}: no worker is there for it; expected one; try again", retryable=True)
            exclude.clear()  # one that was lost may have come again
            await asyncio.sleep(min(0.25, self.patience.refresh))
            with contextlib.suppress(EngineError):
                await self.refresh()

    async def report(self, worker: Worker) -> None:
        """A worker was lost: give it nothing for a while, and tell the controller, which looks after it."""
        self._shunned[worker.address] = time.monotonic() + self.patience.shunned
        with contextlib.suppress(httpx2.HTTPError):
            await self.client.post(
                f"{self.controller}/fleet/report", json={"worker": worker.address}, timeout=self.patience.status
            )

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.patience.refresh)
            with contextlib.suppress(EngineError, UsageError):
                await self.refresh()


def _worker(row: Mapping[str, Any]) -> Worker:
    return Worker(
        row["address"],
        tuple(row["models"]),
        float(row["speed"]),
        int(row["queue"]),
        kind=row["kind"],
        facts=row["facts"],
        multimodal=bool(row.get("multimodal", False)),
    )
