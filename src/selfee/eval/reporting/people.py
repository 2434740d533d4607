"""Labels by people: which of two answers a person found better.

A line is {question_id, first, second, winner, rater}, winner being "first", "second" or "tie"; or a row of MT-bench's
human judgments, {question_id, model_a, model_b, winner, judge}, winner being "model_a", "model_b" or "tie".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError
from selfee.eval.rows import read_rows
from selfee.eval.scoring.judgment import Form, Judgment, Label, Shown

PEOPLE = "people"
"""The rater of labels that do not tell who gave them."""

_NAMES = (("first", "second"), ("model_a", "model_b"))
_WINNERS = {
    "first": Label.FIRST,
    "model_a": Label.FIRST,
    "a": Label.FIRST,
    "second": Label.SECOND,
    "model_b": Label.SECOND,
    "b": Label.SECOND,
    "tie": Label.TIE,
    "tie (inconsistent)": Label.TIE,
    "tie (bothbad)": Label.TIE,
}


def is_label(row: Mapping[str, Any]) -> bool:
    """Whether a line of JSON is a label by a person."""
    has_names = any(isinstance(row.get(a), str) and isinstance(row.get(b), str) for a, b in _NAMES)
    return has_names and "winner" in row and "question_id" in row


def read_labels(path: str | Path) -> list[Judgment]:
    """All labels of a file, as judgments whose judge is the rater. Raises BadFileError naming line and field."""
    labels = []
    for where, _, row in read_rows(path):
        if not is_label(row):
            raise BadFileError(f"{where}: no label; expected question_id, first, second (answers' names) and winner")
        winner = _WINNERS.get(str(row["winner"]).lower())
        if winner is None:
            raise BadFileError(f"{where}: winner is {row['winner']!r:.40}; expected first, second or tie")
        names = next((row[a], row[b]) for a, b in _NAMES if isinstance(row.get(a), str))
        rater = row.get("rater", row.get("judge"))
        turn = row.get("turn")
        labels.append(
            Judgment(
                form=Form.PAIR_LABEL,
                question_id=str(row["question_id"]),
                first=Shown(names[0]),
                second=Shown(names[1]),
                judge=str(rater) if rater else PEOPLE,
                template="person" if turn is None else f"person, turn {turn}",
                label=winner,
                source=Path(path).name,
            )
        )
    return labels
