"""How many tokens a pass gives where a drafter guesses: released chains, replayed through the drafter alone.

    python benchmarks/drafting.py --chains selfee_13b_enforce_3_revisions.jsonl --vocab ggml-vocab-llama-spm.gguf

No model: every guess that the text confirms is accepted, as a model that wrote it would. "proposed": guesses verified a
pass, which is what they cost. Plain look-up stands beside our drafter with a memory of its own for each chain, and with
one that is kept over the file, as when questions are asked one after the other.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chains import TokenChain, read_chains
from benchmarks.lookup import LookupDrafter
from benchmarks.results import record

from selfee.chain.types import Section
from selfee.llama.drafting import CopyDrafter, DraftMemory
from selfee.llama.tokenizer import load_tokenizer
from selfee.weights.open import open_checkpoint

LEAST = (0.2, 0.1, 0.05)  # chances below which nothing is proposed
LIMITS = (32, 64)


class Guesser(Protocol):
    """What is replayed."""

    def revise(self, original: Sequence[int]) -> None: ...

    def wrote(self, tokens: Sequence[int]) -> None: ...

    def propose(self, limit: int) -> Sequence[int]: ...


class Plain(LookupDrafter):
    """Look-up, which needs not be told what is revised."""

    def revise(self, original: Sequence[int]) -> None:
        pass


class Ours:
    """Our drafter, as far as its guesses are likelier than ``least``."""

    def __init__(self, prompt: Sequence[int], memory: DraftMemory, least: float) -> None:
        self._drafter = CopyDrafter(memory)
        self._drafter.begin(prompt)
        self._least = least
        self.revise, self.wrote = self._drafter.revise, self._drafter.wrote
        self.calibration = Calibration()

    def propose(self, limit: int) -> Sequence[int]:
        tokens, chances = self._drafter.propose(limit)
        kept = sum(chance >= self._least for chance in chances)
        self.chances = chances[:kept]
        return tokens[:kept]


@dataclass
class Calibration:
    """By place in a draft: how likely guesses were said to be, how often they were right, how many there were."""

    said: Counter[int] = field(default_factory=Counter)
    right: Counter[int] = field(default_factory=Counter)
    count: Counter[int] = field(default_factory=Counter)


@dataclass
class Tally:
    """Tokens, passes and guesses by section."""

    tokens: Counter[Section] = field(default_factory=Counter)
    passes: Counter[Section] = field(default_factory=Counter)
    proposed: Counter[Section] = field(default_factory=Counter)

    def line(self) -> dict[str, float]:
        """Tokens a pass by section and over all, guesses a pass over all and in revisions."""
        rates = {section.value: self.tokens[section] / max(1, self.passes[section]) for section in Section}
        passes, revising = self.passes.total(), max(1, self.passes[Section.REVISION])
        return rates | {
            "chain": self.tokens.total() / passes,
            "proposed": self.proposed.total() / passes,
            "proposed in revisions": self.proposed[Section.REVISION] / revising,
        }


def replay(chain: TokenChain, drafter: Guesser, limit: int, tally: Tally, calibration: Calibration | None) -> None:
    """Write a chain; a pass counts for the section of its first token."""
    answer: list[int] = []
    text = [token for part in chain.parts for token in part.tokens]
    starts, at = {}, 0  # where a section's own text begins: what it revises
    sections: list[Section] = []
    for part in chain.parts:
        starts[at + len(part.tokens) - part.body] = answer if part.section is Section.REVISION else []
        sections += [part.section] * len(part.tokens)
        if part.section.is_answer:
            answer = part.text
        at += len(part.tokens)
    at = 0
    while at < len(text):
        if at in starts:
            drafter.revise(starts[at])
        guesses = drafter.propose(min(limit, len(text) - at - 1))
        right = 0
        while right < len(guesses) and guesses[right] == text[at + right]:
            right += 1
        if calibration is not None and isinstance(drafter, Ours):
            for place, chance in enumerate(drafter.chances):
                calibration.said[place] += chance  # type: ignore[assignment]
                calibration.right[place] += place < right
                calibration.count[place] += 1
        tally.passes[sections[at]] += 1
        tally.proposed[sections[at]] += len(guesses)
        for place in range(at, at + right + 1):
            if place in starts and place > at:
                drafter.revise(starts[place])
            drafter.wrote(text[place : place + 1])
            tally.tokens[sections[place]] += 1
        at += right + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--chains", type=Path, action="append", help="answer files; default: SELFEE_BENCH_CHAINS/*.jsonl"
    )
    parser.add_argument("--vocab", type=Path, required=True, help="any model file with the vocabulary")
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args()
    folder = os.environ.get("SELFEE_BENCH_CHAINS")
    files = given.chains or (sorted(Path(folder).glob("selfee*.jsonl")) if folder else [])
    if not files:
        parser.error("--chains FILE or SELFEE_BENCH_CHAINS is needed")
    with open_checkpoint(given.vocab) as checkpoint:
        tokenizer = load_tokenizer(checkpoint.vocab)
    figures: dict[str, float] = {}
    for path in files:
        chains = read_chains(path, lambda text: tokenizer.encode(text, add_bos=False), tokenizer.encode("")[:1])
        print(f"{path.stem}: {len(chains)} chains, {sum(chain.count for chain in chains)} tokens")
        figures |= measure(path.stem, chains)
    if not given.no_record:
        record("drafting", figures, isa="any")


def measure(name: str, chains: Sequence[TokenChain]) -> dict[str, float]:
    """Print a line for each drafter; the figures by name."""
    figures: dict[str, float] = {}

    def report(label: str, tally: Tally) -> None:
        line = tally.line()
        print(f"  {label:28}" + "  ".join(f"{key} {value:5.2f}" for key, value in line.items()), flush=True)
        figures.update({f"{name} {label} {key}": value for key, value in line.items()})

    tally = Tally()
    for chain in chains:
        plain = Plain()
        plain.wrote(chain.prompt)
        replay(chain, plain, 32, tally, None)
    report("look-up", tally)
    for kept in (False, True):
        for limit in LIMITS:
            for least in LEAST:
                memory, tally, calibration = DraftMemory(), Tally(), Calibration()
                for chain in chains:
                    ours = Ours(chain.prompt, memory if kept else DraftMemory(), least)
                    replay(chain, ours, limit, tally, calibration)
                report(f"{'memory' if kept else 'fresh'} >={least} <={limit}", tally)
                if kept and limit == max(LIMITS) and least == min(LEAST):
                    for place in (0, 1, 2, 4, 8, 16, 32, 63):
                        if count := calibration.count[place]:
                            figures[f"{name} place {place} said"] = calibration.said[place] / count
                            figures[f"{name} place {place} right"] = calibration.right[place] / count
    return figures


if __name__ == "__main__":
    main()
