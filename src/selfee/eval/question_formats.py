"""The fields of the question sets in use, and a reader for rows whose fields the user names.

Known by their fields: our own, MT-bench's (``turns``), the original's (``text``), Arena-Hard's (``prompt``), MBPP's,
HumanEval's, GSM8K's, AQuA's, Alpaca's and Self-Instruct's.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from selfee.errors import BadFileError, UsageError

Row = Mapping[str, Any]

MBPP_TEMPLATE = "{text}\n\nYour code should pass these tests:\n\n{test_list}"
"""How a task of MBPP is asked: without its tests, the name of the function would be a guess."""

HUMANEVAL_TEMPLATE = "Complete this Python function. Write the whole function.\n\n```python\n{prompt}```"


@dataclass(frozen=True)
class FieldNames:
    """Which fields of a row hold what; None = as the known sets have it."""

    text: str | None = None  # field that holds the question
    template: str | None = None  # or the question as a text with {fields} of the row in it
    id: str | None = None  # field that holds the id; without one, the row's number counts
    category: str | None = None
    reference: str | None = None  # field that holds a good answer

    def __post_init__(self) -> None:
        if self.text is not None and self.template is not None:
            raise UsageError("fields: text and template are both given; expected one of them")
        if self.template is not None and not fields_of(self.template):
            raise UsageError(f"template: {self.template!r} names no field; expected {{fields}} of the row")


NO_FIELDS = FieldNames()


@dataclass(frozen=True)
class Found:
    """What a row says."""

    id: str
    turns: tuple[str, ...]
    category: str = ""
    references: tuple[str, ...] = ()
    is_ours: bool = False  # the row is a line of ``questions.jsonl``


Reader = Callable[[Row, int, str], Found]
"""Reads (row, number of the row from 1, where it stands)."""


def find_reader(row: Row, names: FieldNames, where: str) -> Reader:
    """The reader for rows of this kind. Raises BadFileError for fields of no known set."""
    if names.text is not None or names.template is not None:
        return lambda row, number, where: _read_named(row, number, where, names)
    for keys, reader in _KNOWN:
        if all(key in row for key in keys):
            return lambda row, number, where: _renamed(reader(row, number, where), row, where, names)
    shown = ", ".join(list(row)[:8])
    raise BadFileError(
        f"{where}: fields {shown}; expected those of a known question set; say which field holds the question"
    )


def fields_of(template: str) -> list[str]:
    """Names in braces. Raises UsageError for braces that do not fit."""
    try:
        return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UsageError(f"template: {error}; expected names in single braces; write {{{{ for a brace") from error


def fill(template: str, row: Row, where: str) -> str:
    """The template with the row's fields; a list's entries stand one a line. Raises BadFileError for a missing one."""
    values = {}
    for name in fields_of(template):
        if name not in row:
            raise BadFileError(f"{where}: no field '{name}', which the template names; expected it")
        value = row[name]
        values[name] = "\n".join(map(str, value)) if isinstance(value, list) else str(value)
    return string.Formatter().vformat(template, (), values)


def _read_named(row: Row, number: int, where: str, names: FieldNames) -> Found:
    if names.template is not None:
        turns: tuple[str, ...] = (fill(names.template, row, where),)
    else:
        assert names.text is not None, "find_reader has seen to it"
        turns = _texts(row, names.text, where)
    id_field = next((key for key in ("question_id", "id", "task_id", "uid") if key in row), None)
    found = Found(_id(row, id_field, number, where), turns, _optional(row, "category", where))
    return _renamed(found, row, where, names)


def _renamed(found: Found, row: Row, where: str, names: FieldNames) -> Found:
    """What was found, with what the user's own names say in its place."""
    return Found(
        _id(row, names.id, 0, where) if names.id is not None else found.id,
        found.turns,
        _required(row, names.category, where) if names.category is not None else found.category,
        _texts(row, names.reference, where) if names.reference is not None else found.references,
        found.is_ours,
    )


