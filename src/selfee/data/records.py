"""Chains as lines of a training set: SelFee's record format with the true source, read from ours and the original's.

What a line holds beyond the format (who was the teacher, what it cost) is kept as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfee.chain.format import render_target
from selfee.chain.record import from_dataset, from_json, to_dataset
from selfee.chain.types import Chain
from selfee.data.files import Row
from selfee.data.sample import content_id
from selfee.data.sources import NAMES_2023
from selfee.errors import BadFileError, UsageError

_FORMAT = ("iteration_truncated", "output", "instruction", "input", "iteration", "outputs")
_OURS = ("dataset", "id", "source")


@dataclass(frozen=True)
class Record:
    """A chain of a training set, checked."""

    id: str  # of its question
    source: str  # "" = neither the record nor the user says it
    chain: Chain
    fields: Mapping[str, Any]  # the line as it is to be written, in the format's order

    @property
    def question(self) -> str:
        """What is asked, instruction and input."""
        return self.chain.instruction.question


class BadRecordError(Exception):
    """A line is no chain to train on. ``reason`` is one of few, to be counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def read_record(row: Row, source: str = "") -> Record:
    """The chain of a line; ``source`` is what the user says it is of. Raises BadRecordError."""
    fields = row.fields
    try:
        if "outputs" not in fields and "steps" in fields:
            fields = to_dataset(from_json(fields, row.where)) | {
                name: fields[name] for name in (*_OURS, "output") if name in fields
            }
        chain = from_dataset(fields, row.where)
    except (BadFileError, UsageError) as error:
        raise BadRecordError("not a chain", str(error).removeprefix(f"{row.where}: ")) from None
    _require_sound(fields, chain)
    told = source or _source_of(fields)
    id = content_id(chain.instruction.text, chain.instruction.input)
    known = {name: fields[name] for name in _FORMAT if name in fields}
    rest = {name: value for name, value in fields.items() if name not in known and name not in _OURS}
    return Record(id, told, chain, known | {"iteration": len(chain.steps), "dataset": told, "id": id} | rest)


def _source_of(fields: Mapping[str, Any]) -> str:
    for name in ("source", "dataset"):
        value = fields.get(name)
        if isinstance(value, str) and value:
            return NAMES_2023.get(value, value)
    return ""


def _require_sound(fields: Mapping[str, Any], chain: Chain) -> None:
    if not chain.instruction.text.strip():
        raise BadRecordError("empty instruction")
    number = fields.get("iteration", len(chain.steps))
    if number != len(chain.steps):
        raise BadRecordError("iteration is not the number of answers", f"{number}, but {len(chain.steps)} answers")
    for place, step in enumerate(chain.steps):
        if not step.answer.strip():
            raise BadRecordError("empty answer", f"answer {place}")
        if place + 1 < len(chain.steps) and not (step.feedback or "").strip():
            raise BadRecordError("feedback missing", f"answer {place} has none, but a revision follows")
    try:
        target = render_target(chain)
    except UsageError as error:
        raise BadRecordError("cannot be written as one text", str(error)) from None
    try:
        f"{chain.instruction.question}{target}".encode()
    except UnicodeEncodeError as error:
        raise BadRecordError("not valid Unicode", f"character {error.start}") from None
