"""Which training questions are evaluation questions, word for word or nearly: both must not be in one project.

A question counts as *exact* where all words of an evaluation question stand in it one after another, and as *near*
where enough of its groups of three neighbouring words do, at least half of them. Groups that many evaluation questions
share ("write a function to") weigh little or nothing, so that what is asked decides, not how such questions begin.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfee.data.collect import CollectSettings, Input, Rejected, collect, parse_input
from selfee.data.files import BadRow, read_rows
from selfee.data.sources import SOURCES
from selfee.errors import BadFileError, UsageError

_WORD = re.compile(r"\w+")
_GROUP = 3  # words
_FEWEST_CONTAINED = 6  # words: a shorter evaluation question must be the whole training question
_FEWEST_NEAR = 4  # groups that weigh anything: with fewer, a likeness is chance
_FEWEST_SHARED = 0.5  # of all its groups, whatever they weigh: a few rare words alone do not make a question
_COMMON = 0.05  # share of the evaluation questions from which a group says nothing about any of them
_NEVER_COMMON = 4  # questions: of so few a share says nothing
_FIELDS = ("instruction", "question", "problem", "prompt", "text", "description", "intent")
_IDS = ("question_id", "task_id", "id", "uid")


@dataclass(frozen=True)
class Evaluation:
    """One evaluation question."""

    file: str  # as named by the user
    id: str
    text: str


@dataclass(frozen=True)
class Overlap:
    """A training question and the evaluation question found in it."""

    evaluation: Evaluation
    is_exact: bool
    share: float  # of the evaluation question's weighted word groups; 1 where exact

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        kind = "exact" if self.is_exact else "near"
        return {"kind": kind, "share": round(self.share, 3), "evaluation": asdict(self.evaluation)}


class EvaluationIndex:
    """Finds evaluation questions in texts."""

    def __init__(self, questions: Iterable[Evaluation], threshold: float = 0.6) -> None:
        if not 0.3 <= threshold <= 1.0:
            raise UsageError(f"threshold of overlaps: {threshold}; expected 0.3 to 1")
        self._threshold = threshold
        self.questions = list(questions)
        self._words = [words_of(question.text) for question in self.questions]
        self._whole: dict[str, int] = {}
        self._groups: dict[str, list[int]] = defaultdict(list)
        for number, words in enumerate(self._words):
            if words:
                self._whole.setdefault(" ".join(words), number)
            for group in dict.fromkeys(groups_of(words)):
                self._groups[group].append(number)
        self._counts = [len(dict.fromkeys(groups_of(words))) for words in self._words]
        self._weights = self._weigh()
        self._totals = [self._total(words) for words in self._words]

    def find(self, text: str) -> Overlap | None:
        """The evaluation question that this text holds, the closest if there are several."""
        words = words_of(text)
        line = " ".join(words)
        if line in self._whole:
            return Overlap(self.questions[self._whole[line]], True, 1.0)
        weights: dict[int, float] = defaultdict(float)
        counts: dict[int, int] = defaultdict(int)
        for group in dict.fromkeys(groups_of(words)):
            weight = self._weights.get(group, 0.0)
            for number in self._groups.get(group, ()):
                counts[number] += 1
                weights[number] += weight
        likely = [number for number, count in counts.items() if count >= _FEWEST_SHARED * self._counts[number]]
        exact = [number for number in likely if self._is_contained(number, line)]
        if exact:
            return Overlap(self.questions[max(exact, key=lambda number: len(self._words[number]))], True, 1.0)
        near = [(weights[number] / self._totals[number], -number) for number in likely if self._totals[number]]
        if near and max(near)[0] >= self._threshold:
            share, number = max(near)
            return Overlap(self.questions[-number], False, share)
        return None

    def _is_contained(self, number: int, line: str) -> bool:
        words = self._words[number]
        return len(words) >= _FEWEST_CONTAINED and f" {' '.join(words)} " in f" {line} "

    def _weigh(self) -> Mapping[str, float]:
        """Group -> weight, the rarer the more; common groups are left out."""
        most = max(_NEVER_COMMON, _COMMON * len(self.questions))
        return {
            group: math.log(1 + len(self.questions) / len(numbers))
            for group, numbers in self._groups.items()
            if len(numbers) <= most
        }

    def _total(self, words: list[str]) -> float:
        """All weights of a question; 0 = it has too few groups to be found nearly."""
        weights = [self._weights[group] for group in dict.fromkeys(groups_of(words)) if group in self._weights]
        return sum(weights) if len(weights) >= _FEWEST_NEAR else 0.0


def read_evaluation(text: str) -> Iterator[Evaluation]:
    """The questions of a file: ``SOURCE[@SPLIT]:PATH`` as in collecting, or the path of a file of questions.

    Both turns of a question with two are read. Raises BadFileError for a row that asks nothing.
    """
    label = label_of(text)
    if _names_source(text):
        yield from _read_source(parse_input(text), label)
        return
    for row in read_rows(Path(text)):
        if isinstance(row, BadRow):
            raise BadFileError(f"{row.where}: {row.reason}; expected a file of evaluation questions")
        asked = list(_asked(row.fields))
        if not asked:
            raise BadFileError(f"{row.where}: no question; expected a field 'turns' or one of {', '.join(_FIELDS)}")
        name = next((str(row.fields[field]) for field in _IDS if field in row.fields), row.where.rpartition(":")[2])
        for number, question in enumerate(asked, start=1):
            yield Evaluation(label, name if len(asked) == 1 else f"{name} turn {number}", question)


def label_of(text: str) -> str:
    """What a file of evaluation questions is called in reports: without its folder, which is one machine's own."""
    if not _names_source(text):
        return Path(text).name
    head, _, path = text.partition(":")
    return f"{head}:{Path(path).name}"


def _names_source(text: str) -> bool:
    head, colon, _ = text.partition(":")
    return bool(colon) and head.partition("@")[0] in SOURCES and not Path(text).exists()


def _read_source(given: Input, label: str) -> Iterator[Evaluation]:
    for found in collect([given], CollectSettings(with_test=True, threshold=1.0, per_task=1 << 40)):
        if isinstance(found, Rejected):
            if found.reason not in ("another split", "duplicate"):
                raise BadFileError(f"{found.where}: {found.reason} ({found.detail}); expected evaluation questions")
            continue
        name = str(found.extra.get("task_id", found.origin.rpartition(":")[2]))
        yield Evaluation(label, name, found.question.question)


def _asked(fields: Mapping[str, Any]) -> Iterator[str]:
    turns = fields.get("turns")
    texts = turns if isinstance(turns, list) else [next((fields[name] for name in _FIELDS if name in fields), None)]
    extra = fields.get("input")
    for text in texts:
        if isinstance(text, str) and text.strip():
            yield f"{text}\n\n{extra}" if isinstance(extra, str) and extra.strip() else text


def words_of(text: str) -> list[str]:
    """The words, in lower case, without punctuation."""
    return _WORD.findall(text.casefold())


def groups_of(words: list[str]) -> list[str]:
    """Neighbouring words in threes."""
    return [" ".join(words[place : place + _GROUP]) for place in range(len(words) - _GROUP + 1)]
