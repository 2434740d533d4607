"""How many tokens a pass gives where a drafter guesses: released chains, replayed through the drafter alone.

    python benchmarks/drafting.py --replay FOLDER --vocab ggml-vocab-llama-spm.gguf

No model: every guess that the text confirms is accepted, as a model that wrote it would. "proposed": guesses verified a
pass, which is what they cost. Plain look-up stands beside our drafter with a memory of its own for each chain, and with
one that is kept over the file, as when questions are asked one after the other. "place k": the k-th guess of a draft,
how likely it and all before it were said to be right, and how often they were (``benchmarks/drafting_pictures.py``).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chains import TokenChain, read_chains
from benchmarks.lookup import LookupDrafter
from benchmarks.results import record

from selfee.chain.types import Section
from selfee.llama.drafting import NO_DRAFT, CopyDrafter, Draft, DraftMemory
from selfee.llama.tokenizer import load_tokenizer
from selfee.weights.open import open_checkpoint

FILES = "selfee_13b_enforce_[13]_revisions.jsonl"
LEAST = (0.2, 0.1, 0.05)  # chances below which nothing is proposed
LIMITS = (32, 64)
QUICK_CHAINS = 4


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
        self.last: Draft = NO_DRAFT

    def propose(self, limit: int) -> Sequence[int]:
        tokens, chances = self._drafter.propose(limit)
        kept = sum(chance >= self._least for chance in chances)
        self.last = Draft(tokens[:kept], chances[:kept])
        return self.last.tokens


@dataclass
class Calibration:
    """By place in a draft: how likely guesses were said to be (summed), how many were right, how many there were."""

    said: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    right: Counter[int] = field(default_factory=Counter)
    count: Counter[int] = field(default_factory=Counter)

    def add(self, chances: Sequence[float], right: int) -> None:
        """A draft of which so many tokens were right."""
        for place, chance in enumerate(chances):
            self.said[place] += chance
            self.right[place] += place < right
            self.count[place] += 1

    def figures(self) -> dict[str, float]:
        """Means by place, from 1."""
        found: dict[str, float] = {}
        for place, count in sorted(self.count.items()):
            found[f"place {place + 1} said"] = self.said[place] / count
            found[f"place {place + 1} right"] = self.right[place] / count
            found[f"place {place + 1} guesses"] = count
        return found


@dataclass
class Tally:
    """Tokens, passes and guesses by section."""

    tokens: Counter[Section] = field(default_factory=Counter)
    passes: Counter[Section] = field(default_factory=Counter)
    proposed: Counter[Section] = field(default_factory=Counter)

    def line(self) -> dict[str, float]:
        """Tokens a pass by section and over all, guesses a pass over all and in revisions."""
        rates = {section.value: self.tokens[section] / max(1, self.passes[section]) for section in Section}
        passes, revising = max(1, self.passes.total()), max(1, self.passes[Section.REVISION])
        return rates | {
            "chain": self.tokens.total() / passes,
            "proposed": self.proposed.total() / passes,
            "proposed in revisions": self.proposed[Section.REVISION] / revising,
        }


def replay(
    chain: TokenChain, drafter: Guesser, limit: int, tally: Tally, calibration: Calibration | None = None
) -> None:
    """Write a chain; a pass counts for the section of its first token, tokens for their own."""
    text, originals = chain.text, chain.originals
    sections = [part.section for part in chain.parts for _ in part.tokens]
    at = 0
    while at < len(text):
        if at in originals:
            drafter.revise(originals[at])
        guesses = drafter.propose(min(limit, len(text) - at - 1))
        right = 0
        while right < len(guesses) and guesses[right] == text[at + right]:
            right += 1
        if calibration is not None and isinstance(drafter, Ours):
            calibration.add(drafter.last.chances, right)
        tally.passes[sections[at]] += 1
        tally.proposed[sections[at]] += len(guesses)
        for place in range(at, at + right + 1):
            if place in originals and place > at:
                drafter.revise(originals[place])
            drafter.wrote(text[place : place + 1])
            tally.tokens[sections[place]] += 1
        at += right + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--replay", type=Path, help="folder of released answers; default: SELFEE_BENCH_CHAINS")
    parser.add_argument("--vocab", type=Path, required=True, help="any model file with the vocabulary")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK_CHAINS} chains of each file")
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args()
    folder = given.replay or os.environ.get("SELFEE_BENCH_CHAINS")
    if not folder:
        parser.error("--replay FOLDER or SELFEE_BENCH_CHAINS is needed")
    files = sorted(Path(folder).glob(FILES))
    if not files:
        parser.error(f"{folder}: holds no {FILES}; expected the released answers of SelFee-13B")
    with open_checkpoint(given.vocab) as checkpoint:
        tokenizer = load_tokenizer(checkpoint.vocab)
    figures: dict[str, float] = {}
    for path in files:
        chains = read_chains(path, tokenizer)[: QUICK_CHAINS if given.quick else None]
        print(f"{path.stem}: {len(chains)} chains, {sum(chain.count for chain in chains)} tokens")
        figures |= measure(path.stem, chains)
    if not given.no_record:
        record("drafting", figures, isa="any")


def measure(name: str, chains: Sequence[TokenChain]) -> dict[str, float]:
    """Print a line for each drafter; the figures by name."""
    figures: dict[str, float] = {}

    def report(label: str, tally: Tally) -> None:
        line = tally.line()
        print(f"  {label:20}" + "  ".join(f"{key} {value:5.2f}" for key, value in line.items()), flush=True)
        figures.update({f"{name} {label} {key}": value for key, value in line.items()})

    tally = Tally()
    for chain in chains:
        plain = Plain()
        plain.wrote(chain.prompt)
        replay(chain, plain, 32, tally)
    report("look-up", tally)
    for kept in (False, True):
        for limit in LIMITS:
            for least in LEAST:
                memory, tally, calibration = DraftMemory(), Tally(), Calibration()
                for chain in chains:
                    ours = Ours(chain.prompt, memory if kept else DraftMemory(), least)
                    replay(chain, ours, limit, tally, calibration)
                report(f"{'memory' if kept else 'fresh'} >={least} <={limit}", tally)
    figures |= {f"{name} {key}": value for key, value in calibration.figures().items()}  # of the longest drafts
    return figures


if __name__ == "__main__":
    main()
