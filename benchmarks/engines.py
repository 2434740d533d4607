"""What is measured: one forward pass of some tokens after some others, by selfee and by its peers.

Every engine runs in a process of its own and says how long each case took. Peers: the package xllamacpp in
SELFEE_PEER_PYTHON (or this Python), and native builds, if SELFEE_BENCH_LLAMA_CPP and SELFEE_BENCH_IK_LLAMA_CPP name
their llama-bench programs: those run with and without repacked weights, and the faster figure counts for each case.
docs/explanation/peers.md says how to get them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from selfee.llama.cells import CacheType

PEER = ROOT / "benchmarks" / "peer.py"
GENERATED = 64  # tokens one after the other, where one token at a time is measured
REPEATED = 3
SMALL = 64 << 20  # bytes of a file: below, a text takes milliseconds, and more of them are measured


class Case(NamedTuple):
    """A forward pass of ``tokens`` tokens after ``depth`` others; one token means one of a generated text."""

    tokens: int
    depth: int = 0


def texts_of(path: Path) -> int:
    """How many texts are generated for one figure."""
    return 5 * REPEATED if path.stat().st_size < SMALL else REPEATED


Logits = Literal["last", "all"]
Times = dict[Case, float]
"""Seconds; for one token the mean of a short text, otherwise of one pass (medians of a few)."""


@dataclass(frozen=True)
class Engine:
    """Something that can time cases on a model file with some threads, in a process of its own."""

    name: str
    time: Callable[[Path, int, Sequence[Case]], Times]


def engines(*, isa: str | None = None, repack: bool = True) -> list[Engine]:
    """selfee first, then the peers that are there. ``isa`` and ``repack`` are for selfee."""
    found = [own_engine("selfee", isa=isa, repack=repack)]
    python = os.environ.get("SELFEE_PEER_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import xllamacpp"], capture_output=True, check=False).returncode == 0:
        found.append(Engine("xllamacpp", lambda path, threads, cases: _xllamacpp(python, path, threads, cases)))
    if program := os.environ.get("SELFEE_BENCH_LLAMA_CPP"):
        found.append(Engine("llama.cpp", lambda *given: _llama_bench(program, ["--repack", "0,1"], *given)))
    if other := os.environ.get("SELFEE_BENCH_IK_LLAMA_CPP"):
        found.append(Engine("ik", lambda *given: _faster(_ik(other, "0", *given), _ik(other, "1", *given))))
    return found


def own_engine(
    name: str, *, isa: str | None = None, repack: bool = True, logits: Logits = "last", cache_type: str = "f16"
) -> Engine:
    """selfee; ``logits`` of which tokens of a pass it computes: peers compute those of the last."""
    environment = os.environ | ({"SELFEE_ISA": isa} if isa else {})

    def time_cases(path: Path, threads: int, cases: Sequence[Case]) -> Times:
        asked = {"path": str(path), "threads": threads, "cases": list(cases), "repack": repack, "logits": logits}
        asked["cache_type"] = cache_type
        command = [sys.executable, __file__]
        answer = _run(command, input=json.dumps(asked), environment=environment)
        return dict(zip(cases, json.loads(answer)["seconds"], strict=True))

    return Engine(name, time_cases)


def _run(command: Sequence[str], *, input: str = "", environment: Mapping[str, str] | None = None) -> str:
    """What a program prints; ends the benchmark with the program's last words where it fails."""
    done = subprocess.run(command, input=input, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        words = done.stderr.strip()[-2000:]
        sys.exit(f"{' '.join(command)}: ended with {done.returncode}; expected figures\n{words}")
    return done.stdout


def measure_here(
    path: str, threads: int, cases: Sequence[Case], repack: bool, logits: Logits, cache_type: CacheType
) -> dict[str, Any]:
    """selfee in this process: seconds of each case, of loading, and the peak of its memory."""
    from selfee.llama.model import Model

    started = time.perf_counter()
    longest = max(case.depth + max(case.tokens, GENERATED + 8) for case in cases)
    with Model.load(path, context_length=longest, threads=threads, packed=repack, cache_type=cache_type) as model:
        loaded = time.perf_counter() - started
        session = model.new_session()
        seconds = []
        for tokens, depth in cases:
            session.truncate(min(session.length, depth))
            if session.length < depth:
                session.forward([300 + index % 97 for index in range(depth - session.length)], "none")
            if tokens == 1:
                for token in range(4):
                    session.forward([259 + token])
                texts = []
                for _ in range(texts_of(Path(path))):
                    session.truncate(depth + 4)
                    begun = time.perf_counter()
                    for token in range(GENERATED):
                        session.forward([263 + token])
                    texts.append((time.perf_counter() - begun) / GENERATED)
                seconds.append(statistics.median(texts))
                continue
            passes = []
            for number in range(REPEATED + 1):
                session.truncate(depth)
                begun = time.perf_counter()
                session.forward([259 + (index + number) % 97 for index in range(tokens)], logits)
                passes.append(time.perf_counter() - begun)
            seconds.append(statistics.median(passes[1:]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "load": loaded, "peak": peak}


def _xllamacpp(python: str, path: Path, threads: int, cases: Sequence[Case]) -> Times:
    """A prompt of as many tokens, or a text generated after a prompt: its server's own timings.

    Its ``prompt_ms`` ends when the first token is drawn; its time for a token is that of a text without its first
    token, which the prompt has paid. A first request warms up.
    """
    often = texts_of(path)
    requests: list[dict[str, Any]] = [{"prompt": [259, 260], "max_tokens": 4}]
    for tokens, depth in cases:
        prompt = [259 + index % 97 for index in range(max(1, depth) if tokens == 1 else tokens)]
        requests += [{"prompt": prompt, "max_tokens": GENERATED if tokens == 1 else 1}] * (1 if depth else often)
        if tokens > 1 and depth:
            raise ValueError("xllamacpp: several tokens at a depth cannot be timed; expected one")
    asked = {"model": str(path), "threads": threads, "requests": requests, "context": 2048}
    answer = _run([python, str(PEER)], input=json.dumps(asked))
    replies = iter(json.loads(answer[answer.index('{"replies"') :])["replies"])
    next(replies)
    times: Times = {}
    for case in cases:
        own = [next(replies)["timings"] for _ in range(1 if case.depth else often)]
        name = "predicted_per_token_ms" if case.tokens == 1 else "prompt_ms"
        times[case] = statistics.median(timing[name] for timing in own) / 1000
    return times


def _llama_bench(program: str, flags: Sequence[str], path: Path, threads: int, cases: Sequence[Case]) -> Times:
    times: Times = {}
    for depth in sorted({case.depth for case in cases}):
        passes = [str(case.tokens) for case in cases if case.depth == depth and case.tokens > 1]
        asked = ["-p", ",".join(passes) or "0", "-n", str(GENERATED) if Case(1, depth) in cases else "0"]
        asked += ["-d", str(depth)] if depth else []
        for case, seconds in _rows(program, [*flags, *asked], path, threads):
            times[Case(case.tokens, depth)] = min(seconds, times.get(Case(case.tokens, depth), seconds))
    return times


def _ik(program: str, repacked: str, path: Path, threads: int, cases: Sequence[Case]) -> Times:
    """ik_llama.cpp's llama-bench knows no depth, but texts that come after a prompt whose time does not count."""
    times = _llama_bench(program, ["-rtr", repacked], path, threads, [case for case in cases if not case.depth])
    for case in cases:
        if case.depth and case.tokens == 1:
            asked = ["-rtr", repacked, "-p", "0", "-n", "0", "-gp", f"{case.depth},{GENERATED}"]
            [(_, times[case])] = _rows(program, asked, path, threads)
    return times


def _rows(program: str, flags: Sequence[str], path: Path, threads: int) -> list[tuple[Case, float]]:
    """What a llama-bench measures: cases, without their depths, and seconds."""
    command = [
        program,
        "-m",
        str(path),
        "-t",
        str(threads),
        "-fa",
        "1",
        "-r",
        str(texts_of(path)),
        "-o",
        "json",
        *flags,
    ]
    answer = _run(command)
    rows: list[tuple[Case, float]] = []
    for row in json.loads(answer[answer.index("[") :]):
        is_text = row["n_gen"] > 0
        samples = row.get("samples_ns") or [row["avg_ns"]]
        seconds = statistics.median(samples) / 1e9 / (row["n_gen"] if is_text else 1)
        rows.append((Case(1 if is_text else row["n_prompt"]), seconds))
    return rows


def _faster(one: Times, other: Times) -> Times:
    return {case: min(seconds, other[case]) for case, seconds in one.items()}


def main() -> None:
    argparse.ArgumentParser(description="Times cases given as JSON on stdin; used by the benchmarks.").parse_args()
    asked = json.load(sys.stdin)
    cases = [Case(*case) for case in asked["cases"]]
    given = (asked[name] for name in ("repack", "logits", "cache_type"))
    json.dump(measure_here(asked["path"], asked["threads"], cases, *given), sys.stdout)


if __name__ == "__main__":
    main()
