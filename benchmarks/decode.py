"""One token after another: how near a whole model comes to reading its weights, and how its peers do.

    python benchmarks/decode.py --scratch FOLDER [--shape one-layer --shape 1.1b] [--type q4_0] [--threads 1 ...]
    python benchmarks/decode.py --model FILE --depth

Medians of interleaved rounds. "GB/s" is the size of the file over the time of a token; "of memory" its share of what
the same threads read from memory at best in the same minute (a one-layer model lies in the cache: there memory is no
limit).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.comparison import Measured, arguments, compare, models_of, rivals_of
from benchmarks.engines import Case
from benchmarks.results import record

DEPTHS = (0, 1500)


def report(path: Path, threads: int, measured: Measured, depths: tuple[int, ...]) -> dict[str, float]:
    """Print a line for each depth; the figures by name."""
    size, memory = path.stat().st_size, measured.limits["memory GB/s"]
    figures = {f"{path.stem} {threads}t memory GB/s": memory}
    for depth in depths:
        case = Case(1, depth)
        own = measured.seconds["selfee", case]
        name = f"{path.stem} {threads}t depth={depth}"
        rate = size / own / 1e9
        rates = {"ms": own * 1e3, "GB/s": rate, "of memory": rate / memory}
        figures |= {f"{name} {unit}": value for unit, value in rates.items()}
        line = f"{name:36} {own * 1e3:8.2f} ms {rate:6.1f} GB/s {rate / memory:5.0%} of {memory:.0f}"
        for peer, seconds in measured.peers(case).items():
            figures[f"{name} {peer} ms"] = seconds * 1e3
            line += f"   {peer} {seconds * 1e3:.2f} ms x {seconds / own:.2f}"
        print(line, flush=True)
    if len(depths) > 1:
        lost = measured.seconds["selfee", Case(1, depths[-1])] / measured.seconds["selfee", Case(1, depths[0])] - 1
        print(f"{path.stem} {threads}t: depth {depths[-1]} costs {lost:+.1%}")
        figures[f"{path.stem} {threads}t depth cost"] = lost
    return figures


def main() -> None:
    given: argparse.Namespace = arguments((__doc__ or "").split("\n")[0], shapes=("one-layer", "1.1b"), depth=True)
    depths = DEPTHS if given.depth else DEPTHS[:1]
    figures: dict[str, float] = {}
    for path in models_of(given):
        for threads in given.threads:
            cases = [Case(1, depth) for depth in depths]
            figures |= report(
                path, threads, compare(path, threads, cases, rivals_of(given), given.rounds, "memory"), depths
            )
    if not given.no_record:
        record("decode" + given.suffix, figures, isa=given.isa or "best")


if __name__ == "__main__":
    main()
