"""The folder of an evaluation: what lies where, and what is written down about how it was made.

::

    DIR/questions.jsonl        the questions, in one form whatever file they came from
    DIR/answers/NAME.jsonl     one line a question and number of revisions: what is delivered
    DIR/chains/NAME.jsonl      one line a chain: every answer, feedback and revision, settings, seed, tokens, time
    DIR/judgments/NAME.jsonl   one line a judge's reply about answers in one order
    DIR/original/              the same in the formats of SelFee's release
    DIR/manifest.json          how each file was made: model and its checksum, settings, seed, questions, version
    DIR/journal.sqlite         what was asked and paid for; with it a run that was stopped goes on
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError, ResourceError
from selfee.eval.questions import FILE_NAME, Question, read_questions, write_questions
from selfee.files import replace_text

MANIFEST = "manifest.json"
_FORMAT = "selfee-evaluation"
_VERSION = 1


@dataclass(frozen=True)
class Folder:
    """An evaluation's folder."""

    path: Path

    @property
    def questions(self) -> Path:
        """The questions."""
        return self.path / FILE_NAME

    @property
    def journal(self) -> Path:
        """What was asked and paid for."""
        return self.path / "journal.sqlite"

    def answers(self, name: str) -> Path:
        """What a model delivered."""
        return self.path / "answers" / f"{name}.jsonl"

    def chains(self, name: str) -> Path:
        """How it came about."""
        return self.path / "chains" / f"{name}.jsonl"

    def judgments(self, name: str) -> Path:
        """What a judge said."""
        return self.path / "judgments" / f"{name}.jsonl"

    def original(self, name: str) -> Path:
        """A file in a format of SelFee's release."""
        return self.path / "original" / f"{name}.jsonl"

    def make(self) -> None:
        """Make the folder and those in it. Raises ResourceError."""
        try:
            for name in ("answers", "chains", "judgments", "original"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"{self.path}: cannot be made ({error.strerror}); expected a folder to write"
            ) from error

    def add_questions(self, questions: Sequence[Question]) -> list[Question]:
        """Write the questions down beside those that are there; returns all, these first.

        Raises BadFileError if one of these ids stands for another question there.
        """
        before = read_questions(self.questions) if self.questions.exists() else []
        known = {question.id: question for question in before}
        for question in questions:
            other = known.get(question.id)
            if other is not None and other.turns != question.turns:
                raise BadFileError(
                    f"{self.questions}: question {question.id!r} is another one here; expected one set of questions in "
                    "a folder; choose another folder"
                )
        new = {question.id for question in questions}
        merged = [*questions, *(question for question in before if question.id not in new)]
        if merged != before or [q.references for q in merged] != [q.references for q in before]:
            write_questions(self.questions, merged)
        return merged

    def read_manifest(self) -> dict[str, Any]:
        """What is written down. Raises BadFileError for another program's file."""
        path = self.path / MANIFEST
        if not path.exists():
            return {"format": _FORMAT, "version": _VERSION}
        try:
            manifest = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise BadFileError(f"{path}: cannot be read ({error}); expected what selfee wrote") from error
        if not isinstance(manifest, dict) or (manifest.get("format"), manifest.get("version")) != (_FORMAT, _VERSION):
            raise BadFileError(f"{path}: no manifest of this version of selfee; expected one; choose another folder")
        return manifest

    def note(self, kind: str, name: str, entry: Mapping[str, Any]) -> None:
        """Write down how a file was made; ``kind`` is "answers" or "judgments"."""
        manifest = self.read_manifest()
        entries = dict(manifest.get(kind, {})) | {name: dict(entry)}
        manifest[kind] = {key: entries[key] for key in sorted(entries)}
        replace_text(self.path / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
