"""Which questions: a file of any known set, or fields that the user names; all of them, or some."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfee.cli.options import FlagGroup

if TYPE_CHECKING:
    from selfee.eval.questions import Question


@dataclass(frozen=True)
class Questioning:
    """How a file of questions is read."""

    limit: int | None = None  # ask only the first so many
    ids: tuple[str, ...] = ()  # ask only these, with commas
    categories: tuple[str, ...] = ()  # ask only those of these categories, with commas
    text_field: str | None = None  # field that holds the question, where the set is not a known one
    template: str | None = None  # the question as a text with {fields} of the row in it, instead of --text-field
    id_field: str | None = None  # field that holds the id
    category_field: str | None = None  # field that holds the category
    reference_field: str | None = None  # field that holds a good answer


QUESTIONING = FlagGroup(Questioning, has_variables=False)


def chosen_questions(path: Path, how: Questioning, references: Path | None) -> list[Question]:
    """The questions that the flags mean."""
    from selfee.eval.question_formats import FieldNames
    from selfee.eval.questions import Selection, read_questions, with_references

    names = FieldNames(how.text_field, how.template, how.id_field, how.category_field, how.reference_field)
    questions = read_questions(path, names)
    if references is not None:
        questions = with_references(questions, references)
    return Selection(how.limit, how.ids, how.categories).of(questions)
