"""Several chains at a time on one engine: what they are worth together, how fairly they share, what they cost.

    python benchmarks/concurrency.py --model FILE [--parallel 8]

The same questions one chain at a time, then several: tokens a second over all, the slowest chain's part of an even
share, the peak of memory beside what was predicted, and how long a cancelled chain keeps its place while the others
write and one more waits for it. Interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results import record

QUESTIONS = (
    "Explain why the sky is blue.",
    "Give three tips for staying healthy.",
    "Why do cats purr?",
    "How does a sailing boat go against the wind?",
    "Write a short story about a llama.",
    "What is the difference between weather and climate?",
    "How can I learn a language quickly?",
    "Describe how bread is made.",
)
CONTEXT = 2048


QUICK_TOKENS = 12
CANCELLED = 5  # times a chain is cancelled
SETTLED = 0.05  # seconds until one more request waits

Told = dict[str, Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--parallel", type=int, default=len(QUESTIONS))
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, help="of an answer and of a revision (default: 150)")
    parser.add_argument("--quick", action="store_true", help=f"one round, {QUICK_TOKENS} tokens a section")
    parser.add_argument("--no-record", action="store_true", help="print only")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # what a process of its own measures
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 3)
    given.tokens = given.tokens or (QUICK_TOKENS if given.quick else 150)
    if not 2 <= given.parallel <= len(QUESTIONS):
        parser.error(f"--parallel {given.parallel}: there are {len(QUESTIONS)} questions; expected 2 to as many")
    return given


def main() -> None:
    given = arguments()
    if given.here:
        json.dump(measure_here(given, *json.loads(given.here)), sys.stdout)
        return
    told: dict[tuple[bool, int], list[Told]] = {}
    for number in range(given.rounds):
        sides = [(drafting, parallel) for drafting in (False, True) for parallel in (1, given.parallel)]
        for drafting, parallel in sides if number % 2 == 0 else reversed(sides):
            label = f"drafting {'on' if drafting else 'off'}, {parallel} at a time"
            print(f"  {given.model.stem} round {number + 1}/{given.rounds} {label}", file=sys.stderr, flush=True)
            told.setdefault((drafting, parallel), []).append(_own(given, drafting, parallel))
    figures: dict[str, float] = {}
    for drafting in (False, True):
        figures |= report(given, drafting, told[drafting, 1], told[drafting, given.parallel])
    if not given.no_record:
        from selfee.weights.quantize import isa

        record("concurrency", figures, isa=isa())


def report(given: argparse.Namespace, drafting: bool, alone: list[Told], many: list[Told]) -> dict[str, float]:
    """Print what several at a time gave; the figures by name."""
    name = f"{given.model.stem} drafting {'on' if drafting else 'off'}"
    rates = {1: _median(alone, "rate"), given.parallel: _median(many, "rate")}
    ratio, slowest = rates[given.parallel] / rates[1], _median(many, "slowest")
    times = {part: _median(many, part) * 1e3 for part in ("cancel", "next", "pass")}
    peak, predicted = (_median(many, part) / 1e6 for part in ("peak", "predicted"))
    print(
        f"{name}: {rates[1]:.0f} -> {rates[given.parallel]:.0f} tokens/s, x {ratio:.2f}; slowest chain {slowest:.2f} "
        f"of an even share; a cancelled one is gone after {times['cancel']:.1f} ms, the next writes after "
        f"{times['next']:.1f} (longest pass: {times['pass']:.1f}); peak {peak:.0f} MB, predicted {predicted:.0f}"
    )
    figures = {f"{name} {parallel} at a time tokens/s": rate for parallel, rate in rates.items()}
    figures |= {f"{name} ratio": ratio, f"{name} slowest share": slowest}
    figures |= {f"{name} {part} ms": value for part, value in times.items()}
    return figures | {f"{name} peak MB": peak, f"{name} predicted MB": predicted}


def _median(rows: list[Told], name: str) -> float:
    return float(statistics.median(row[name] for row in rows))


def _own(given: argparse.Namespace, drafting: bool, parallel: int) -> Told:
    flags = ["--model", given.model, "--threads", given.threads, "--tokens", given.tokens]
    flags += ["--here", json.dumps([drafting, parallel])]
    done = subprocess.run([sys.executable, __file__, *map(str, flags)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"concurrency.py: ended with {done.returncode}; expected figures\n{done.stderr[-2000:]}")
    answer: Told = json.loads(done.stdout)
    return answer


def measure_here(given: argparse.Namespace, drafting: bool, parallel: int) -> Told:
    """So many chains at a time in this process: rate, shares, memory; with several also what cancelling one takes."""
    from selfee.engines.local import LocalEngine
    from selfee.engines.runtime import load_runtime
    from selfee.llama.config import LlamaConfig
    from selfee.llama.memory import memory_needed
    from selfee.weights.open import open_checkpoint

    with open_checkpoint(given.model) as checkpoint:
        predicted = memory_needed(checkpoint, LlamaConfig.from_checkpoint(checkpoint), CONTEXT, parallel)
    settings = {"context_length": CONTEXT, "threads": given.threads, "parallel": parallel, "drafting": drafting}
    runtime = load_runtime(given.model, **settings)
    with LocalEngine(runtime, parallel=parallel) as engine:
        told = write_chains(engine, given.tokens, parallel, runtime.end_tokens)
        if parallel > 1:
            passes = _time_passes(runtime._company)
            told |= cancel_one(engine, parallel, runtime.end_tokens) | {"pass": max(passes)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return told | {"peak": peak, "predicted": predicted}


def write_chains(engine: Any, tokens: int, parallel: int, ends: Collection[int]) -> Told:
    """A chain for each question, or for two where one is written at a time; their sections have the same length, so
    that shares compare: those of the tokens until the first chain has ended."""
    from selfee.engines.base import Request, SamplingParams

    questions = QUESTIONS[: parallel if parallel > 1 else 2]
    counts, over, failed = dict.fromkeys(questions, 0), threading.Event(), []
    params = SamplingParams(temperature=0, seed=1, logit_bias=dict.fromkeys(ends, float("-inf")))
    lengths = (tokens, max(1, tokens // 3), tokens)  # answer, feedback, revision

    def write(question: str) -> None:
        # Prompts are short, for the time of writing is asked: what a model of random weights writes is not read back as
        # the tokens that it wrote.
        try:
            for number, length in enumerate(lengths):
                for _ in engine.stream(Request(f"{question} {number}\n", params, length)):
                    counts[question] += not over.is_set()
        except Exception as error:
            failed.append(error)
        if parallel > 1:
            over.set()

    started = time.perf_counter()
    if parallel == 1:
        for question in questions:
            write(question)
    else:
        _together([partial(write, question) for question in questions])
    elapsed = time.perf_counter() - started
    if failed:
        raise failed[0]
    shares = list(counts.values())
    return {"rate": len(questions) * sum(lengths) / elapsed, "slowest": min(shares) / statistics.mean(shares)}


def cancel_one(engine: Any, parallel: int, ends: Collection[int]) -> Told:
    """All places are taken and one more request waits: seconds from asking a chain to stop until its place is free, and
    until the waiting one has its first token. The worst of a few."""
    return {
        name: max(values)
        for name, values in _columns([_cancel_once(engine, parallel, ends) for _ in range(CANCELLED)]).items()
    }


def _cancel_once(engine: Any, parallel: int, ends: Collection[int]) -> Told:
    from selfee.engines.base import Request, SamplingParams

    params = SamplingParams(temperature=0, seed=1, logit_bias=dict.fromkeys(ends, float("-inf")))
    stops, begun = [threading.Event() for _ in range(parallel)], threading.Barrier(parallel + 1)
    times: Told = {}

    def write(place: int) -> None:
        stream, is_new = engine.stream(Request(f"{QUESTIONS[place]}\n", params)), True
        for _ in stream:
            if is_new:
                begun.wait()
                is_new = False
            if stops[place].is_set():
                break
        stream.close()
        if place == 0:
            times["cancel"] = time.perf_counter() - asked

    def wait() -> None:
        stream = engine.stream(Request("One more.\n", params, 2))
        next(stream)
        times["next"] = time.perf_counter() - asked
        stream.close()

    threads = [threading.Thread(target=write, args=(place,)) for place in range(parallel)]
    for thread in threads:
        thread.start()
    begun.wait()
    one_more = threading.Thread(target=wait)
    one_more.start()
    time.sleep(SETTLED)
    asked = time.perf_counter()
    for event, thread in zip(stops, threads, strict=True):  # the others only after the waiting one has begun
        event.set()
        if event is stops[0]:
            one_more.join()
        thread.join()
    return times


def _time_passes(company: Any) -> list[float]:
    """A list that grows by the seconds of each pass from now on."""
    forward, found = company._forward, []

    def timed(todo: Any) -> Any:
        started = time.perf_counter()
        try:
            return forward(todo)
        finally:
            found.append(time.perf_counter() - started)

    company._forward = timed
    return found


def _columns(rows: Sequence[Told]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _together(jobs: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
