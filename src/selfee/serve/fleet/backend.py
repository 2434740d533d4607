"""A backend whose computing is done by workers: a job that one does not finish, another does."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import httpx2

from selfee.engines.cancelling import Cancellation
from selfee.engines.scoring import ScoredSequence
from selfee.errors import EngineError, UsageError
from selfee.serve.engine.jobs import ChainJob, Job, ModelInfo, Outcome
from selfee.serve.engine.threads import ThreadBackend
from selfee.serve.engine.wire import error_from_json, sequence_from_json
from selfee.serve.fleet.directory import Directory
from selfee.serve.fleet.fastchat import FastChatEngine
from selfee.serve.fleet.registry import Worker
from selfee.serve.fleet.replay import Replay
from selfee.serve.fleet.stream import RemoteJob, WorkerBusyError, WorkerLostError


class FleetBackend:
    """Implements ``Backend`` for one model of a fleet."""

    def __init__(self, directory: Directory, model: str, parallel: int) -> None:
        self._directory = directory
        self._model = model
        self._parallel = parallel
        self._created = int(time.time())
        self._cancellations: set[Cancellation] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.moves = 0  # jobs that another worker went on with

    @property
    def info(self) -> ModelInfo:
        """See ``Backend.info``: as one of its workers tells."""
        facts = next((w.facts[self._model] for w in self._workers() if self._model in w.facts), {})
        return ModelInfo(
            self._model,
            str(facts.get("engine", self._model)),
            facts.get("context_length"),
            self._parallel,
            facts.get("mode", "guided"),
            bool(facts.get("can_complete", True)),
            self._created,
            facts.get("end_text"),
        )

    def _workers(self) -> list[Worker]:
        return [worker for worker in self._directory.registry.workers if self._model in worker.models]

    @property
    def is_ready(self) -> bool:
        """See ``Backend.is_ready``."""
        return bool(self._workers())

    async def start(self) -> None:
        """See ``Backend.start``."""
        await self._directory.start()

    async def cut(self) -> None:
        """See ``Backend.cut``."""
        for cancellation in list(self._cancellations):
            cancellation.set()

    async def close(self) -> None:
        """See ``Backend.close``."""
        await self.cut()
        await self._directory.close()

    async def run(self, job: Job, cancellation: Cancellation) -> AsyncGenerator[Outcome, None]:
        """See ``Backend.run``. The job moves to another worker where one is lost, as often as patience allows."""
        replay, lost = Replay(job, self.info.mode), set[str]()
        affinity = _affinity(job)
        self._cancellations.add(cancellation)
        try:
            for move in range(self._directory.patience.moves + 1):
                worker = await self._directory.choose(self._model, affinity, lost)
                try:
                    async with aclosing(self._at(worker, replay.job, cancellation)) as outcomes:
                        async for outcome in outcomes:
                            for fresh in replay.take(outcome):
                                yield fresh
                    return
                except WorkerLostError as error:
                    if not isinstance(error, WorkerBusyError):
                        await self._directory.report(worker)
                    if cancellation.is_set or move == self._directory.patience.moves:
                        if isinstance(error, WorkerBusyError):
                            raise EngineError(str(error), retryable=True) from error
                        raise
                    lost.add(worker.address)
                    self.moves += 1
                    replay.restart()
        finally:
            self._cancellations.discard(cancellation)
            cancellation.set()

    async def _at(self, worker: Worker, job: Job, cancellation: Cancellation) -> AsyncGenerator[Outcome, None]:
        """The job at one worker."""
        if worker.kind == "fastchat":
            async with aclosing(self._at_fastchat(worker, job, cancellation)) as outcomes:
                async for outcome in outcomes:
                    yield outcome
            return
        remote = RemoteJob(self._directory.client, worker, self._model, job)
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            loop.call_soon_threadsafe(self._spawn, remote)

        with cancellation.heard_by(cancel):
            async with aclosing(remote.outcomes()) as outcomes:
                async for outcome in outcomes:
                    yield outcome

    def _spawn(self, remote: RemoteJob) -> None:
        task = asyncio.get_running_loop().create_task(remote.cancel())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _at_fastchat(self, worker: Worker, job: Job, cancellation: Cancellation) -> AsyncGenerator[Outcome, None]:
        """A worker of FastChat only continues texts: the chain is made here."""
        engine = FastChatEngine(worker.address, self._model, patience=self._directory.patience)
        local = ThreadBackend(engine, self.info)
        try:
            async with aclosing(local.run(job, cancellation)) as outcomes:
                async for outcome in outcomes:
                    yield outcome
        finally:
            await local.close()

    async def count_tokens(self, text: str) -> int:
        """See ``Backend.count_tokens``."""
        return int(await self._call("count_tokens", text=text))

    async def tokenize(self, text: str, *, add_special: bool) -> Sequence[tuple[int, str]]:
        """See ``Backend.tokenize``."""
        return [(token, piece) for token, piece in await self._call("tokenize", text=text, add_special=add_special)]

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """See ``Backend.detokenize``."""
        return str(await self._call("detokenize", tokens=list(tokens)))

    async def score(
        self, prompts: Sequence[str | Sequence[int]], *, top: int, scope: str = ""
    ) -> Sequence[ScoredSequence]:
        """See ``Backend.score``."""
        told = await self._call("score", prompts=list(prompts), top=top, scope=scope)
        return [sequence_from_json(row) for row in told]

    async def _call(self, name: str, **words: Any) -> Any:
        """Ask any worker that can tell; another where one is lost."""
        lost = set[str]()
        for move in range(self._directory.patience.moves + 1):
            worker = await self._directory.choose(self._model, "", lost)
            if worker.kind == "fastchat":
                raise UsageError(f"model: {self._model} does not tell its tokens; expected a worker of selfee")
            try:
                answer = await self._directory.client.post(
                    f"{worker.address}/fleet/call", json={"model": self._model, "name": name, "words": words}
                )
            except httpx2.HTTPError as error:
                lost.add(worker.address)
                await self._directory.report(worker)
                if move == self._directory.patience.moves:
                    raise WorkerLostError(f"worker {worker.address}: lost ({type(error).__name__})") from error
                continue
            row = answer.json()
            if answer.status_code != 200:
                raise EngineError(f"worker {worker.address}: {row['error']['message']}")
            if "error" in row:
                raise error_from_json(row["error"])
            return row["result"]
        raise AssertionError("the last move returns or raises")


def _affinity(job: Job) -> str:
    """What jobs of one conversation have in common: where it began."""
    if isinstance(job, ChainJob):
        told = job.instruction
        first = told.history[0].question if told.history else told.text
        begin = f"{told.system}\0{first}"
    else:
        begin = job.prompt[:256]
    return hashlib.sha256(begin.encode("utf-8", "replace")).hexdigest()[:16]
