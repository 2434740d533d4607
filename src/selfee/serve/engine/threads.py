"""A backend in this process: each job in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import Any

from selfee.engines.cancelling import Cancellation
from selfee.engines.scoring import ScoredSequence
from selfee.serve.engine.jobs import Job, ModelInfo, Outcome
from selfee.serve.engine.work import call, outcomes

_PATIENCE = 5.0  # seconds

_Told = Outcome | BaseException | None  # None = that was all


class ThreadBackend:
    """Implements ``Backend`` over an engine that several threads may use."""

    def __init__(self, engine: Any, info: ModelInfo) -> None:
        self._engine = engine
        self._info = info
        self._running: dict[Cancellation, threading.Thread] = {}
        self._calls: set[Cancellation] = set()

    @property
    def info(self) -> ModelInfo:
        """See ``Backend.info``."""
        return self._info

    @property
    def is_ready(self) -> bool:
        """See ``Backend.is_ready``."""
        return True

    async def start(self) -> None:
        """See ``Backend.start``: the engine is there."""

    async def run(self, job: Job, cancellation: Cancellation) -> AsyncGenerator[Outcome, None]:
        """See ``Backend.run``."""
        loop, came = asyncio.get_running_loop(), asyncio.Queue[_Told]()

        def tell(item: _Told) -> None:
            loop.call_soon_threadsafe(came.put_nowait, item)

        thread = threading.Thread(target=self._work, args=(job, cancellation, tell), daemon=True)
        self._running[cancellation] = thread
        thread.start()
        has_ended = False
        try:
            while True:
                item = await came.get()
                has_ended = item is None or isinstance(item, BaseException)
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            cancellation.set()
            with suppress(TimeoutError):  # a thread that waits for another server hears of it with the next byte
                async with asyncio.timeout(_PATIENCE):
                    while not has_ended:
                        item = await came.get()
                        has_ended = item is None or isinstance(item, BaseException)
            del self._running[cancellation]

    def _work(self, job: Job, cancellation: Cancellation, tell: Callable[[_Told], None]) -> None:
        try:
            for outcome in outcomes(self._engine, job, cancellation):
                tell(outcome)
        except BaseException as error:
            tell(error)
        else:
            tell(None)

    async def count_tokens(self, text: str) -> int:
        """See ``Backend.count_tokens``."""
        return int(await self._call("count_tokens", text=text))

    async def tokenize(self, text: str, *, add_special: bool) -> Sequence[tuple[int, str]]:
        """See ``Backend.tokenize``."""
        found: Sequence[tuple[int, str]] = await self._call("tokenize", text=text, add_special=add_special)
        return found

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """See ``Backend.detokenize``."""
        return str(await self._call("detokenize", tokens=tokens))

    async def score(
        self, prompts: Sequence[str | Sequence[int]], *, top: int, scope: str = ""
    ) -> Sequence[ScoredSequence]:
        """See ``Backend.score``."""
        found: Sequence[ScoredSequence] = await self._call("score", prompts=prompts, top=top, scope=scope)
        return found

    async def _call(self, name: str, **words: Any) -> Any:
        cancellation = Cancellation()
        calling = asyncio.ensure_future(asyncio.to_thread(call, self._engine, name, cancellation, **words))
        self._calls.add(cancellation)
        try:
            return await asyncio.shield(calling)
        finally:
            cancellation.set()
            self._calls.discard(cancellation)
            if not calling.done():  # nobody waits for it any more: only until nothing computes
                await asyncio.wait((calling,), timeout=_PATIENCE)
                if calling.done():
                    calling.exception()

    async def cut(self) -> None:
        """See ``Backend.cut``."""
        for cancellation in [*self._running, *self._calls]:
            cancellation.set()

    async def close(self) -> None:
        """See ``Backend.close``."""
        await self.cut()
        for thread in list(self._running.values()):
            await asyncio.to_thread(thread.join, _PATIENCE)
        close = getattr(self._engine, "close", None)
        if close is not None:
            close()
