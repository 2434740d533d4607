"""How fast each block type is multiplied, beside what the machine can do at best in the same seconds.

    python benchmarks/kernels.py [--quick] [--type Q4_1 ...]

Matrices: one that stays in the last-level cache, one that does not. n tokens at once, 1 and 2 threads, weights packed
as a model holds them. Figures are medians of interleaved rounds: GB/s of weights, GMAC/s, and the quotient with what
the same threads read from the same place (GB/s) or multiply from registers (GMAC/s) at best. 512 tokens are measured
in the cache only: there arithmetic decides, not memory.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import limits
from benchmarks.results import record

from selfee import _native
from selfee.weights.quants import QuantType

COLS = 2048
CACHED, STREAMED = 6 << 20, 96 << 20  # bytes of weights; common last-level caches hold 16 to 64 MiB
TOKENS = {CACHED: (1, 2, 4, 8, 32, 512), STREAMED: (1, 2, 4, 8, 32)}
PLACE = {CACHED: "cache", STREAMED: "memory"}
THREADS = (1, 2)
QUICK = ("Q4_1", "Q8_0", "Q4_K", "Q6_K")
SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)}

Case = tuple[str, int, int]  # place, threads, tokens
Run = Callable[[int], float]  # repeats -> seconds for one
Bytes = npt.NDArray[np.uint8]


def weights(type: QuantType, size: int) -> tuple[Bytes, int]:
    """Plausible blocks of about ``size`` bytes, and how many rows of COLS values they are."""
    rng = np.random.default_rng(0)
    row_blocks = COLS // type.block_values
    rows = size // (row_blocks * type.block_bytes) // 16 * 16
    if type.block_values == 1:
        values = rng.normal(size=(16 * COLS, 1)).astype(np.float16 if type is QuantType.F16 else np.float32)
        some = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8) if type is QuantType.BF16 else values
        some = some.view(np.uint8)
    else:
        some = rng.integers(0, 256, (16 * row_blocks, type.block_bytes), dtype=np.uint8)
        for at in SCALES.get(type.name, (0, 2) if type.name.endswith(("_1", "4_K", "5_K")) else (0,)):
            some[:, at : at + 2] = rng.normal(0, 0.01, (len(some), 1)).astype(np.float16).view(np.uint8)
    return np.tile(some.reshape(-1), rows // 16), rows


def repeats_for(run: Run, seconds: float = 0.004) -> int:
    """How often to repeat so that one measurement takes about ``seconds``."""
    return max(1, min(200, int(seconds / max(run(1), 1e-7))))


def measure(type: QuantType, rounds: int) -> Iterator[tuple[str, float]]:
    """Name and value of every figure of one type."""
    runs: dict[Case, tuple[Run, int]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for size, place in PLACE.items():
        blocks, rows = weights(type, size)
        matrix = _native.HeldMatrix(int(type), blocks, rows, COLS, True)
        sizes[place] = (blocks.nbytes, rows * COLS)
        for n in TOKENS[size]:
            x = np.random.default_rng(n).normal(size=(n, COLS)).astype(np.float32)
            for threads in THREADS:
                run = functools.partial(_native.time_matmul, matrix, x, threads)
                runs[place, threads, n] = run, repeats_for(run)
    seconds: dict[Case, list[float]] = {case: [] for case in runs}
    reads: dict[tuple[str, int], list[float]] = {(place, threads): [] for place in sizes for threads in THREADS}
    peaks: dict[int, list[float]] = {threads: [] for threads in THREADS}
    for _ in range(rounds):
        for threads in THREADS:
            found = limits.measure(threads, "compute", *map(str, PLACE))
            peaks[threads].append(found["byte dot GMAC/s"])
            for size, place in PLACE.items():
                reads[place, threads].append(found[f"{size} bytes GB/s"])
        for case, (timed, repeats) in runs.items():
            seconds[case].append(timed(repeats))
    for (place, threads, n), times in seconds.items():
        nbytes, values = sizes[place]
        taken = statistics.median(times)
        name = f"{type.name} {place} {threads}t n={n}"
        yield f"{name} ms", taken * 1e3
        yield f"{name} GB/s", nbytes / taken / 1e9
        yield f"{name} of read", nbytes / taken / 1e9 / statistics.median(reads[place, threads])
        yield f"{name} GMAC/s", values * n / taken / 1e9
        yield f"{name} of peak", values * n / taken / 1e9 / statistics.median(peaks[threads])
    for (place, threads), rates in reads.items():
        yield f"{type.name} {place} {threads}t read GB/s", statistics.median(rates)
    for threads, rates in peaks.items():
        yield f"{type.name} {threads}t byte peak GMAC/s", statistics.median(rates)


def table(type: QuantType, figures: dict[str, float]) -> None:
    """Print one type's figures: a line for each place and number of threads."""
    for size, place in PLACE.items():
        for threads in THREADS:
            cells = []
            for n in TOKENS[size]:
                key = f"{type.name} {place} {threads}t n={n}"
                limit = "of read" if n == 1 else "of peak"
                unit = "GB/s" if n == 1 else "GMAC/s"
                cells.append(f"n={n} {figures[f'{key} {unit}']:5.1f} {unit} {figures[f'{key} {limit}']:4.0%}")
            print(f"{type.name:5} {place:6} {threads}t  " + "  ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four types, three rounds")
    parser.add_argument("--type", action="append", metavar="NAME", help="only this type (may be repeated)")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    names = options.type or (QUICK if options.quick else [type.name for type in QuantType if type.readable])
    everything: dict[str, float] = {}
    for name in names:
        figures = dict(measure(QuantType[name], 3 if options.quick else 5))
        table(QuantType[name], figures)
        everything |= figures
    if not options.no_record:
        print("\nrecorded in", record("kernels", everything, isa=_native.isa_name()).name)


if __name__ == "__main__":
    main()
