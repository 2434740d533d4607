"""ShareGPT: conversations that people shared. The first question and its answer are taken, if both are English."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from selfee.data.files import Row
from selfee.data.language import find_foreign
from selfee.data.markup import MarkupError, to_markdown
from selfee.data.sources.base import Question, QuestionRule, RefusedError, Source, SourceSettings, clean

_USER = {"human", "user"}
_ASSISTANT = {"gpt", "chatgpt", "assistant", "bing", "bard", "model"}
_SYSTEM = {"system"}
_LATER_PART = re.compile(r".+_[1-9][0-9]*")  # long conversations were split by others into ID_0, ID_1 …
_CLOSING = " \t\n\"'”’*_)"
_QUESTION_MARKS = ("?", "？")


def _parse(row: Row, settings: SourceSettings) -> Question:
    name = row.fields.get("id")
    if isinstance(name, str) and _LATER_PART.fullmatch(name):
        raise RefusedError("later part of a conversation", f"id {name}")
    question, answer = (_markdown(text) for text in _first_pair(row))
    _require_rule(settings.question_rule, question, answer)
    _require_english("question", question)
    _require_english("answer", answer)
    extra = {"conversation": name} if isinstance(name, str) else {}
    return Question(question, answer=answer, extra=extra)


def _first_pair(row: Row) -> tuple[str, str]:
    """The first two messages, which must be the user's and the assistant's; the system's before them is not told."""
    messages = row.fields.get("conversations", row.fields.get("items"))
    if not isinstance(messages, list | tuple):
        raise RefusedError("field missing", "no list in field 'conversations'")
    pair = [message for message in messages if _role(message) not in _SYSTEM][:2]
    for place, (roles, missing) in enumerate(((_USER, "begins with the assistant"), (_ASSISTANT, "no answer follows"))):
        if place >= len(pair):
            raise RefusedError("no conversation" if not place else missing, f"{len(pair)} messages")
        role = _role(pair[place])
        if role not in roles:
            known = role in _USER | _ASSISTANT
            raise RefusedError(missing if known else "unknown role", f"message {place + 1} is from {role!r}")
    return _text(pair[0], "question"), _text(pair[1], "answer")


def _role(message: Any) -> str:
    role = message.get("from", message.get("role")) if isinstance(message, Mapping) else None
    return role.lower() if isinstance(role, str) else ""


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get("value", message.get("content"))
    if not isinstance(value, str) or not value.strip():
        raise RefusedError(f"empty {name}")
    return clean(value)


def _markdown(text: str) -> str:
    try:
        converted = to_markdown(text)
    except MarkupError as error:
        raise RefusedError("broken markup", str(error), text) from error
    if not converted:
        raise RefusedError("nothing but markup", text=text)
    return converted


def _require_rule(rule: QuestionRule, question: str, answer: str) -> None:
    if rule is QuestionRule.ANSWER and answer.rstrip(_CLOSING).endswith(_QUESTION_MARKS):
        raise RefusedError("answer ends in a question", answer[-80:], question)
    if rule is QuestionRule.QUERY and not any(mark in question for mark in _QUESTION_MARKS):
        raise RefusedError("user asks nothing", text=question)


def _require_english(name: str, text: str) -> None:
    language = find_foreign(text)
    if language is not None:
        raise RefusedError(f"{name} not in English", f"looks like {language}", text)


SHAREGPT = Source(
    "sharegpt",
    "ShareGPT: JSON array of {id, conversations: [{from, value}]}",
    _parse,
    is_chat=True,
    has_splits=False,
)
