"""A prompt of 512 tokens: how near reading it comes to the machine's byte products, and how its peers do.

    python benchmarks/prefill.py --scratch FOLDER [--shape 1.1b] [--type q4_0]

Medians of interleaved rounds. "of peak": the multiply-adds of all matrices that every token passes (not the head, which
only the last one needs) over what the same threads multiply from registers at best in the same minute.
"""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.comparison import Measured, arguments, compare, models_of, rivals_of
from benchmarks.engines import Case
from benchmarks.results import record

from selfee.weights.open import open_checkpoint

TOKENS = 512


def multiplied(path: Path) -> int:
    """Weights that every token of a prompt is multiplied with."""
    with open_checkpoint(path) as checkpoint:
        return sum(prod(tensor.shape) for name, tensor in checkpoint.tensors.items() if name.startswith("blk."))


def report(path: Path, threads: int, measured: Measured) -> dict[str, float]:
    """Print a line; the figures by name."""
    own, peak = measured.seconds["selfee", Case(TOKENS)], measured.limits["byte dot GMAC/s"]
    rate = multiplied(path) * TOKENS / own / 1e9
    name = f"{path.stem} {threads}t"
    figures = {f"{name} byte dot GMAC/s": peak, f"{name} ms": own * 1e3, f"{name} of peak": rate / peak}
    line = (
        f"{name:20}{own * 1e3:8.1f} ms {TOKENS / own:7.1f} tokens/s {rate:6.1f} GMAC/s {rate / peak:4.0%} of {peak:.0f}"
    )
    for peer, seconds in measured.peers(Case(TOKENS)).items():
        figures[f"{name} {peer} ms"] = seconds * 1e3
        line += f"   {peer} {seconds * 1e3:.0f} ms x {seconds / own:.2f}"
    print(line, flush=True)
    return figures


def main() -> None:
    given = arguments((__doc__ or "").split("\n")[0], shapes=("1.1b",))
    figures: dict[str, float] = {}
    for path in models_of(given):
        for threads in given.threads:
            figures |= report(
                path, threads, compare(path, threads, [Case(TOKENS)], rivals_of(given), given.rounds, "compute")
            )
    if not given.no_record:
        record("prefill" + given.suffix, figures, isa=given.isa or "best")


if __name__ == "__main__":
    main()
