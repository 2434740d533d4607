"""Review files of 2023 (SelFee, FastChat's Vicuna, QLoRA): judgments that others made, and how sound their scores are.

A review file holds one order of one pair: {review_id, question_id, answer1_id, answer2_id, reviewer_id, metadata, text,
score}. Its stored score is what the published figures rest on, so it is what counts here; what its text says is held
against it, and every disagreement is listed.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError
from selfee.eval.scoring.historical import FAILED, read_as_2023
from selfee.eval.scoring.judgment import Form, Judgment, Shown, Unreadable
from selfee.eval.scoring.reading import read_reply
from selfee.jsonl import read_jsonl

REVIEWER_2023 = "gpt-4"
"""The judge of these files; their reviewer ids only name the prompt."""


class Finding(enum.Enum):
    """What is the matter with a stored score."""

    REPAIRED = "repaired by hand"  # the original's reader cannot have read it; the text says the same
    DIFFERS = "differs from its text"
    UNREADABLE = "text cannot be read"
    FAILED = "stored as [-1, -1]"


@dataclass(frozen=True)
class Suspect:
    """A review whose score is not simply what its text says."""

    file: str
    review_id: str
    question_id: str
    finding: Finding
    stored: tuple[float, float]
    read: tuple[float, ...] | None  # in the text, by our reader
    as_2023: tuple[float, float]  # in the text, by the original's reader; (-1, -1) = it failed
    reason: str  # in words


@dataclass(frozen=True)
class Review:
    """One line of a review file."""

    file: str
    line: int
    review_id: str
    question_id: str
    answer_ids: tuple[str, str]  # "" where the file does not tell
    reviewer: str
    text: str
    score: tuple[float, float]
    has_whole_numbers: bool  # scores stored as 10, not 10.0: typed by a person, in files that Python wrote

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.file}:{self.line}"


def is_review(row: Mapping[str, Any]) -> bool:
    """Whether a line of JSON is a review."""
    return {"question_id", "text", "score"} <= set(row) and isinstance(row.get("score"), list)


def read_reviews(path: str | Path) -> list[Review]:
    """All reviews of a file. Raises BadFileError naming line and field."""
    return [_review(row, Path(path), number) for number, row in read_jsonl(path)]


def _review(row: Mapping[str, Any], path: Path, line: int) -> Review:
    where = f"{path}:{line}"
    if not is_review(row):
        raise BadFileError(f"{where}: not a review; expected question_id, text and a list score")
    score = row["score"]
    if len(score) != 2 or any(isinstance(each, bool) or not isinstance(each, int | float) for each in score):
        raise BadFileError(f"{where}: score is {score!r:.40}; expected two numbers")
    if not isinstance(row["text"], str):
        raise BadFileError(f"{where}: text is a {type(row['text']).__name__}; expected a text")
    ids = str(row.get("answer1_id") or ""), str(row.get("answer2_id") or "")
    return Review(
        path.name,
        line,
        str(row.get("review_id", "")),
        str(row["question_id"]),
        ids,
        str(row.get("reviewer_id", "")),
        row["text"],
        (float(score[0]), float(score[1])),
        all(isinstance(each, int) for each in score),
    )


_SEPARATORS = (r"_review_(?P<a>[^_]+)_(?P<b>[^_]+)", r"(?P<a>.+?)[-_]vs[-_](?P<b>.+)")
_ENDINGS = re.compile(r"[-_](?:gpt-?4[-_])?review(?:er|s)?$")


def names_of(file: str) -> tuple[str, str] | None:
    """The two models that a review file's name tells, in the order shown: "A_vs_B", "A-vs-B-gpt4-reviewer"."""
    stem = _ENDINGS.sub("", Path(file).name.removesuffix(".jsonl"))
    for pattern in _SEPARATORS:
        if match := re.search(pattern + "$", stem):
            return match["a"], match["b"]
    return None


def judgment_of(review: Review, shown: Sequence[Shown], category: str = "", question_sha256: str = "") -> Judgment:
    """A review as a judgment of the two answers ``shown``. A score stored as [-1, -1] is no score."""
    is_read = review.score != FAILED
    return Judgment(
        id=review.review_id,
        form=Form.PAIR_SCORES,
        question_id=review.question_id,
        question_sha256=question_sha256,
        category=category,
        first=shown[0],
        second=shown[1],
        judge=REVIEWER_2023,
        template=f"reviewer {review.reviewer}",
        scores=review.score if is_read else None,
        unreadable=None if is_read else Unreadable.NO_VERDICT,
        reply=review.text,
        source=review.file,
    )


def audit(reviews: Sequence[Review]) -> list[Suspect]:
    """Every review whose stored score is not simply what its text says, in order of the files."""
    by_script = {review.file for review in reviews if not review.has_whole_numbers}
    found = (_suspect(review, review.has_whole_numbers and review.file in by_script) for review in reviews)
    return [suspect for suspect in found if suspect is not None]


def _suspect(review: Review, was_typed: bool) -> Suspect | None:
    reading, as_2023 = read_reply(review.text, Form.PAIR_SCORES), read_as_2023(review.text)
    if review.score == FAILED:
        finding, reason = Finding.FAILED, "it would enter the sums as two points less"
    elif reading.scores is None:
        told = "; ".join(reading.notes) or (reading.unreadable.value if reading.unreadable else "")
        finding, reason = Finding.UNREADABLE, told
    elif reading.scores != review.score:
        finding, reason = Finding.DIFFERS, f"the text says {_pair(reading.scores)}, {_place(reading.place)}"
    elif as_2023 != review.score:
        failed = "cannot read it" if as_2023 == FAILED else f"reads {_pair(as_2023)}"
        finding, reason = Finding.REPAIRED, f"the script of 2023 {failed}; read in: {_place(reading.place)}"
    elif was_typed:
        finding, reason = Finding.REPAIRED, "stored as whole numbers, as a person types them; the text says the same"
    else:
        return None
    return Suspect(
        review.file, review.review_id, review.question_id, finding, review.score, reading.scores, as_2023, reason
    )


def _pair(scores: Sequence[float]) -> str:
    return "(" + ", ".join(f"{score:g}" for score in scores) + ")"


def _place(place: enum.Enum | None) -> str:
    return str(place.value) if place is not None else "nowhere"
