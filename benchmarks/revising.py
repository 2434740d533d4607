"""What a chain with enforced revisions costs: drafting on and off, llama.cpp plain and with its own guesses.

    python benchmarks/revising.py --model FILE                            # a chain that the model writes itself, greedy
    python benchmarks/revising.py --model FILE --forced CHAINS [--vocab V] # released chains, whatever the model is

Written: the model makes chains with three enforced revisions; every request of them is given to the peers, too, which
write as many tokens after the same prompts. Forced: the text of released chains goes through the engine token by
token, as if the model had written it (a sampler knows what comes next); the time of a pass does not depend on what is
written, so that chains of a trained model can be timed on any model. Peers cannot be forced: their plain time is that
of as many tokens one after the other. Medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chains import TokenChain, read_chains
from benchmarks.engines import Case, engines
from benchmarks.results import record

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = ("Explain why the sky is blue.", "Give three tips for staying healthy.", "Why do cats purr?")
GUESSERS = ("ngram_simple", "ngram_map_k", "ngram_cache")
CONTEXT = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--forced", type=Path, help="an answer file with released chains")
    parser.add_argument("--vocab", type=Path, help="a model file with the vocabulary of the chains; default: the model")
    parser.add_argument("--count", type=int, default=4, help="chains (default 4)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="no peers")
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # what a process of its own measures
    given = parser.parse_args()
    if given.here:
        json.dump(measure_here(given, given.here == "on"), sys.stdout)
        return
    runs: dict[str, list[float]] = {}
    told: dict[str, dict[str, Any]] = {}
    for number in range(given.rounds):
        sides: list[tuple[str, Callable[[], dict[str, Any]]]] = [
            ("drafting on", lambda: _own(given, "on")),
            ("drafting off", lambda: _own(given, "off")),
        ]
        if not given.alone and told:
            sides += _peers(given, told["drafting off"])
        for name, run in sides if number % 2 == 0 else list(reversed(sides)):
            print(f"  {given.model.stem} round {number + 1}/{given.rounds} {name}", file=sys.stderr, flush=True)
            told[name] = run()
            runs.setdefault(name, []).append(told[name]["seconds"])
        if number == 0 and not given.alone:  # peers need what was written first
            for name, run in _peers(given, told["drafting off"]):
                print(f"  {given.model.stem} round 1/{given.rounds} {name}", file=sys.stderr, flush=True)
                told[name] = run()
                runs.setdefault(name, []).append(told[name]["seconds"])
    figures = report(given, {name: statistics.median(times) for name, times in runs.items()}, told)
    if not given.no_record:
        from selfee.weights.quantize import isa

        record("revising forced" if given.forced else "revising", figures, isa=isa())


def report(given: argparse.Namespace, seconds: dict[str, float], told: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Print a line for each; the figures by name."""
    own, plain = told["drafting on"], told["drafting off"]
    assert own["written"] == plain["written"], "drafting changed the text"
    count = own["tokens"]
    print(f"{given.model.stem}: {count} tokens, {own['tokens'] / own['passes']:.2f} a pass, text equal on and off")
    figures = {f"{given.model.stem} tokens a pass": own["tokens"] / own["passes"]}
    fastest = seconds["drafting on"]
    for name, value in seconds.items():
        same = told[name].get("same")
        note = "" if same is None else f"   {same:.0%} of its tokens are ours"
        rate = f"{count / value:7.1f} tokens/s"
        print(f"  {name:24} {value:8.2f} s {rate}   x {value / fastest:.2f}{note}", flush=True)
        figures[f"{given.model.stem} {name} s"] = value
        figures[f"{given.model.stem} {name} / drafting on"] = value / fastest
    return figures


def _own(given: argparse.Namespace, drafting: str) -> dict[str, Any]:
    flags = ["--model", given.model, "--count", given.count, "--threads", given.threads, "--here", drafting]
    if given.forced:
        flags += ["--forced", given.forced, *(["--vocab", given.vocab] if given.vocab else [])]
    return _run([sys.executable, __file__, *map(str, flags)])


def _peers(given: argparse.Namespace, told: dict[str, Any]) -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    if given.forced:
        return [(f"{engine.name} plain", partial(_plain, engine, given, told)) for engine in engines()[1:]]
    python = os.environ.get("SELFEE_PEER_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import xllamacpp"], capture_output=True, check=False).returncode:
        return []
    names: list[str | None] = [None, *GUESSERS]
    return [(f"xllamacpp {name or 'plain'}", partial(_peer, python, given, told, name)) for name in names]


def _plain(engine: Any, given: argparse.Namespace, told: dict[str, Any]) -> dict[str, Any]:
    """As many tokens as the chains have, one after the other, at about their middle, and their prompts."""
    depth = told["depth"]
    one = engine.time(given.model, given.threads, [Case(1, depth)])[Case(1, depth)]
    return {"seconds": told["tokens"] * one}


