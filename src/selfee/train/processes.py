"""The processes of a run: one, or several that ``torchrun`` started, each with a share of the model and of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from selfee.train.libraries import library


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is; ``local`` counts those on this machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.rank == 0


class Group:
    """Processes that can reach each other, and the device each computes on; alone, nothing is sent."""

    def __init__(self, processes: Processes) -> None:
        torch = library("torch")
        self.processes = processes
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.mesh: Any = None
        if self.device == "cuda":
            torch.cuda.set_device(processes.local_rank)
        if processes.count > 1:
            backend = "cpu:gloo,cuda:nccl" if self.device == "cuda" else "gloo"
            torch.distributed.init_process_group(backend, timeout=timedelta(hours=1))
            self.mesh = torch.distributed.device_mesh.init_device_mesh(self.device, (processes.count,))

    @property
    def is_alone(self) -> bool:
        """Whether there is one process."""
        return self.mesh is None

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums of each process's ``values``, in 64 bits; every process must ask, and gets the same."""
        if self.is_alone:
            return list(values)
        torch = library("torch")
        sums = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(sums)
        return [float(value) for value in sums]

    def wait(self) -> None:
        """Go on when every process is here."""
        self.total([0.0])

    def close(self) -> None:
        """Part from the others."""
        if not self.is_alone:
            library("torch").distributed.destroy_process_group()


@contextmanager
def joined(processes: Processes) -> Iterator[Group]:
    """The group of these processes while the block runs."""
    group = Group(processes)
    try:
        yield group
    finally:
        group.close()
