"""Stanford Alpaca: instructions that a model invented. Its answers are not kept: a teacher answers anew."""

from __future__ import annotations

from selfee.data.files import Row
from selfee.data.sources.base import Question, Source, SourceSettings, clean, text_field

_NO_INPUT = {"", "<noinput>", "noinput", "no input", "none", "n/a"}  # ways in which the data set says "none"


def _parse(row: Row, settings: SourceSettings) -> Question:
    given = row.fields.get("input")
    text = clean(given) if isinstance(given, str) else ""
    return Question(text_field(row, "instruction"), "" if text.lower() in _NO_INPUT else text)


ALPACA = Source("alpaca", "Stanford Alpaca: JSON array of {instruction, input, output}", _parse, has_splits=False)
