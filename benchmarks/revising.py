"""What a chain with enforced revisions costs: drafting on and off, llama.cpp plain and with its own guesses.

    python benchmarks/revising.py --model FILE                            # chains that the model writes itself, greedy
    python benchmarks/revising.py --model FILE --forced FILE [--vocab V]  # released chains, whatever the model is

Written: the model makes chains with three enforced revisions; every request of them is given to the peers, too, which
write as many tokens after the same prompts (``guessers.py``). Forced: the text of released chains goes through the
engine as if the model had written it (a sampler that knows what comes next); the time of a pass does not depend on what
is written, so that chains of a trained model can be timed on a model of any size. Peers cannot be forced: their plain
time is that of as many tokens one after the other, in the middle of a chain. Medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
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
from benchmarks.engines import Case, Engine, engines
from benchmarks.guessers import rivals
from benchmarks.results import record

QUESTIONS = ("Explain why the sky is blue.", "Give three tips for staying healthy.", "Why do cats purr?")
CONTEXT = 4096
QUICK_TOKENS = 24  # of a section, and of a forced chain

Side = tuple[str, Callable[[], dict[str, Any]]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--forced", type=Path, help="an answer file with released chains")
    parser.add_argument("--vocab", type=Path, help="a model file with the vocabulary of the chains; default: the model")
    parser.add_argument("--count", type=int, help="chains (default: 3)")
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help=f"one chain, one round, {QUICK_TOKENS} tokens a section")
    parser.add_argument("--alone", action="store_true", help="no peers")
    parser.add_argument("--no-record", action="store_true", help="print only")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # what a process of its own measures
    given = parser.parse_args()
    given.count = given.count or (1 if given.quick else len(QUESTIONS))
    given.rounds = given.rounds or (1 if given.quick else 3)
    if not given.forced and given.count > len(QUESTIONS):
        parser.error(f"--count {given.count}: there are {len(QUESTIONS)} questions; expected at most as many")
    return given


def main() -> None:
    given = arguments()
    if given.here:
        json.dump(measure_here(given, given.here == "on"), sys.stdout)
        return
    runs: dict[str, list[float]] = {}
    told: dict[str, dict[str, Any]] = {}
    own: list[Side] = [(f"drafting {side}", partial(_own, given, side)) for side in ("on", "off")]
    for number in range(given.rounds):
        sides = list(own)
        if not given.alone and told:
            sides += _peers(given, told["drafting off"])
        for side in sides if number % 2 == 0 else list(reversed(sides)):
            _take(given, number, side, runs, told)
        if number == 0 and not given.alone:  # peers need what was written first
            for side in _peers(given, told["drafting off"]):
                _take(given, number, side, runs, told)
    figures = report(given, {name: statistics.median(times) for name, times in runs.items()}, told)
    if not given.no_record:
        from selfee.weights.quantize import isa

        record("revising forced" if given.forced else "revising", figures, isa=isa())


def _take(
    given: argparse.Namespace, number: int, side: Side, runs: dict[str, list[float]], told: dict[str, dict[str, Any]]
) -> None:
    name, run = side
    print(f"  {given.model.stem} round {number + 1}/{given.rounds} {name}", file=sys.stderr, flush=True)
    before, told[name] = told.get(name), run()
    if before is not None and before.get("written") != told[name].get("written"):
        sys.exit(f"{name}: wrote another text than in the round before; expected the same, because sampling is greedy")
    runs.setdefault(name, []).append(told[name]["seconds"])


def report(given: argparse.Namespace, seconds: dict[str, float], told: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Print a line for each; the figures by name. Ends the benchmark where drafting changed the text."""
    own, plain = told["drafting on"], told["drafting off"]
    if own["written"] != plain["written"]:
        sys.exit(f"{given.model}: drafting changed the text; expected the same tokens with drafting on and off")
    model, count, fastest = given.model.stem, own["tokens"], seconds["drafting on"]
    rate, verified = count / own["passes"], own["verified"] / own["passes"]
    print(f"{model}: {count} tokens, {rate:.2f} a pass, {verified:.1f} guesses a pass; the same text on and off")
    figures = {f"{model} tokens": count, f"{model} tokens a pass": rate, f"{model} guesses a pass": verified}
    for name, value in seconds.items():
        notes = [f"{count / value:7.1f} tokens/s", f"x {value / fastest:.2f}"]
        if "same" in told[name]:
            notes.append(f"{told[name]['same']:.0%} of the text is ours")
            figures[f"{model} {name} same"] = told[name]["same"]
        if told[name].get("verified") and told[name] is not own:
            notes.append(f"{told[name]['accepted']} of {told[name]['verified']} guesses right")
            figures[f"{model} {name} accepted"] = told[name]["accepted"]
        print(f"  {name:32} {value:8.2f} s " + "   ".join(notes), flush=True)
        figures[f"{model} {name} s"] = value
        figures[f"{model} {name} / drafting on"] = value / fastest
    return figures


