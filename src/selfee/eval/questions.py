"""Questions to be answered and judged, whatever file they came from.

``read_questions`` reads the usual sets by their fields, and any JSON lines by fields that the user names. What a row
holds beside the question (the tests of MBPP, the right number of GSM8K) is kept in ``Question.source`` for verifiers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError, UsageError
from selfee.eval.question_formats import NO_FIELDS, FieldNames, find_reader
from selfee.eval.rows import read_rows
from selfee.jsonl import write_jsonl

FILE_NAME = "questions.jsonl"


@dataclass(frozen=True)
class Question:
    """One question, of one turn or more, with good answers where the set has them."""

    id: str  # as text, whatever it was in the file
    turns: tuple[str, ...]
    category: str = ""
    references: tuple[str, ...] = ()  # a good answer for each turn; "" where there is none
    source: Mapping[str, Any] = field(default_factory=dict, compare=False)  # the row as it was

    @property
    def sha256(self) -> str:
        """Of its turns: two questions are the same if they ask the same."""
        return hashlib.sha256(json.dumps(self.turns).encode()).hexdigest()

    def reference(self, turn: int) -> str:
        """The good answer to a turn, from 0; "" if there is none."""
        return self.references[turn] if turn < len(self.references) else ""

    def as_row(self) -> dict[str, Any]:
        """One line of ``questions.jsonl``."""
        row: dict[str, Any] = {"id": self.id, "category": self.category, "turns": list(self.turns)}
        if any(self.references):
            row["references"] = list(self.references)
        return row | ({"source": dict(self.source)} if self.source else {})


def read_questions(path: str | Path, names: FieldNames = NO_FIELDS) -> list[Question]:
    """All questions of a file, in order. ``names`` says which fields hold what, where the set is not a known one.

    Raises BadFileError naming file, line and field; two questions must not have one id.
    """
    questions: list[Question] = []
    seen: dict[str, str] = {}
    for where, number, row in read_rows(path):
        found = find_reader(row, names, where)(row, number, where)
        source = row.get("source") if found.is_ours else row
        kept = source if isinstance(source, dict) else {}
        question = Question(found.id, found.turns, found.category, found.references, kept)
        if question.id in seen:
            raise BadFileError(
                f"{where}: question {question.id!r} stands at {seen[question.id]} too; expected one each"
            )
        seen[question.id] = where
        questions.append(question)
    if not questions:
        raise BadFileError(f"{path}: no questions; expected at least one line")
    return questions


def write_questions(path: str | Path, questions: Iterable[Question]) -> None:
    """Write questions in our own form, whole or not at all."""
    write_jsonl(path, (question.as_row() for question in questions))


def with_references(questions: Iterable[Question], path: str | Path) -> list[Question]:
    """The questions with the good answers of a file: MT-bench's reference answers, or {question_id, text} rows."""
    answers: dict[str, tuple[str, ...]] = {}
    for where, _, row in read_rows(path):
        answers[str(row.get("question_id", row.get("id", "")))] = _reference_turns(row, where)
    known = list(questions)
    if not any(question.id in answers for question in known):
        raise BadFileError(f"{path}: answers none of the {len(known)} questions; expected their ids in 'question_id'")
    return [replace(question, references=answers.get(question.id, question.references)) for question in known]


def _reference_turns(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    choices = row.get("choices")
    turns = choices[0].get("turns") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    if turns is None:
        turns = row.get("turns", [row["text"]] if isinstance(row.get("text"), str) else None)
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise BadFileError(f"{where}: no reference answer; expected 'choices', 'turns' or 'text'")
    return tuple(turns)


@dataclass(frozen=True)
class Selection:
    """Which questions of a set are asked."""

    limit: int | None = None  # only the first so many (of those chosen); None = all
    ids: tuple[str, ...] = ()  # only these; () = all
    categories: tuple[str, ...] = ()  # only of these categories; () = all

    def of(self, questions: Iterable[Question]) -> list[Question]:
        """The questions chosen, in order. Raises UsageError for an id or category that does not exist, or none left."""
        all_of_them = list(questions)
        known = {"ids": {each.id for each in all_of_them}, "categories": {each.category for each in all_of_them}}
        for name, values in (("ids", self.ids), ("categories", self.categories)):
            if missing := [value for value in values if value not in known[name]]:
                some = ", ".join(sorted(known[name])[:8])
                raise UsageError(f"{name}: no question has {missing[0]!r}; expected some of {some} …")
        chosen = [
            each
            for each in all_of_them
            if (not self.ids or each.id in self.ids) and (not self.categories or each.category in self.categories)
        ]
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit: {self.limit}; expected 1 or more, or no limit")
        if not chosen:
            raise UsageError("questions: none of them has these ids and categories together; expected at least one")
        return chosen[: self.limit]
