"""Runs engines on models in turns, beside the machine's limits, and puts the figures into a table and a record."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import limits
from benchmarks.engines import Case, Engine, engines
from benchmarks.models import SHAPES, TYPES, model_file
from benchmarks.results import record

Key = TypeVar("Key")
QUICK_TYPES, QUICK_ROUNDS = ("q4_0", "q4_K_M"), 2


@dataclass
class Measured:
    """Of one model with a number of threads: medians over the rounds."""

    seconds: dict[tuple[str, Case], float] = field(default_factory=dict)
    """By engine and case."""
    limits: dict[str, float] = field(default_factory=dict)
    allowed: dict[tuple[str, Case, str], float] = field(default_factory=dict)
    """What the machine could have done in an engine's time for a case at the rate of a limit: GB, or G multiply-adds.

    The rate is the mean of those measured right before and right after the engine ran, because memory drifts by a
    factor of two within minutes.
    """

    def peers(self, case: Case) -> dict[str, float]:
        """Seconds of the peers that timed a case."""
        return {name: value for (name, one), value in self.seconds.items() if one == case and name != "selfee"}

    def share(self, case: Case, limit: str, amount: float) -> float:
        """How much of a limit selfee uses that does ``amount`` (in billions) in a case."""
        return amount / self.allowed["selfee", case, limit]

    def against_peers(self, case: Case) -> str:
        """The end of a line: how long each peer takes, and how many times as long as selfee."""
        own, peers = self.seconds["selfee", case], self.peers(case)
        cells = [f"   {name} {seconds * 1e3:.2f} ms x {seconds / own:.2f}" for name, seconds in peers.items()]
        others = [seconds for name, seconds in peers.items() if not name.startswith("selfee")]
        return "".join(cells) + (f"   best x {min(others) / own:.2f}" if len(others) > 1 else "")


def compare(
    path: Path, threads: int, cases: Sequence[Case], rivals: Sequence[Engine], rounds: int, *parts: str
) -> Measured:
    """Time every engine in every round, one after the other, with the limits ``parts`` before and after each."""
    times: dict[tuple[str, Case], list[float]] = {}
    allowed: dict[tuple[str, Case, str], list[float]] = {}
    bounds: dict[str, list[float]] = {}

    def bound() -> dict[str, float]:
        found = limits.measure(threads, *parts)
        for name, value in found.items():
            bounds.setdefault(name, []).append(value)
        return found

    before = bound()
    for number in range(rounds):
        order = rivals if number % 2 == 0 else list(reversed(rivals))
        for engine in order:
            print(f"  {path.stem} {threads}t round {number + 1}/{rounds} {engine.name}", file=sys.stderr, flush=True)
            measured = engine.time(path, threads, cases)
            after = bound()
            for case, seconds in measured.items():
                times.setdefault((engine.name, case), []).append(seconds)
                for name, value in after.items():
                    allowed.setdefault((engine.name, case, name), []).append(seconds * (before[name] + value) / 2)
            before = after
    return Measured(_medians(times), _medians(bounds), _medians(allowed))


def _medians(values: Mapping[Key, Sequence[float]]) -> dict[Key, float]:
    return {key: statistics.median(several) for key, several in values.items()}


def arguments(
    description: str, *, shapes: Sequence[str], depth: bool = False, tokens: bool = False
) -> argparse.Namespace:
    """What all the benchmarks of whole models are asked."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--scratch", type=Path, help="folder for models of random weights (made there, kept)")
    parser.add_argument("--shape", choices=SHAPES, action="append", help=f"default: {', '.join(shapes)}")
    parser.add_argument("--type", action="append", metavar="TYPE", help="default: all ten")
    parser.add_argument("--model", type=Path, action="append", help="a model file; default: SELFEE_TEST_MODEL, if set")
    parser.add_argument("--threads", type=int, action="append", help="default: 2")
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK_TYPES)}, {QUICK_ROUNDS} rounds")
    parser.add_argument("--isa", help="SELFEE_ISA of selfee")
    parser.add_argument("--no-repack", action="store_true", help="selfee uses the weights as they lie in the file")
    parser.add_argument("--alone", action="store_true", help="no peers")
    parser.add_argument("--no-record", action="store_true", help="print only")
    if depth:
        parser.add_argument("--depth", action="store_true", help="also after 1500 tokens")
        parser.add_argument("--cache-type", action="append", metavar="TYPE", help="selfee with this cache too: q8_0")
    if tokens:
        parser.add_argument("--tokens", type=int, action="append", help="default: 2, 4, 8, 16, 32")
    given = parser.parse_args()
    given.shape, given.threads = given.shape or list(shapes), given.threads or [2]
    given.type = given.type or list(QUICK_TYPES if given.quick else TYPES)
    given.rounds = given.rounds or (QUICK_ROUNDS if given.quick else 3)
    if given.model is None and (own := os.environ.get("SELFEE_TEST_MODEL")):
        given.model = [Path(own)]
    if given.model is None and given.scratch is None:
        parser.error("--scratch FOLDER or --model FILE is needed")
    return given


def models_of(given: argparse.Namespace) -> list[Path]:
    """The files to measure, in the order of their shapes, made where they are missing; model files come last."""
    made = [(shape, type) for shape in given.shape for type in given.type] if given.scratch else []
    return [model_file(given.scratch, shape, type) for shape, type in made] + (given.model or [])


def rivals_of(given: argparse.Namespace) -> list[Engine]:
    """The engines to measure."""
    found = engines(isa=given.isa, repack=not given.no_repack)
    return found[:1] if given.alone else found


def keep(benchmark: str, given: argparse.Namespace, figures: Mapping[str, float]) -> None:
    """Append the figures to the machine's record, under the name of what was asked of selfee."""
    from selfee.weights.quantize import isa

    if not given.no_record:
        suffix = (f" {given.isa}" if given.isa else "") + (" as in the file" if given.no_repack else "")
        record(benchmark + suffix, figures, isa=given.isa or isa())
