"""How fast a whole model answers, beside llama.cpp (the package xllamacpp) in the same minutes.

    SELFEE_TEST_MODEL=<a .gguf file> python benchmarks/decode.py [--threads 2] [--rounds 5] [--packed]

Each round runs each engine in a process of its own, one after the other. Figures are medians over the rounds: time to
the first token of a prompt of 512 tokens, prompt and generated tokens a second (128 tokens after a short prompt,
greedy), peak memory of the process. llama.cpp runs in SELFEE_PEER_PYTHON, or in this Python if it has xllamacpp;
without it only selfee is measured.
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
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results import record

PROMPT_TOKENS, NEW_TOKENS = 512, 128
SHORT_PROMPT = list(range(300, 316))
LONG_PROMPT = [300 + (7 * index) % 1000 for index in range(PROMPT_TOKENS)]
PEER = Path(__file__).resolve().parent / "peer.py"

Figures = dict[str, float]


def measure_selfee(path: str, threads: int, packed: bool) -> Figures:
    """In this process: load, then one long prompt and one long answer."""
    from selfee.llama.generate import generate
    from selfee.llama.model import Model
    from selfee.llama.sampling import Sampler, SamplerConfig

    sampler = Sampler(SamplerConfig(temperature=0))
    started = time.perf_counter()
    with Model.load(path, context_length=2048, threads=threads, packed=packed) as model:
        session = model.new_session()
        loaded = time.perf_counter()
        next(generate(session, LONG_PROMPT, sampler))
        first = time.perf_counter()
        session.truncate(0)
        stream = generate(session, SHORT_PROMPT, sampler, max_tokens=NEW_TOKENS)
        next(stream)
        begun = time.perf_counter()
        count = sum(1 for _ in stream)
        ended = time.perf_counter()
    return {
        "load s": loaded - started,
        "first token s": first - loaded,
        "prompt tokens/s": PROMPT_TOKENS / (first - loaded),
        "generated tokens/s": count / (ended - begun),
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def figures_of_peer(answer: dict[str, Any]) -> Figures:
    prompt, generation = (reply["timings"] for reply in answer["replies"])
    return {
        "first token s": prompt["prompt_ms"] / 1000,
        "prompt tokens/s": prompt["prompt_per_second"],
        "generated tokens/s": generation["predicted_per_second"],
        "peak MB": answer["peak_bytes"] / 2**20,
    }


def run_peer(python: str, path: str, threads: int) -> Figures:
    requests = [{"prompt": LONG_PROMPT, "max_tokens": 1}, {"prompt": SHORT_PROMPT, "max_tokens": NEW_TOKENS}]
    asked = json.dumps({"model": path, "threads": threads, "requests": requests})
    done = subprocess.run([python, str(PEER)], input=asked, capture_output=True, text=True, check=True)
    return figures_of_peer(json.loads(done.stdout[done.stdout.index('{"replies"') :]))


def run_selfee(path: str, threads: int, packed: bool) -> Figures:
    command = [sys.executable, __file__, "--own", path, "--threads", str(threads), *(["--packed"] if packed else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def has_peer(python: str) -> bool:
    return subprocess.run([python, "-c", "import xllamacpp"], capture_output=True, check=False).returncode == 0


def medians(rounds: list[Figures]) -> Figures:
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--packed", action="store_true", help="let selfee copy weights into its faster layout")
    parser.add_argument("--own", metavar="MODEL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own:
        json.dump(measure_selfee(options.own, options.threads, options.packed), sys.stdout)
        return
    path = os.environ.get("SELFEE_TEST_MODEL", "")
    if not Path(path).is_file():
        sys.exit("SELFEE_TEST_MODEL names no model file; set it to the .gguf file to measure")
    python = os.environ.get("SELFEE_PEER_PYTHON", sys.executable)
    with_peer = has_peer(python)
    own, peer = [], []
    for _ in range(options.rounds):
        own.append(run_selfee(path, options.threads, options.packed))
        if with_peer:
            peer.append(run_peer(python, path, options.threads))
    figures = {f"selfee {name}": value for name, value in medians(own).items()}
    if with_peer:
        figures |= {f"llama.cpp {name}": value for name, value in medians(peer).items()}
    from selfee.weights.quantize import isa

    layout = " packed" if options.packed else ""
    record(f"decode {Path(path).stem} threads={options.threads}{layout}", figures, isa=isa())


if __name__ == "__main__":
    main()
