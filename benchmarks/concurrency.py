"""Several chains at a time on one engine: what they are worth together, how fairly they share, what they cost.

    python benchmarks/concurrency.py --model FILE [--parallel 8]

The same questions one chain at a time, then several: tokens a second over all, the slowest chain's part of an even
share, the peak of memory beside what was predicted, how long a cancelled chain keeps its place. Interleaved rounds.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=150, help="of an answer and of a revision (default 150)")
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        json.dump(measure_here(given, *json.loads(given.here)), sys.stdout)
        return
    told: dict[tuple[bool, int], list[dict[str, Any]]] = {}
    for number in range(given.rounds):
        for drafting in (False, True):
            for parallel in (1, given.parallel):
                label = f"drafting {'on' if drafting else 'off'}, {parallel} at a time"
                print(f"  round {number + 1}/{given.rounds} {label}", file=sys.stderr, flush=True)
                told.setdefault((drafting, parallel), []).append(_own(given, drafting, parallel))
    figures: dict[str, float] = {}
    for drafting in (False, True):
        name = f"{given.model.stem} drafting {'on' if drafting else 'off'}"
        rates = {parallel: _median(told[drafting, parallel], "rate") for parallel in (1, given.parallel)}
        many = told[drafting, given.parallel]
        ratio = rates[given.parallel] / rates[1]
        figures |= {f"{name} {parallel} at a time tokens/s": rate for parallel, rate in rates.items()}
        figures |= {f"{name} ratio": ratio, f"{name} slowest share": _median(many, "slowest")}
        figures |= {f"{name} cancel ms": _median(many, "cancel") * 1e3, f"{name} peak MB": _median(many, "peak") / 1e6}
        figures |= {f"{name} predicted MB": _median(many, "predicted") / 1e6}
        print(
            f"{name}: {rates[1]:.0f} -> {rates[given.parallel]:.0f} tokens/s, x {ratio:.2f}; slowest chain "
            f"{_median(many, 'slowest'):.2f} of an even share; a cancelled one is gone after "
            f"{_median(many, 'cancel') * 1e3:.0f} ms (a pass: {_median(many, 'pass') * 1e3:.0f}); peak "
            f"{_median(many, 'peak') / 1e6:.0f} MB, predicted {_median(many, 'predicted') / 1e6:.0f}"
        )
    if not given.no_record:
        from selfee.weights.quantize import isa

        record("concurrency", figures, isa=isa())


def _median(rows: list[dict[str, Any]], name: str) -> float:
    return float(statistics.median(row[name] for row in rows))


def _own(given: argparse.Namespace, drafting: bool, parallel: int) -> dict[str, Any]:
    flags = ["--model", given.model, "--threads", given.threads, "--tokens", given.tokens]
    flags += ["--here", json.dumps([drafting, parallel])]
    done = subprocess.run([sys.executable, __file__, *map(str, flags)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"concurrency.py: ended with {done.returncode}\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure_here(given: argparse.Namespace, drafting: bool, parallel: int) -> dict[str, Any]:
    """All questions, so many at a time, in this process; every section has the same length, so that shares compare."""
    from selfee.engines.base import Request, SamplingParams
    from selfee.engines.local import LocalEngine
    from selfee.engines.runtime import load_runtime
    from selfee.llama.config import LlamaConfig
    from selfee.llama.memory import memory_needed
    from selfee.weights.open import open_checkpoint

    with open_checkpoint(given.model) as checkpoint:
        predicted = memory_needed(checkpoint, LlamaConfig.from_checkpoint(checkpoint), CONTEXT, parallel)
    runtime = load_runtime(
        given.model, context_length=CONTEXT, threads=given.threads, parallel=parallel, drafting=drafting
    )
    with LocalEngine(runtime, parallel=parallel) as engine:
        counts = dict.fromkeys(QUESTIONS, 0)
        ends = {token: float("-inf") for token in runtime.end_tokens}
        params = SamplingParams(temperature=0, seed=1, logit_bias=ends)
        started, over = time.perf_counter(), threading.Event()
        finished: list[float] = []

        def write(question: str) -> None:
            """A chain's shape: an answer, feedback, a revision; prompts are short, for the time of writing is asked."""
            for number, length in enumerate((given.tokens, given.tokens // 3, given.tokens)):
                for _ in engine.stream(Request(f"{question} {number}\n", params, length)):
                    counts[question] += not over.is_set()
            finished.append(time.perf_counter() - started)
            over.set()  # shares are counted until the first has ended

        if parallel == 1:
            for question in QUESTIONS[:2]:
                write(question)
            tokens = 2 * (2 * given.tokens + given.tokens // 3)
        else:
            threads = [threading.Thread(target=write, args=(question,)) for question in QUESTIONS[:parallel]]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            tokens = len(threads) * (2 * given.tokens + given.tokens // 3)
        elapsed = max(finished)
        shares = [count for count in counts.values() if count]
        stream = engine.stream(Request("Once upon a time", params, 50))
        next(stream)
        begun = time.perf_counter()
        stream.close()  # type: ignore[attr-defined]
        cancel = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    slowest = min(shares) / statistics.mean(shares)
    return {
        "rate": tokens / elapsed,
        "slowest": slowest,
        "cancel": cancel,
        "pass": runtime._company._seconds,
        "peak": peak,
        "predicted": predicted,
    }


if __name__ == "__main__":
    main()
