"""One job at a worker over HTTP: what comes of it, told apart from a worker that is lost."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx2

from selfee.engines.sse import SseParser
from selfee.errors import EngineError, SelfeeError
from selfee.serve.engine.jobs import Job, Outcome
from selfee.serve.engine.wire import error_from_json, job_to_json, outcome_from_json
from selfee.serve.fleet.registry import Worker
from selfee.serve.protocol.errors import BackendLostError

_BUSY = frozenset((429, 503))
_MOST_BYTES = 1 << 28


class WorkerLostError(BackendLostError):
    """A worker went away, or can take nothing on, before its job was done: another may do it."""


class WorkerBusyError(WorkerLostError):
    """A worker is there and can take nothing on."""


class RemoteJob:
    """A job at a worker. Iterating gives outcomes; ``cancel`` has it end soon, as cut off."""

    def __init__(self, client: httpx2.AsyncClient, worker: Worker, model: str, job: Job) -> None:
        self._client = client
        self._worker = worker
        self._body = {"id": secrets.token_hex(12), "model": model, "job": job_to_json(job)}

    async def outcomes(self) -> AsyncGenerator[Outcome, None]:
        """What comes. Raises WorkerLostError where the worker is lost, else what the engine raised."""
        where = f"worker {self._worker.address}"
        try:
            async with self._client.stream("POST", f"{self._worker.address}/fleet/run", json=self._body) as answer:
                if answer.status_code != 200:
                    raise _refused(where, answer.status_code, await answer.aread())
                async for row in _rows(answer.aiter_bytes(), where):
                    if "done" in row:
                        return
                    if "lost" in row:
                        raise WorkerLostError(f"{where}: {row['lost']}")
                    if "error" in row:
                        raise error_from_json(row["error"])
                    yield outcome_from_json(row)
        except httpx2.HTTPError as error:
            raise WorkerLostError(
                f"{where}: lost ({type(error).__name__}); another one takes over if there is one"
            ) from error
        raise WorkerLostError(f"{where}: its stream ended before the job did; another one takes over if there is one")

    async def cancel(self) -> None:
        """Have it end soon; a worker that is lost has ended already."""
        try:
            await self._client.post(f"{self._worker.address}/fleet/cancel", json={"id": self._body["id"]})
        except httpx2.HTTPError:
            return


async def _rows(pieces: AsyncIterator[bytes], where: str) -> AsyncIterator[dict[str, Any]]:
    parser, size = SseParser(max_event_bytes=_MOST_BYTES), 0
    async for piece in pieces:
        size += len(piece)
        if size > _MOST_BYTES:
            raise EngineError(f"{where}: says more than {_MOST_BYTES} bytes; expected far less")
        for data in parser.feed(piece):
            yield json.loads(data)


def _refused(where: str, status: int, body: bytes) -> SelfeeError:
    try:
        found = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        found = f"status {status}"
    if status in _BUSY:
        return WorkerBusyError(f"{where}: takes nothing on now ({found})")
    return EngineError(f"{where}: refuses the job: {found}")
