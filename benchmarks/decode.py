"""One token after another: how near a whole model comes to reading its weights, and how its peers do.

    python benchmarks/decode.py --scratch FOLDER [--shape one-layer --shape 1.1b] [--type q4_0] [--threads 1 ...]
    python benchmarks/decode.py --model FILE --depth [--cache-type q8_0]

Medians of interleaved rounds. "GB/s": the bytes of weights that a token reads (not the table of embeddings, of which it
reads one row) over its time. "of memory": its share of what the same threads read from memory at best right before and
after; "of cache" where the file is smaller than the last-level cache. --cache-type has selfee run with that cache of
keys and values as well, in the same rounds; its times stand beside those of peers.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.comparison import Measured, arguments, compare, keep, models_of, rivals_of
from benchmarks.engines import Case, own_engine

from selfee.weights.open import open_checkpoint

DEPTHS = (0, 1500)
LIMITS = {"memory": "memory GB/s", "cache": "16 MiB GB/s"}


def bytes_read(path: Path) -> int:
    """Bytes of weights that evaluating one token reads."""
    with open_checkpoint(path) as checkpoint:
        tied = "output.weight" not in checkpoint.tensors
        return sum(tensor.nbytes for name, tensor in checkpoint.tensors.items() if tied or name != "token_embd.weight")


def place_of(path: Path) -> str:
    """Where the weights lie while they are used again and again: "cache" or "memory"."""
    return "cache" if path.stat().st_size < last_level_cache() else "memory"


def last_level_cache() -> int:
    """Bytes of the largest cache that the first core reads through; 0 where the system does not say."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((int(size.read_text(encoding="ascii").strip().removesuffix("K")) * 1024 for size in sizes), default=0)


def report(path: Path, threads: int, measured: Measured, depths: tuple[int, ...]) -> dict[str, float]:
    """Print a line for each depth; the figures by name."""
    size, place = bytes_read(path), place_of(path)
    limit = measured.limits[LIMITS[place]]
    figures = {f"{path.stem} {threads}t {name}": value for name, value in measured.limits.items()}
    for depth in depths:
        case = Case(1, depth)
        own = measured.seconds["selfee", case]
        name = f"{path.stem} {threads}t depth={depth}"
        rate, share = size / own / 1e9, measured.share(case, LIMITS[place], size / 1e9)
        figures |= {f"{name} ms": own * 1e3, f"{name} GB/s": rate, f"{name} of {place}": share}
        figures |= {f"{name} {peer} ms": seconds * 1e3 for peer, seconds in measured.peers(case).items()}
        line = f"{name:34} {own * 1e3:8.2f} ms {rate:6.1f} GB/s {share:5.0%} of {place} ({limit:.0f})"
        print(line + measured.against_peers(case), flush=True)
    for engine in (name for name in dict.fromkeys(name for name, _ in measured.seconds) if name.startswith("selfee")):
        if len(depths) > 1:
            lost = measured.seconds[engine, Case(1, depths[-1])] / measured.seconds[engine, Case(1, depths[0])] - 1
            print(f"{path.stem} {threads}t: depth {depths[-1]} costs {engine} {lost:+.1%}")
            figures[f"{path.stem} {threads}t{engine.removeprefix('selfee')} depth cost"] = lost
    return figures


def main() -> None:
    given = arguments((__doc__ or "").split("\n")[0], shapes=("one-layer", "1.1b"), depth=True)
    depths = DEPTHS if given.depth else DEPTHS[:1]
    cases = [Case(1, depth) for depth in depths]
    rivals = rivals_of(given)
    rivals[1:1] = [
        own_engine(f"selfee {kind}", isa=given.isa, repack=not given.no_repack, cache_type=kind)
        for kind in given.cache_type or ()
    ]
    figures: dict[str, float] = {}
    for path in models_of(given):
        parts = ["memory"] + ["caches"] * (place_of(path) == "cache")
        for threads in given.threads:
            measured = compare(path, threads, cases, rivals, given.rounds, *parts)
            figures |= report(path, threads, measured, depths)
    keep("decode", given, figures)


if __name__ == "__main__":
    main()
