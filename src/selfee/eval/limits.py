"""What this machine can do at best: bytes read and products of bytes a second, with the kernels' own instructions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selfee.engines.memory import available_memory
from selfee.errors import UsageError
from selfee.weights.quantize import isa, native

MOST_THREADS = 256
"""Threads that can be measured together."""

_LARGEST = 512 << 20  # bytes of the buffer: more than the caches of all but a few servers
_LEAST = 1 << 20
_SHARE = 8  # of the free memory: one part in so many may become the buffer
_AT_ONCE = 64 << 20  # bytes that are read for one figure, at least
_ROUNDS, _RUNS = 1_000_000, 3


@dataclass(frozen=True)
class Limits:
    """What some threads reached once, together."""

    read: float  # bytes a second, of a buffer of the size asked for
    multiply: float  # multiply-adds of bytes a second

    def mean(self, other: Limits) -> Limits:
        """Between two measurements: what held, probably, in the time between them."""
        return Limits((self.read + other.read) / 2, (self.multiply + other.multiply) / 2)


class Machine:
    """Measures limits again and again: memory drifts by a factor of two within minutes where others use it too."""

    def __init__(self, largest: int) -> None:
        """``largest``: bytes of the largest reading; half a GiB, or an eighth of the free memory, will do for more."""
        isa()  # a wrong SELFEE_ISA is said now, as a person's mistake
        have = available_memory()
        most = _LARGEST if have is None else max(_LEAST, min(_LARGEST, have // _SHARE))
        # Ones: pages of which nothing was written would all be the same page of zeros.
        self._buffer: npt.NDArray[np.uint8] = np.full(max(_LEAST, min(largest, most)), 1, np.uint8)

    def measure(self, size: int, threads: int) -> Limits:
        """Limits of ``threads`` threads; reading ``size`` bytes over and over, as generating tokens reads weights.

        What fits into a cache is read from there, and is read faster. Takes a fraction of a second. Raises UsageError
        for a number of threads that cannot be.
        """
        if not 1 <= threads <= MOST_THREADS:
            raise UsageError(f"threads: {threads}; expected 1 to {MOST_THREADS}")
        part = self._buffer[: max(_LEAST, min(size, len(self._buffer)))]
        repeats = max(1, _AT_ONCE // len(part))
        read = _best(lambda: native().read_rate(part, threads, repeats))
        return Limits(read, _best(lambda: native().multiply_rate(threads, _ROUNDS)))


def _best(measure: Callable[[], float]) -> float:
    return max(measure() for _ in range(_RUNS))
