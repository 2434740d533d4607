"""How fast model files run here, beside what the machine could do: the substance of ``selfee bench``.

Every file with every number of threads runs in each round, in a process of its own, with the machine's limits measured
before and after it; rounds are interleaved and medians told, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from selfee.eval.bench_child import GENERATE, PASS, PROMPT, REVISION, Case, Timed
from selfee.eval.child import ask_child
from selfee.eval.limits import Limits, Machine
from selfee.llama.config import LlamaConfig
from selfee.llama.tokenizer import load_tokenizer
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.open import open_checkpoint

_BATCH = 256  # tokens that go through the layers together (native/forward.h)
_NAMES = {PROMPT: "pp", GENERATE: "tg", PASS: "pass"}

OnStep = Callable[[str], None]
"""Told the name of a file after each case on it."""


def name_of(case: Case) -> str:
    """pp512, tg128, pass8, revision, revision-drafted."""
    if case.kind == REVISION:
        return "revision-drafted" if case.drafting else "revision"
    return f"{_NAMES[case.kind]}{case.tokens}"


@dataclass(frozen=True)
class Work:
    """What a model does for its tokens."""

    bytes_read: int  # weights that a pass reads: all but the embedding's, of which it reads a row for each token
    layers: int  # multiply-adds of a token in the layers
    head: int  # multiply-adds for a row of logits
    is_quantised: bool  # whether most of them are products of bytes

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Work:
        """Of an open model file."""
        is_tied = "output.weight" not in checkpoint.tensors
        head_name = "token_embd.weight" if is_tied else "output.weight"
        read = layers = head = byte_products = 0
        for name, tensor in checkpoint.tensors.items():
            if name == "token_embd.weight" and not is_tied:
                continue
            read += tensor.nbytes
            if len(tensor.shape) != 2:
                continue
            count = prod(tensor.shape)
            head, layers = (head + count, layers) if name == head_name else (head, layers + count)
            byte_products += count if tensor.type.block_values > 1 else 0
        return cls(read, layers, head, 2 * byte_products > layers + head)

    def bytes_of(self, case: Case) -> int | None:
        """Bytes of weights that a case reads; None where the number of passes depends on the guesses."""
        passes = {PROMPT: -(-case.tokens // _BATCH), GENERATE: case.tokens, PASS: -(-case.tokens // _BATCH)}
        return None if case.kind == REVISION else passes[case.kind] * self.bytes_read

    def multiply_adds_of(self, case: Case) -> int | None:
        """Products of bytes of a case; None for weights that are floats, and for guesses."""
        if not self.is_quantised or case.kind == REVISION:
            return None
        return case.tokens * self.layers + (1 if case.kind == PROMPT else case.tokens) * self.head


@dataclass(frozen=True)
class CaseResult:
    """Medians over the rounds; shares are None where they say nothing."""

    name: str
    kind: str
    tokens: int
    drafting: bool
    seconds: float
    tokens_per_second: float
    slowest: float  # tokens a second of the slowest round, and the fastest
    fastest: float
    of_reading: float | None  # bytes of weights over the time, as a share of what the same threads read at best
    of_multiplying: float | None  # multiply-adds over the time, as a share of the same threads' best


@dataclass(frozen=True)
class FileResult:
    """One file with one number of threads."""

    file: str
    size: int  # bytes
    parameters: int
    bits_per_weight: float
    threads: int
    rounds: int
    load_seconds: float
    peak_memory: int  # bytes of the whole process, at most
    bytes_read: int  # weights that a pass over them reads
    read_limit: float  # bytes a second
    multiply_limit: float  # multiply-adds of bytes a second
    cases: tuple[CaseResult, ...]

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass
class _Entry:
    """One file with one number of threads, and what was measured so far."""

    path: Path
    size: int
    parameters: int
    stored: int
    work: Work
    threads: int
    timed: list[list[Timed]] = field(default_factory=list)  # by round, then case
    limits: list[Limits] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    peak: int = 0


class Bench:
    """Files, numbers of threads and cases; ``run`` measures, ``results`` tells what is there, also after a Ctrl-C."""

    def __init__(self, paths: Sequence[Path], threads: Sequence[int], cases: Sequence[Case], rounds: int) -> None:
        """Opens every file once. Raises BadFileError, UnsupportedFileError for one that cannot be run."""
        self.cases, self.rounds = tuple(cases), rounds
        self._entries = [_entry(path, count) for path in paths for count in threads]
        self.steps = rounds * len(self._entries) * len(self.cases)

    def run(self, on_step: OnStep | None = None) -> None:
        """Measure, round after round. Raises ResourceError where memory is short, UsageError for a bad count."""
        machine = Machine(max(entry.work.bytes_read for entry in self._entries))
        for number in range(self.rounds):
            for entry in self._entries if number % 2 == 0 else reversed(self._entries):
                before = machine.measure(entry.work.bytes_read, entry.threads)
                self._measure(entry, on_step)
                entry.limits.append(before.mean(machine.measure(entry.work.bytes_read, entry.threads)))

    def results(self) -> list[FileResult]:
        """Of all that was measured at least once, in the order asked for."""
        return [self._result(entry) for entry in self._entries if entry.limits]

    def _measure(self, entry: _Entry, on_step: OnStep | None) -> None:
        request = {
            "path": str(entry.path),
            "threads": entry.threads,
            "cases": [asdict(case) for case in self.cases],
        }

        def hear(said: dict[str, Any]) -> None:
            if on_step is not None and "done" in said:
                on_step(entry.path.name)

        expected = "it to run; choose a smaller file or smaller cases"
        said = ask_child("selfee.eval.bench_child", [json.dumps(request)], entry.path, expected, hear)
        entry.timed.append([Timed(**result) for result in said["results"]])
        entry.loads.append(said["load"])
        entry.peak = max(entry.peak, said["peak"])

    def _result(self, entry: _Entry) -> FileResult:
        rounds = list(zip(entry.timed, entry.limits))  # a round that was stopped has no limits
        return FileResult(
            file=entry.path.name,
            size=entry.size,
            parameters=entry.parameters,
            bits_per_weight=round(8 * entry.stored / entry.parameters, 4),
            threads=entry.threads,
            rounds=len(rounds),
            load_seconds=statistics.median(entry.loads[: len(rounds)]),
            peak_memory=entry.peak,
            bytes_read=entry.work.bytes_read,
            read_limit=statistics.median(limits.read for _, limits in rounds),
            multiply_limit=statistics.median(limits.multiply for _, limits in rounds),
            cases=tuple(
                _case_result(case, entry.work, [(timed[index], limits) for timed, limits in rounds])
                for index, case in enumerate(self.cases)
            ),
        )


def _entry(path: Path, threads: int) -> _Entry:
    with open_checkpoint(path) as checkpoint:
        LlamaConfig.from_checkpoint(checkpoint)
        load_tokenizer(checkpoint.vocab)
        stored = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
        parameters = sum(prod(tensor.shape) for tensor in checkpoint.tensors.values())
        return _Entry(path, checkpoint.size, parameters, stored, Work.of(checkpoint), threads)


def _case_result(case: Case, work: Work, rounds: Sequence[tuple[Timed, Limits]]) -> CaseResult:
    rates = [timed.tokens / timed.seconds for timed, _ in rounds]
    return CaseResult(
        name=name_of(case),
        kind=case.kind,
        tokens=rounds[0][0].tokens,
        drafting=case.drafting,
        seconds=statistics.median(timed.seconds for timed, _ in rounds),
        tokens_per_second=statistics.median(rates),
        slowest=min(rates),
        fastest=max(rates),
        of_reading=_share(work.bytes_of(case), [timed.seconds * limits.read for timed, limits in rounds]),
        of_multiplying=_share(
            work.multiply_adds_of(case), [timed.seconds * limits.multiply for timed, limits in rounds]
        ),
    )


def _share(amount: int | None, possible: Sequence[float]) -> float | None:
    """``amount`` as a share of what was possible in the same time, round by round."""
    return None if amount is None else round(amount / statistics.median(possible), 4)
