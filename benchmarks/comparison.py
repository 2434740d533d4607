"""Runs engines on models in turns, beside the machine's limits, and puts the figures into a table and a record."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import limits
from benchmarks.engines import Case, Engine, engines
from benchmarks.models import SHAPES, TYPES, model_file


@dataclass
class Measured:
    """Of one model with a number of threads: medians of seconds, and of what the machine could do meanwhile."""

    seconds: dict[tuple[str, Case], float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)

    def peers(self, case: Case) -> dict[str, float]:
        """Seconds of the peers that timed a case."""
        return {name: value for (name, one), value in self.seconds.items() if one == case and name != "selfee"}


def compare(
    path: Path, threads: int, cases: Sequence[Case], rivals: Sequence[Engine], rounds: int, *parts: str
) -> Measured:
    """Time every engine in every round, one after the other, with the limits ``parts`` before each."""
    times: dict[tuple[str, Case], list[float]] = {}
    bounds: dict[str, list[float]] = {}
    for number in range(rounds):
        order = rivals if number % 2 == 0 else list(reversed(rivals))
        for engine in order:
            for name, value in limits.measure(threads, *parts).items():
                bounds.setdefault(name, []).append(value)
            print(f"  {path.stem} {threads}t round {number + 1}/{rounds} {engine.name}", file=sys.stderr, flush=True)
            for case, seconds in engine.time(path, threads, cases).items():
                times.setdefault((engine.name, case), []).append(seconds)
    middle = {key: statistics.median(values) for key, values in times.items()}
    return Measured(middle, {name: statistics.median(values) for name, values in bounds.items()})


def arguments(
    description: str, *, shapes: Sequence[str], depth: bool = False, tokens: bool = False
) -> argparse.Namespace:
    """What all the benchmarks of whole models are asked."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--scratch", type=Path, help="folder for models of random weights (made there, kept)")
    parser.add_argument("--shape", choices=SHAPES, action="append", help=f"default: {', '.join(shapes)}")
    parser.add_argument("--type", action="append", metavar="TYPE", help="default: all ten")
    parser.add_argument("--model", type=Path, action="append", help="a model file instead of random weights")
    parser.add_argument("--threads", type=int, action="append", help="default: 2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--isa", help="SELFEE_ISA of selfee")
    parser.add_argument("--no-repack", action="store_true", help="selfee uses the weights as they lie in the file")
    parser.add_argument("--alone", action="store_true", help="no peers")
    parser.add_argument("--no-record", action="store_true", help="print only")
    if depth:
        parser.add_argument("--depth", action="store_true", help="also after 1500 tokens")
    if tokens:
        parser.add_argument("--tokens", type=int, action="append", help="default: 2, 4, 8, 16, 32")
    given = parser.parse_args()
    given.suffix = (f" {given.isa}" if given.isa else "") + (" as in the file" if given.no_repack else "")
    given.shape, given.threads = given.shape or list(shapes), given.threads or [2]
    if given.model is None and given.scratch is None:
        parser.error("--scratch FOLDER or --model FILE is needed")
    return given


def models_of(given: argparse.Namespace) -> list[Path]:
    """The files to measure, smallest first, made where they are missing."""
    if given.model:
        return list(given.model)
    return [model_file(given.scratch, shape, type) for shape in given.shape for type in given.type or TYPES]


def rivals_of(given: argparse.Namespace) -> list[Engine]:
    """The engines to measure."""
    found = engines(isa=given.isa, repack=not given.no_repack)
    return found[:1] if given.alone else found
