"""What judges leave behind: judgments as our lines, and reviews as the original has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfee.eval.folder import Folder
from selfee.eval.rows import read_rows
from selfee.eval.scoring.judgment import Form, Judgment, Shown
from selfee.jsonl import write_jsonl

UNREADABLE_SCORE = [-1, -1]
"""What the original's format holds where there are no scores; the row's metadata then says why."""


def merge_judgments(path: Path, judgments: Sequence[Judgment], question_ids: Sequence[str]) -> list[Judgment]:
    """Write judgments beside those that the file has, in an order that does not depend on when they came.

    A judgment that was asked for again takes the place of the earlier one. Returns all.
    """
    merged: dict[str, Judgment] = {}
    if path.exists():
        for where, _, row in read_rows(path):
            earlier = Judgment.from_row(row, where)
            merged[earlier.id] = earlier
    merged |= {judgment.id: judgment for judgment in judgments}
    places = {question: place for place, question in enumerate(question_ids)}

    def order(judgment: Judgment) -> tuple[Any, ...]:
        titles = [shown.title for shown in _shown(judgment)]
        question, _, turn = judgment.question_id.rpartition("/")
        if judgment.question_id in places:
            question, turn = judgment.question_id, ""
        place = places.get(question, len(places))
        return (judgment.form.value, sorted(titles), place, question, turn, judgment.repeat, titles, judgment.id)

    ordered = sorted(merged.values(), key=order)
    write_jsonl(path, (judgment.as_row() for judgment in ordered))
    return ordered


def write_reviews(folder: Folder, judgments: Iterable[Judgment], reviewers: Mapping[str, int]) -> list[Path]:
    """Write pairs of scores as the original's review files, one for each pair in each order; returns the files.

    ``reviewers`` maps a template's name to its reviewer's number. Of repeated judgments, the first is written.
    """
    files: dict[str, list[Judgment]] = {}
    for judgment in judgments:
        if judgment.form is Form.PAIR_SCORES and judgment.second is not None and judgment.repeat == 0:
            name = f"review_{plain_name(judgment.first)}_vs_{plain_name(judgment.second)}"
            files.setdefault(name, []).append(judgment)
    paths = []
    for name, rows in files.items():
        path = folder.original(name)
        write_jsonl(path, (review_row(judgment, reviewers.get(judgment.template, 1)) for judgment in rows))
        paths.append(path)
    return paths


def review_row(judgment: Judgment, reviewer: int) -> dict[str, Any]:
    """A row of the original's review files. An unreadable reply has -1, as there, and says so in its metadata."""
    assert judgment.second is not None, "a review is of two answers"
    question: int | str = int(judgment.question_id) if judgment.question_id.isdecimal() else judgment.question_id
    metadata: dict[str, Any] = {"judge": judgment.judge, "template": judgment.template}
    if judgment.unreadable is not None:
        metadata["unreadable"] = judgment.unreadable.value
    return {
        "review_id": judgment.id[:22],
        "question_id": question,
        "answer1_id": judgment.first.answer_id,
        "answer2_id": judgment.second.answer_id,
        "reviewer_id": reviewer,
        "metadata": metadata,
        "text": judgment.reply,
        "score": UNREADABLE_SCORE if judgment.scores is None else list(judgment.scores),
    }


def plain_name(shown: Shown) -> str:
    """A system's name for a file."""
    title = shown.name if shown.revision is None else f"{shown.name}_enforce_{shown.revision}_revisions"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.") or "answers"


def _shown(judgment: Judgment) -> tuple[Shown, ...]:
    return (judgment.first,) if judgment.second is None else (judgment.first, judgment.second)
