"""A few tokens in one forward pass, as when a draft is verified: what they cost beside one token, and beside peers.

    python benchmarks/batch.py --scratch FOLDER [--shape 1.1b] [--type q4_0] [--tokens 8]

Medians of interleaved rounds. "x one" is the cost of the pass over the cost of one token of a generated text.
The logits are those of the last token, for peers compute no others; verifying a draft needs all: a line of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.comparison import Measured, arguments, compare, keep, models_of, rivals_of
from benchmarks.engines import Case, own_engine

TOKENS = (1, 2, 4, 8, 16, 32)
ALL_LOGITS = "selfee all logits"


def report(path: Path, threads: int, measured: Measured, widths: list[int]) -> dict[str, float]:
    """Print a line for each engine; the figures by name."""
    figures = {f"{path.stem} {threads}t {name}": value for name, value in measured.limits.items()}
    print(f"{path.stem} {threads}t   " + "  ".join(f"{name} {value:.0f}" for name, value in measured.limits.items()))
    for engine in dict.fromkeys(name for name, _ in measured.seconds):
        cells = []
        for width in widths:
            seconds = measured.seconds.get((engine, Case(width)))
            if seconds is None:
                continue
            figures[f"{path.stem} {threads}t n={width} {engine} ms"] = seconds * 1e3
            if engine.startswith("selfee"):
                ratio = f"(x {seconds / measured.seconds['selfee', Case(1)]:.2f} one)"
            else:
                ratio = f"(x {seconds / measured.seconds['selfee', Case(width)]:.2f})"
            cells.append(f"n={width} {seconds * 1e3:7.2f} {ratio}")
        print(f"  {engine:17} " + "  ".join(cells), flush=True)
    return figures


def main() -> None:
    given = arguments((__doc__ or "").split("\n")[0], shapes=("1.1b",), tokens=True)
    widths = sorted({1, *(given.tokens or TOKENS)})
    rivals = rivals_of(given)
    rivals.insert(1, own_engine(ALL_LOGITS, isa=given.isa, repack=not given.no_repack, logits="all"))
    figures: dict[str, float] = {}
    for path in models_of(given):
        for threads in given.threads:
            cases = [Case(width) for width in widths]
            measured = compare(path, threads, cases, rivals, given.rounds, "memory", "compute")
            figures |= report(path, threads, measured, widths)
    keep("batch", given, figures)


if __name__ == "__main__":
    main()