def _ours(row: Row, number: int, where: str) -> Found:
    references = _texts(row, "references", where, may_be_empty=True) if "references" in row else ()
    category = _optional(row, "category", where)
    return Found(_id(row, "id", number, where), _texts(row, "turns", where), category, references, is_ours=True)


def _mt_bench(row: Row, number: int, where: str) -> Found:
    references = _texts(row, "reference", where, may_be_empty=True) if row.get("reference") else ()
    category = _optional(row, "category", where)
    return Found(_id(row, "question_id", number, where), _texts(row, "turns", where), category, references)


def _original(row: Row, number: int, where: str) -> Found:
    return Found(_id(row, "question_id", number, where), _texts(row, "text", where), _optional(row, "category", where))


def _arena_hard(row: Row, number: int, where: str) -> Found:
    return Found(_id(row, "uid", number, where), _texts(row, "prompt", where), _optional(row, "category", where))


def _mbpp(row: Row, number: int, where: str) -> Found:
    reference = _optional(row, "code", where)
    return Found(_id(row, "task_id", number, where), (fill(MBPP_TEMPLATE, row, where),), "coding", (reference,))


def _humaneval(row: Row, number: int, where: str) -> Found:
    solution = _required(row, "prompt", where) + _required(row, "canonical_solution", where)
    return Found(_id(row, "task_id", number, where), (fill(HUMANEVAL_TEMPLATE, row, where),), "coding", (solution,))


def _gsm8k(row: Row, number: int, where: str) -> Found:
    return Found(str(number), _texts(row, "question", where), "math", _texts(row, "answer", where))


def _aqua(row: Row, number: int, where: str) -> Found:
    return Found(str(number), (fill("{question}\n\n{options}", row, where),), "math", _texts(row, "correct", where))


def _alpaca(row: Row, number: int, where: str) -> Found:
    text, about = _required(row, "instruction", where), _optional(row, "input", where)
    reference = _optional(row, "output", where)
    id_field = next((key for key in ("question_id", "id") if key in row), None)
    turns = (f"{text}\n\n{about}" if about else text,)
    return Found(_id(row, id_field, number, where), turns, _optional(row, "dataset", where), (reference,))


def _self_instruct(row: Row, number: int, where: str) -> Found:
    instances = row["instances"]
    first = instances[0] if isinstance(instances, list) and instances else None
    if not isinstance(first, dict):
        raise BadFileError(f"{where}: field 'instances' is no list of objects; expected at least one")
    merged = {"instruction": row["instruction"]} | {key: first.get(key, "") for key in ("input", "output")}
    found = _alpaca(merged, number, where)
    return Found(_id(row, "id", number, where), found.turns, "", found.references)


_KNOWN: tuple[tuple[tuple[str, ...], Reader], ...] = (
    (("id", "turns"), _ours),
    (("question_id", "turns"), _mt_bench),
    (("question_id", "text"), _original),
    (("uid", "prompt"), _arena_hard),
    (("task_id", "text", "test_list"), _mbpp),
    (("task_id", "prompt", "canonical_solution"), _humaneval),
    (("question", "options", "correct"), _aqua),
    (("question", "answer"), _gsm8k),
    (("id", "instruction", "instances"), _self_instruct),
    (("instruction",), _alpaca),
)


def _id(row: Row, name: str | None, number: int, where: str) -> str:
    if name is None:
        return str(number)
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadFileError(f"{where}: field '{name}' is {value!r}; expected the question's id, a text or a number")
    return str(value)


def _texts(row: Row, name: str, where: str, *, may_be_empty: bool = False) -> tuple[str, ...]:
    """A text, or a list of texts, one for each turn."""
    value = row.get(name)
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and (may_be_empty or text.strip()) for text in texts):
        raise BadFileError(f"{where}: field '{name}' is {str(value)[:60]!r}; expected a text, or a list of them")
    return tuple(texts)


def _required(row: Row, name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise BadFileError(f"{where}: field '{name}' is {str(value)[:60]!r}; expected a text")
    return value


def _optional(row: Row, name: str, where: str) -> str:
    return "" if row.get(name) is None else _required(row, name, where)
