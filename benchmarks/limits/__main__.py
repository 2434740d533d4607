"""Print the machine's limits, and record them."""

from __future__ import annotations

import argparse

from benchmarks.limits import measure
from benchmarks.results import record


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description="The machine's own limits.")
    parser.add_argument("--threads", type=int, action="append", help="may be repeated; default: 1 and 2")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    for threads in options.threads or (1, 2):
        figures |= {f"{threads}t {name}": value for name, value in measure(threads).items()}
    for name, value in figures.items():
        print(f"{name:24} {value:8.1f}")
    if not options.no_record:
        record("limits", figures, isa="native")


if __name__ == "__main__":
    main()