def _own(given: argparse.Namespace, drafting: str) -> dict[str, Any]:
    flags = ["--model", given.model, "--count", given.count, "--threads", given.threads, "--here", drafting]
    if given.forced:
        flags += ["--forced", given.forced, *(["--vocab", given.vocab] if given.vocab else [])]
    flags += ["--quick"] if given.quick else []
    command = [sys.executable, __file__, *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: ended with {done.returncode}; expected figures\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _peers(given: argparse.Namespace, told: dict[str, Any]) -> list[Side]:
    if given.forced:
        return [(f"{engine.name} plain", partial(_plain, engine, given, told)) for engine in engines()[1:]]
    found = rivals(given.model, given.threads, CONTEXT)
    return [(rival.name, partial(rival.run, told["requests"])) for rival in found]


def _plain(engine: Engine, given: argparse.Namespace, told: dict[str, Any]) -> dict[str, Any]:
    """As many tokens as the chains have, one after the other, at about their middle; prompts cost nothing."""
    case = Case(1, told["depth"])
    return {"seconds": told["tokens"] * engine.time(given.model, given.threads, [case])[case]}


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
        request: dict[str, Any] = {"prompt": list(tokens), "written": [], "seconds": 0.0, "passes": 0, "verified": 0}
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
                request["passes"] += not step.drafted  # the last token of a pass is none that was guessed
                request["verified"] += step.verified
                yield step
        finally:
            steps.close()


def _write(given: argparse.Namespace, drafting: bool) -> dict[str, Any]:
    from selfee.chain import Budgets, RevisionPolicy, run_chain
    from selfee.engines.base import SamplingParams
    from selfee.engines.local import LocalEngine
    from selfee.engines.runtime import load_runtime

    own = load_runtime(given.model, context_length=CONTEXT, threads=given.threads, drafting=drafting)
    runtime, special = Recording(own), {own._tokenizer.bos} if own._tokenizer.add_bos else set()
    budgets = Budgets(QUICK_TOKENS, QUICK_TOKENS, QUICK_TOKENS) if given.quick else Budgets()
    with LocalEngine(runtime) as engine:
        policy = RevisionPolicy(3, 3, stop_repeats=False)
        for question in QUESTIONS[: given.count]:
            run_chain(engine, question, policy, SamplingParams(temperature=0, seed=1), budgets=budgets)
    requests = [request for request in runtime.requests if request["written"]]
    for request in requests:
        decoder = own.decoder()
        request["text"] = "".join(map(decoder.feed, request["written"])) + decoder.finish()
        # As programs read it: they put the first token there themselves.
        request["prompt_text"] = "".join(map(own.piece, request["prompt"][request["prompt"][0] in special :]))
    return {
        "seconds": sum(request["seconds"] for request in requests),
        "passes": max(1, sum(request["passes"] for request in requests)),
        "verified": sum(request["verified"] for request in requests),
        "tokens": sum(len(request["written"]) for request in requests),
        "written": [request["written"] for request in requests],
        "requests": requests,
    }


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
    from selfee.llama.drafting import DraftMemory
    from selfee.llama.model import Model
    from selfee.llama.tokenizer import load_tokenizer
    from selfee.weights.open import open_checkpoint

    with open_checkpoint(given.vocab or given.model) as checkpoint:
        chains = read_chains(given.forced, load_tokenizer(checkpoint.vocab))
    chains = chains[:: max(1, len(chains) // given.count)][: given.count]
    told = {"seconds": 0.0, "passes": 0, "verified": 0, "tokens": 0}
    depths, memory = [], DraftMemory() if drafting else None
    with Model.load(given.model, context_length=CONTEXT, threads=given.threads, packed=True) as model:
        highest = max(max(*chain.prompt, *chain.text) for chain in chains)
        if highest >= model.config.vocabulary:
            sys.exit(
                f"{given.model}: has {model.config.vocabulary} tokens; the chains have token {highest}; expected a "
                "model with at least as many; choose another --vocab, or leave it out to encode with the model's own"
            )
        company = Company(model)
        for chain in chains:
            text = chain.text[: QUICK_TOKENS if given.quick else CONTEXT - len(chain.prompt)]
            for name, value in _force_one(model, company, memory, chain, text).items():
                told[name] += value
            depths.append(len(chain.prompt) + len(text) // 2)
    return told | {"written": told["tokens"], "depth": sum(depths) // len(depths)}


def _force_one(model: Any, company: Any, memory: Any, chain: TokenChain, text: Sequence[int]) -> dict[str, float]:
    """A chain's text, after its prompt: that costs the same with drafting and without."""
    from selfee.llama.drafting import CopyDrafter
    from selfee.llama.generate import generate

    session, originals, passes, verified = model.new_session(), chain.originals, 0, 0
    drafter = None if memory is None else CopyDrafter(memory)
    session.forward(chain.prompt)
    with company.join(session) as member:
        steps = generate(session, chain.prompt, Knowing(text), drafter, len(text), member)
        started = time.perf_counter()
        for place, step in enumerate(steps, start=1):
            passes, verified = passes + (not step.drafted), verified + step.verified
            if drafter is not None and place in originals:
                drafter.revise(originals[place])
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "passes": passes, "verified": verified, "tokens": len(text)}


if __name__ == "__main__":
    main()