def _peer(python: str, given: argparse.Namespace, told: dict[str, Any], guesser: str | None) -> dict[str, Any]:
    """The requests of our chains, on llama.cpp; its time for prompts and tokens as its server tells it."""
    requests = [{"prompt": ask["prompt"], "max_tokens": len(ask["written"])} for ask in told["requests"]]
    asked = {"model": str(given.model), "threads": given.threads, "context": CONTEXT, "keeps": True}
    asked |= {"requests": [{"prompt": [259, 260], "max_tokens": 4}, *requests], "speculative": guesser}
    done = subprocess.run(
        [python, str(ROOT / "benchmarks" / "peer.py")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"peer.py: ended with {done.returncode}; expected replies\n{done.stderr[-2000:]}")
    replies = json.loads(done.stdout[done.stdout.index('{"replies"') :])["replies"][1:]
    spent = [reply["timings"] for reply in replies]
    pairs = zip(told["requests"], replies, strict=True)
    same = statistics.mean(_shared(ask["text"], reply["text"]) for ask, reply in pairs)
    return {"seconds": sum(time["prompt_ms"] + time["predicted_ms"] for time in spent) / 1000, "same": same}


def _shared(ours: str, theirs: str) -> float:
    """The part of our text that theirs begins with."""
    length = next((n for n, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
    return length / max(1, len(ours))


def _run(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: ended with {done.returncode}\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


# In a process of its own.


def measure_here(given: argparse.Namespace, drafting: bool) -> dict[str, Any]:
    """Chains written or forced by this process's engine."""
    return _force(given, drafting) if given.forced else _write(given, drafting)


class Recording:
    """A runtime that remembers every request, what was written for it, and how long that took."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.requests: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def generate(self, session: Any, tokens: Sequence[int], *rest: Any) -> Generator[Any, None, None]:
        request: dict[str, Any] = {"prompt": list(tokens), "written": [], "seconds": 0.0, "passes": 0}
        self.requests.append(request)
        steps = self._runtime.generate(session, tokens, *rest)
        try:
            while True:
                started = time.perf_counter()
                step = next(steps, None)
                request["seconds"] += time.perf_counter() - started
                if step is None:
                    return
                request["written"].append(step.token)
                request["passes"] += not step.drafted
                yield step
        finally:
            steps.close()


def _write(given: argparse.Namespace, drafting: bool) -> dict[str, Any]:
    from selfee.chain import RevisionPolicy, run_chain
    from selfee.engines.base import SamplingParams
    from selfee.engines.local import LocalEngine
    from selfee.engines.runtime import load_runtime

    runtime = Recording(load_runtime(given.model, context_length=CONTEXT, threads=given.threads, drafting=drafting))
    with LocalEngine(runtime) as engine:
        policy = RevisionPolicy(3, 3, stop_repeats=False)
        for question in QUESTIONS[: given.count]:
            run_chain(engine, question, policy, SamplingParams(temperature=0, seed=1))
        requests = runtime.requests
        for request in requests:
            request["text"] = "".join(engine._runtime.piece(token) for token in request["written"])
    written = [request["written"] for request in requests]
    tokens, passes = sum(map(len, written)), sum(request["passes"] for request in requests)
    seconds = sum(request["seconds"] for request in requests)
    return {"seconds": seconds, "tokens": tokens, "passes": passes, "written": written, "requests": requests}


class Knowing:
    """A sampler that knows what comes next; it looks at the logits no less than a greedy one does."""

    def __init__(self, text: Sequence[int]) -> None:
        self._text: Iterator[int] = iter(text)

    def begin(self, tokens: Sequence[int]) -> None:
        pass

    def sample(self, logits: Any) -> int:
        logits.argmax()
        return next(self._text)


def _force(given: argparse.Namespace, drafting: bool) -> dict[str, Any]:
    from selfee.llama.company import Company
    from selfee.llama.drafting import CopyDrafter, DraftMemory
    from selfee.llama.generate import generate
    from selfee.llama.model import Model
    from selfee.llama.tokenizer import load_tokenizer
    from selfee.weights.open import open_checkpoint

    with open_checkpoint(given.vocab or given.model) as checkpoint:
        tokenizer = load_tokenizer(checkpoint.vocab)
    chains = read_chains(given.forced, lambda text: tokenizer.encode(text, add_bos=False), tokenizer.encode("")[:1])
    chains = chains[:: max(1, len(chains) // given.count)][: given.count]
    seconds, passes, tokens, depths = 0.0, 0, 0, []
    with Model.load(given.model, context_length=CONTEXT, threads=given.threads, packed=True) as model:
        company, memory = Company(model), DraftMemory()
        for chain in chains:
            session, sections = model.new_session(), _originals(chain)
            text = [token for part in chain.parts for token in part.tokens]
            drafter = CopyDrafter(memory) if drafting else None
            session.forward(chain.prompt)  # prompts cost the same on both sides
            with company.join(session) as member:
                steps = generate(session, chain.prompt, Knowing(text), drafter, len(text), member)
                started = time.perf_counter()
                for place, step in enumerate(steps, start=1):
                    passes += not step.drafted
                    if drafter is not None and place in sections:
                        drafter.revise(sections[place])
                seconds += time.perf_counter() - started
            tokens += len(text)
            depths.append(len(chain.prompt) + len(text) // 2)
    return {
        "seconds": seconds,
        "passes": passes,
        "tokens": tokens,
        "written": tokens,
        "depth": sum(depths) // len(depths),
    }


def _originals(chain: TokenChain) -> dict[int, list[int]]:
    """After how many tokens a section's own text begins, and what it revises."""
    found: dict[int, list[int]] = {}
    at, answer = 0, list[int]()
    for part in chain.parts:
        found[at + len(part.tokens) - part.body] = list(answer) if part.section.value == "revision" else []
        if part.section.is_answer:
            answer = part.text
        at += len(part.tokens)
    return found


if __name__ == "__main__":
    main()
