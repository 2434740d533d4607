"""llama.cpp on requests that selfee has answered: plain, and with its own ways to guess tokens without a second model.

The package xllamacpp is asked through its server, which keeps what it has read between requests; its time is that of
prompts and tokens, as it tells them. Programs of a native build (beside SELFEE_BENCH_LLAMA_CPP: llama-completion,
llama-speculative-simple, llama-lookup) are started for each request; only their time for tokens counts, so prompts
cost them nothing. All write greedily, under a grammar that admits selfee's text alone: their own would differ after
the first near-tie.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

PEER = Path(__file__).resolve().parent / "peer.py"

SERVER: dict[str, dict[str, Any]] = {
    "plain": {},
    "ngram_simple": {"speculative": "ngram_simple"},
    "ngram_simple 4, 16": {"speculative": "ngram_simple", "ngram": [4, 16]},
    "ngram_map_k": {"speculative": "ngram_map_k"},
    "ngram_mod": {"speculative": "ngram_mod"},
    "ngram_cache": {"speculative": "ngram_cache"},
}
"""What the server is told. By default it looks for the last 12 tokens and guesses 48; 4 and 16 find more."""

_SIMPLE = ["llama-speculative-simple", "--spec-type", "ngram-simple"]
_SHORTER = ["--spec-ngram-simple-size-n", "4", "--spec-ngram-simple-size-m", "16"]
PROGRAMS: dict[str, list[str]] = {
    "plain": ["llama-completion", "-no-cnv", "--no-display-prompt"],
    "ngram-simple": _SIMPLE,
    "ngram-simple 4, 16": [*_SIMPLE, *_SHORTER],
    "ngram-mod": ["llama-speculative-simple", "--spec-type", "ngram-mod"],
    "lookup": ["llama-lookup", "--spec-draft-n-max", "16"],
}
_DECODED = re.compile(r"decoded\s+(\d+) tokens in\s+([\d.]+) seconds")
_EVALUATED = re.compile(r"common_perf_print: +eval time = +([\d.]+) ms / +(\d+) runs")

Told = dict[str, Any]


@dataclass(frozen=True)
class Rival:
    """A way to answer the requests: prompt (ids and text), written (ids and text)."""

    name: str
    run: Callable[[Sequence[Told]], Told]
    """Returns seconds, "same" (the share of our text that its texts begin with), and guesses verified and accepted."""


def rivals(model: Path, threads: int, context: int) -> list[Rival]:
    """Those that are there."""
    found: list[Rival] = []
    python = os.environ.get("SELFEE_PEER_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import xllamacpp"], capture_output=True, check=False).returncode == 0:
        for name, settings in SERVER.items():
            asked = {"model": str(model), "threads": threads, "context": context, "keeps": True}
            asked |= {"flash_attention": False} | settings  # with it llama.cpp departs from its own greedy text
            found.append(Rival(f"xllamacpp {name}", partial(_ask_server, python, asked)))
    if bench := os.environ.get("SELFEE_BENCH_LLAMA_CPP"):
        common = ["-m", str(model), "-t", str(threads), "-c", str(context), "-b", str(context), "--temp", "0"]
        common += ["-fa", "off"]
        for name, (program, *flags) in PROGRAMS.items():
            path = Path(bench).parent / program
            if path.exists():
                found.append(Rival(f"llama.cpp {name}", partial(_start_programs, [str(path), *flags, *common])))
    return found


def shared(ours: str, theirs: str) -> float:
    """The part of our text that theirs begins with."""
    length = next((n for n, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
    return length / len(ours) if ours else 1.0


def only(text: str) -> str:
    """A grammar of llama.cpp whose sentences all begin so: near-ties must not lead it to another text, maybe an easier.

    It looks at the whole vocabulary only where its own choice is refused; else the check costs microseconds a token.
    """
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return 'root ::= "' + "".join(escapes.get(each, each) for each in text) + '" .*'


def _ask_server(python: str, asked: Told, requests: Sequence[Told]) -> Told:
    warm = {"prompt": [259, 260], "max_tokens": 4}
    wanted = [
        {"prompt": ask["prompt"], "max_tokens": len(ask["written"]), "grammar": only(ask["text"])} for ask in requests
    ]
    done = _run([python, str(PEER)], json.dumps(asked | {"requests": [warm, *wanted]}))
    replies = json.loads(done.stdout[done.stdout.index('{"replies"') :])["replies"][1:]
    timings = [reply["timings"] for reply in replies]
    return {
        "seconds": sum(each["prompt_ms"] + each["predicted_ms"] for each in timings) / 1000,
        "same": _mean_shared(requests, [reply["text"] for reply in replies]),
        "verified": sum(each.get("draft_n", 0) for each in timings),
        "accepted": sum(each.get("draft_n_accepted", 0) for each in timings),
    }


def _start_programs(command: Sequence[str], requests: Sequence[Told]) -> Told:
    texts, seconds, verified, accepted = [], 0.0, 0, 0
    for ask in requests:
        wanted = len(ask["written"])
        with tempfile.TemporaryDirectory() as folder:
            prompt = Path(folder) / "prompt"
            prompt.write_text(ask["prompt_text"] + "\n", encoding="utf-8")  # it takes one line end away
            grammar = Path(folder) / "grammar"
            grammar.write_text(only(ask["text"]), encoding="utf-8")
            flags = [
                "-f",
                str(prompt),
                "-n",
                str(wanted),
                "--ignore-eos",
                "--no-escape",
                "--grammar-file",
                str(grammar),
            ]
            done = _run([*command, *flags])
        seconds += wanted * read_seconds(done.stderr + done.stdout, command[0])
        texts.append(done.stdout.partition(ask["prompt_text"])[2] or done.stdout)
        counts = {name: int(number) for name, number in re.findall(r"(n_\w+) += (\d+)", done.stderr + done.stdout)}
        verified, accepted = verified + counts.get("n_drafted", 0), accepted + counts.get("n_accept", 0)
    same = _mean_shared(requests, texts)
    return {"seconds": seconds, "same": same, "verified": verified, "accepted": accepted}


def read_seconds(log: str, program: str) -> float:
    """Seconds a token in what a program of llama.cpp prints at its end; ends the benchmark where it tells none."""
    if found := _DECODED.search(log):
        return float(found[2]) / int(found[1])
    if found := _EVALUATED.search(log):
        return float(found[1]) / 1000 / int(found[2])
    sys.exit(f"{program}: told no time; expected 'decoded ... tokens in ... seconds' or 'eval time'\n{log[-2000:]}")


def _mean_shared(requests: Sequence[Told], theirs: Sequence[str]) -> float:
    return statistics.mean(shared(ask["text"], text) for ask, text in zip(requests, theirs, strict=True))


def _run(command: Sequence[str], given: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, input=given, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: ended with {done.returncode}; expected replies\n{done.stderr[-2000:]}")
    return done
