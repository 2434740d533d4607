"""Many questions, several chains at a time: an engine that can puts them through its model together."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfee.chain.asking import derive_seed
from selfee.chain.policy import RevisionPolicy
from selfee.chain.run import stream_chain
from selfee.chain.types import Chain, Instruction
from selfee.engines.base import SamplingParams
from selfee.errors import SelfeeError, UsageError

_POLICY, _PARAMS = RevisionPolicy(), SamplingParams()


def run_chains(
    engine: object,
    instructions: Sequence[Instruction | str],
    policy: RevisionPolicy = _POLICY,
    params: SamplingParams = _PARAMS,
    *,
    parallel: int | None = None,
    seeds: Sequence[int] | None = None,
    **options: Any,
) -> Iterator[tuple[int, Chain]]:
    """Make a chain for each instruction; yields (index, chain) as they end, every index once.

    ``parallel`` chains are made at a time, each in a thread of its own (None: as many as the engine says that it can,
    attribute ``parallel``, else one); ``options`` are those of ``stream_chain``. A chain is the same alone and in
    company: its seed is ``derive_seed(seed, index)``, or the one that ``seeds`` has for it, and is recorded in it. A
    chain whose engine failed comes as it stands, cut off, its status saying why; closing the iterator cancels all.
    Raises UsageError for arguments that do not fit the engine, and for ``parallel`` below 1.
    """
    count = int(getattr(engine, "parallel", 1)) if parallel is None else parallel
    if count < 1:
        raise UsageError(f"parallel: {count}; expected 1 or more")
    if seeds is not None and len(seeds) != len(instructions):
        raise UsageError(f"seeds: {len(seeds)} for {len(instructions)} instructions; expected one each")
    seed = random.getrandbits(32) if params.seed is None else params.seed
    chosen = [derive_seed(seed, index) for index in range(len(instructions))] if seeds is None else list(seeds)
    job = _Job(engine, list(instructions), policy, params, chosen, options)
    threads = [threading.Thread(target=job.work, daemon=True) for _ in range(min(count, len(instructions)))]
    return _results(job, threads)


def _results(job: _Job, threads: Sequence[threading.Thread]) -> Iterator[tuple[int, Chain]]:
    try:
        for thread in threads:
            thread.start()
        for _ in job.instructions:
            result = job.results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        job.is_cancelled.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


@dataclass
class _Job:
    """What the threads share."""

    engine: object
    instructions: Sequence[Instruction | str]
    policy: RevisionPolicy
    params: SamplingParams
    seeds: Sequence[int]
    options: dict[str, Any]

    def __post_init__(self) -> None:
        self.results: queue.SimpleQueue[tuple[int, Chain] | BaseException] = queue.SimpleQueue()
        self.is_cancelled = threading.Event()
        self._next = iter(range(len(self.instructions)))
        self._lock = threading.Lock()

    def work(self) -> None:
        """Make one chain after another until none is left."""
        try:
            while not self.is_cancelled.is_set():
                with self._lock:
                    index = next(self._next, None)
                if index is None:
                    return
                self.results.put((index, self._make(index)))
        except BaseException as error:
            self.results.put(error)

    def _make(self, index: int) -> Chain:
        params = replace(self.params, seed=self.seeds[index])
        with stream_chain(self.engine, self.instructions[index], self.policy, params, **self.options) as stream:
            try:
                for _ in stream:
                    if self.is_cancelled.is_set():
                        break
            except UsageError:
                raise
            except SelfeeError:
                pass  # the chain says so
            return stream.chain
