"""Who the workers are, how busy, and who gets the next job. Pure: no clock of its own, no network, no threads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Kind = Literal["selfee", "fastchat"]

_SLACK = 2.0
"""Jobs that a worker may have more than the least busy one, and still get a conversation that it knows."""


@dataclass(frozen=True)
class Worker:
    """A worker as the controller knows it."""

    address: str
    models: tuple[str, ...]
    speed: float = 1.0
    queue: int = 0  # jobs it had when it last told
    sent: int = 0  # jobs given to it since then
    kind: Kind = "fastchat"
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of a model, by its name
    beats: bool = True  # whether it says again and again that it is there
    heard: float = 0.0
    multimodal: bool = False

    @property
    def load(self) -> float:
        """How busy it is, measured by how fast it is."""
        return (self.queue + self.sent) / max(self.speed, 1e-6)


class Registry:
    """All workers. ``expiry`` seconds without a heart-beat, and a worker is forgotten."""

    def __init__(self, clock: Callable[[], float], expiry: float = 90.0) -> None:
        self._clock = clock
        self._expiry = expiry
        self._workers: dict[str, Worker] = {}

    @property
    def workers(self) -> list[Worker]:
        """Those that are there now."""
        self._expire()
        return list(self._workers.values())

    def __contains__(self, address: str) -> bool:
        return address in self._workers

    def put(self, worker: Worker) -> None:
        """A worker comes, or says anew who it is."""
        self._workers[worker.address] = replace(worker, heard=self._clock(), sent=0)

    def beat(self, address: str, queue: int) -> bool:
        """A worker says that it is there; False = it is not known and should come anew."""
        self._expire()
        worker = self._workers.get(address)
        if worker is None:
            return False
        self._workers[address] = replace(worker, queue=queue, sent=0, heard=self._clock())
        return True

    def remove(self, address: str) -> None:
        """A worker is gone."""
        self._workers.pop(address, None)

    def models(self) -> list[str]:
        """Names of all models that somebody has."""
        return sorted({model for worker in self.workers for model in worker.models})

    def choose(self, model: str, affinity: str = "", exclude: Collection[str] = ()) -> Worker | None:
        """Who gets a job for this model, which counts from now on; None if nobody has it.

        Jobs of the same ``affinity`` go to the same worker, which still knows what they begin with, unless it is much
        busier than another; others go to the least busy.
        """
        able = [each for each in self.workers if model in each.models and each.address not in exclude]
        if not able:
            return None
        least = min(each.load for each in able)
        chosen = min(able, key=lambda each: (each.load, each.address))
        if affinity:
            favourite = max(able, key=lambda each: _weight(affinity, each.address))
            if favourite.load <= least + _SLACK:
                chosen = favourite
        self._workers[chosen.address] = replace(chosen, sent=chosen.sent + 1)
        return chosen

    def _expire(self) -> None:
        oldest = self._clock() - self._expiry
        for worker in [each for each in self._workers.values() if each.beats and each.heard < oldest]:
            del self._workers[worker.address]


def _weight(affinity: str, address: str) -> bytes:
    """Rendezvous hashing: when a worker goes, only its own conversations move."""
    return hashlib.sha256(f"{affinity}\0{address}".encode()).digest()
