"""What native/drafting.cpp means, in plain Python: dictionaries where it has hash tables, and no bound on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16)
MOST = 3
TEXT = (14, 34, 55, 39, 56, 79, 56, 71, 76, 63, 80, 88, 81, 87, 89, 85, 91, 94, 93, 93, 95, 98, 99, 99)
MEMORY = (12, 20, 34, 26, 28, 55, 43, 47, 63, 57, 60, 81, 75, 74, 89, 79, 84, 92, 88, 89, 93, 96, 99, 98)
POINTER = (4, 44, 63, 62, 79, 86, 88, 89, 88, 88, 93, 94, 98)
PRIORS = {"text": TEXT, "memory": MEMORY, "pointer": POINTER}
SOURCES = tuple(PRIORS)

Evidence = tuple[str, int, tuple[int, int]]  # source, strength, what the others say: 0 nothing, 1 the same, 2 another


@dataclass
class Table:
    """What followed the last 1 to 16 tokens, with a counter for each."""

    known: dict[tuple[int, ...], list[int]] = field(default_factory=dict)

    def look(self, text: Sequence[int]) -> tuple[int, int] | None:
        """(token, strength) of the longest end that is known with all shorter ones."""
        found = None
        for order, length in enumerate(LENGTHS):
            entry = self.known.get(tuple(text[-length:])) if length <= len(text) else None
            if entry is None:
                break
            found = entry[0], order * MOST + entry[1] - 1
        return found

    def learn(self, text: Sequence[int], token: int) -> None:
        for length in LENGTHS:
            if length > len(text):
                break
            entry = self.known.setdefault(tuple(text[-length:]), [token, 0])
            if entry[0] == token and entry[1] > 0:
                entry[1] = min(entry[1] + 1, MOST)
                continue
            entry[1] -= 1 if length < 6 else MOST
            if entry[1] <= 0:
                entry[:] = [token, 1]


@dataclass
class Memory:
    """What outlives a text."""

    table: Table = field(default_factory=Table)
    alone: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    joint: dict[Evidence, list[float]] = field(default_factory=dict)

    def chance(self, evidence: Evidence) -> float:
        source, strength, others = evidence
        alone = blend(self.alone.get((source, strength)), PRIORS[source][strength] / 100)
        odds = math.log(alone / (1 - alone)) + sum((0.0, 1.0, -0.7)[other] for other in others)
        return blend(self.joint.get(evidence), 1 / (1 + math.exp(-odds)))

    def count(self, evidence: Evidence, right: bool) -> None:
        for cell in (
            self.alone.setdefault(evidence[:2], [0.0, 0.0]),
            self.joint.setdefault(evidence, [0.0, 0.0]),
        ):
            cell[0] += right
            cell[1] += 1


def blend(cell: list[float] | None, prior: float) -> float:
    right, total = cell or (0.0, 0.0)
    return (right + 8 * prior) / (total + 8)


class Drafter:
    """See native/drafting.h."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.table = Table()
        self.text: list[int] = []
        self.original: list[int] = []
        self.at, self.run = 0, 0

    def read(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self.append(token)

    def revise(self, original: Sequence[int]) -> None:
        self.original, self.at, self.run = list(original), 0, 8

    def write(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            for evidence, guess in self.candidates(self.text, self.at, self.run):
                self.memory.count(evidence, guess == token)
            self.memory.table.learn(self.text, token)
            self.append(token)

    def append(self, token: int) -> None:
        self.table.learn(self.text, token)
        if self.original:
            if self.at < len(self.original) and self.original[self.at] == token:
                self.at, self.run = self.at + 1, self.run + 1
            else:
                self.find_again(token)
        self.text.append(token)

    def find_again(self, token: int) -> None:
        best, best_score = (self.at + 1, 0), -math.inf
        for at, other in enumerate(self.original):
            if other != token:
                continue
            matched = 1
            while (
                matched < 12
                and matched <= at
                and matched <= len(self.text)
                and self.original[at - matched] == self.text[-matched]
            ):
                matched += 1
            distance = abs(at - self.at)
            score = min(matched, 8) - 0.3 * math.log2(1 + distance)
            if score > best_score:
                best_score = score
                convincing = matched >= 3 or (matched == 2 and distance <= 16) or distance <= 3
                best = (at + 1, matched) if convincing else (self.at + 1, 0)
        self.at, self.run = best

    def propose(self, limit: int, least: float) -> tuple[list[int], list[float]]:
        text, at, run = list(self.text), self.at, self.run
        tokens: list[int] = []
        chances: list[float] = []
        right = 1.0
        while len(tokens) < limit:
            found = [(self.memory.chance(evidence), guess) for evidence, guess in self.candidates(text, at, run)]
            if not found:
                break
            best, token = max(found, key=lambda pair: pair[0])
            right *= best
            if right < least:
                break
            tokens.append(token)
            chances.append(right)
            text.append(token)
            same = at < len(self.original) and self.original[at] == token
            at, run = at + 1, run + 1 if same else 0
        return tokens, chances

    def candidates(self, text: Sequence[int], at: int, run: int) -> list[tuple[Evidence, int]]:
        guesses: dict[str, tuple[int, int]] = {}
        for source, table in (("text", self.table), ("memory", self.memory.table)):
            if (found := table.look(text)) is not None:
                guesses[source] = found
        if at < len(self.original):
            guesses["pointer"] = self.original[at], min(run, 12)
        result = []
        for source, (token, strength) in guesses.items():
            first, second = (
                0 if other not in guesses else 1 if guesses[other][0] == token else 2
                for other in SOURCES
                if other != source
            )
            result.append(((source, strength, (first, second)), token))
        return result
