"""How long a value takes to be quantised: native on each instruction set, and the NumPy twin.

    python benchmarks/quantizers.py [--quick] [--type Q4_K ...]

From float16 that lies in the last-level cache to every type by each rule (June 2023, today, importance matrix). Figures
are the best of interleaved rounds: nanoseconds a value, and GB/s of float16 read. On one thread the processor's time
counts, so that a busy machine measures nearly the same; on two the clock. The twin is measured on a small part.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results import record

from selfee.weights import quantize
from selfee.weights.quantization import quantizers
from selfee.weights.quantization.quantizers import Generation
from selfee.weights.quants import QuantType

COLS = 2048
VALUES = 1 << 21  # 4 MiB of float16
TWIN_VALUES = 1 << 16
TYPES = ["F32", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
QUICK = ["Q4_0", "Q8_0", "Q4_K", "Q6_K"]
RULES = ["2023", "today", "importance"]

Run = Callable[[], object]
Clock = Callable[[], float]


def runs(type: QuantType) -> Iterator[tuple[str, Run, Clock, int]]:
    """Name, work, clock and number of values of everything that is measured for one type."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.02, VALUES).astype(np.float16)
    importance = rng.chisquare(1, COLS).astype(np.float32)
    few = values[:TWIN_VALUES].astype(np.float32).reshape(-1, COLS)
    for rule in RULES:
        generation = Generation.JUNE_2023 if rule == "2023" else Generation.CURRENT
        weights = importance if rule == "importance" else None

        def twin(generation: Generation = generation, weights: quantize.Floats | None = weights) -> object:
            return quantizers.quantize(type, few, generation=generation, importance=weights)

        yield f"{type.name} {rule} twin", twin, time.thread_time, TWIN_VALUES
        for isa in quantize.instruction_sets():
            for threads in (1, 2) if isa == quantize.isa() else (1,):
                quantizer = quantize.Quantizer(threads, instruction_set=isa)

                def native(
                    quantizer: quantize.Quantizer = quantizer,
                    generation: Generation = generation,
                    weights: quantize.Floats | None = weights,
                ) -> object:
                    raw = values.view(np.uint8)
                    return quantizer.run(
                        type, QuantType.F16, raw, VALUES // COLS, COLS, generation=generation, importance=weights
                    )

                clock = time.thread_time if threads == 1 else time.perf_counter
                yield f"{type.name} {rule} {isa} {threads}t", native, clock, VALUES


def measure(type: QuantType, rounds: int) -> dict[str, float]:
    """Nanoseconds a value of everything, the best of the rounds."""
    work = list(runs(type))
    best = {name: float("inf") for name, *_ in work}
    for _ in range(rounds):
        for name, run, clock, count in work:
            start = clock()
            run()
            best[name] = min(best[name], (clock() - start) / count * 1e9)
    return {f"{name} ns": nanoseconds for name, nanoseconds in best.items()}


def table(type: QuantType, figures: dict[str, float]) -> None:
    """Print one type's figures: a line for each rule."""
    for rule in RULES:
        cells = []
        for name, nanoseconds in figures.items():
            if name.startswith(f"{type.name} {rule} "):
                who = name.removeprefix(f"{type.name} {rule} ").removesuffix(" ns")
                cells.append(f"{who} {nanoseconds:7.2f} ns {2 / nanoseconds:5.2f} GB/s")
        print(f"{type.name:5} {rule:10} " + "  ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four types, three rounds")
    parser.add_argument("--type", action="append", metavar="NAME", help="only this type (may be repeated)")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    everything: dict[str, float] = {}
    for name in options.type or (QUICK if options.quick else TYPES):
        figures = measure(QuantType[name], 3 if options.quick else 7)
        table(QuantType[name], figures)
        everything |= figures
    if not options.no_record:
        print("\nrecorded in", record("quantizers", everything, isa=quantize.isa()).name)


if __name__ == "__main__":
    main()
