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

from benchmarks.comparison import Measured, arguments, compare, keep, models_of, rivals_of
from benchmarks.engines import Case

from selfee.weights.open import open_checkpoint

TOKENS = 512
LIMIT = "byte dot GMAC/s"


def multiplied(path: Path) -> int:
    """Weights that every token of a prompt is multiplied with."""
    with open_checkpoint(path) as checkpoint:
        return sum(prod(tensor.shape) for name, tensor in checkpoint.tensors.items() if name.startswith("blk."))


def report(path: Path, threads: int, measured: Measured) -> dict[str, float]:
    """Print a line; the figures by name."""
    case = Case(TOKENS)
    own, peak, work = measured.seconds["selfee", case], measured.limits[LIMIT], multiplied(path) * TOKENS / 1e9
    share = measured.share(case, LIMIT, work)
    name = f"{path.stem} {threads}t"
    figures = {f"{name} {LIMIT}": peak, f"{name} ms": own * 1e3, f"{name} of peak": share}
    figures |= {f"{name} {peer} ms": seconds * 1e3 for peer, seconds in measured.peers(case).items()}
    rates = f"{TOKENS / own:7.1f} tokens/s {work / own:6.1f} GMAC/s {share:4.0%} of {peak:.0f}"
    print(f"{name:20}{own * 1e3:8.1f} ms {rates}" + measured.against_peers(case), flush=True)
    return figures


def main() -> None:
    given = arguments((__doc__ or "").split("\n")[0], shapes=("1.1b",))
    figures: dict[str, float] = {}
    for path in models_of(given):
        for threads in given.threads:
            measured = compare(path, threads, [Case(TOKENS)], rivals_of(given), given.rounds, "compute")
            figures |= report(path, threads, measured)
    keep("prefill", given, figures)


if __name__ == "__main__":
    main()
