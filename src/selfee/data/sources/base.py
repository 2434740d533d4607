"""What every source gives: a question and its reference, or the reason why a row gives none."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from selfee.data.files import Row


class RefusedError(Exception):
    """A row is not taken. ``reason`` is one of few, to be counted; ``detail`` is about this row."""

    def __init__(self, reason: str, detail: str = "", text: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.text = text


@dataclass(frozen=True)
class Question:
    """What a row asks, and what it says is right."""

    instruction: str
    input: str = ""
    reference: str | None = None
    answer: str | None = None
    split: str = ""  # where the row itself says it
    extra: Mapping[str, Any] = field(default_factory=dict)


class QuestionRule(enum.Enum):
    """Which conversations are refused for what they ask."""

    ANSWER = "answer"  # those whose answer ends by asking back
    QUERY = "query"  # those whose user asks nothing: no question mark
    NONE = "none"


@dataclass(frozen=True)
class SourceSettings:
    """What may be decided about reading the sources."""

    with_tests: bool = False  # show MBPP's tests in the question: without them a function's name can only be guessed
    question_rule: QuestionRule = (
        QuestionRule.ANSWER
    )  # refuse ShareGPT's answers that ask back, or queries that ask nothing


@dataclass(frozen=True)
class Source:
    """A kind of data set: how its rows are read."""

    name: str
    about: str  # one line: what it is and which files hold it
    parse: Callable[[Row, SourceSettings], Question]
    columns: tuple[str, ...] = ()  # of tables that have no heading line
    is_chat: bool = False  # questions are people's own: near-duplicates are repetitions, not exercises of one kind
    has_splits: bool = True  # it is published in splits: the user should say which one it is
    has_tasks: bool = False  # rows belong to tasks (``extra["task"]``), of which only some of each are taken


def text_field(row: Row, *names: str) -> str:
    """The first of these fields that holds a text. Raises RefusedError where none does, or it is empty."""
    for name in names:
        value = row.fields.get(name)
        if isinstance(value, str) and value.strip():
            return clean(value)
    missing = next((name for name in names if name in row.fields), None)
    if missing is None:
        raise RefusedError("field missing", f"no field '{names[0]}'; has {', '.join(map(str, row.fields)) or 'none'}")
    value = row.fields[missing]
    if value is None or isinstance(value, str):
        raise RefusedError("field empty", f"field '{missing}' is empty")
    raise RefusedError("field of another kind", f"field '{missing}' is a {type(value).__name__}; expected a text")


def clean(text: str) -> str:
    """Line breaks as \\n, no white space around."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()
