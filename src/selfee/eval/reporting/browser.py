"""The data of the page's question browser: every question with its chains and judgments, each text once.

It stands in the page as JSON in a script element that no browser runs. ``<``, ``>`` and ``&`` are written as JSON
escapes, so that no text of a model or a judge can end the element or begin another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from selfee.chain.types import Chain, Step
from selfee.eval.answers import Answer
from selfee.eval.reporting.folder import question_of
from selfee.eval.reporting.report import Report
from selfee.eval.scoring.judgment import Judgment, Shown, text_hash

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class _Texts:
    """Texts by number, each kept once: answers of one chain enforced to different lengths share most of theirs."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def all(self) -> list[str]:
        return list(self._numbers)


def island(report: Report) -> str:
    """The JSON text for the page's data element."""
    text = json.dumps(browser_data(report), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escaped in _ESCAPES.items():
        text = text.replace(character, escaped)
    return text


def browser_data(report: Report) -> dict[str, Any]:
    """Questions in order, with their answers, chains and judgments; texts are numbers into ``texts``."""
    texts, material = _Texts(), report.material
    by_question: dict[str, list[Judgment]] = {question: [] for question in material.questions}
    for each in material.judgments:
        by_question.setdefault(each.question_id, []).append(each)
    keys = {answer.answer_id: key for key, answer in material.answers.items() if answer.answer_id}
    questions = []
    for identity, judgments in by_question.items():
        if not judgments:
            continue
        question = question_of(identity, material.questions)
        shown = _shown(judgments)
        answers = []
        for title, side in shown.items():
            key = (title, identity) if (title, identity) in material.answers else keys.get(side.answer_id, ("", ""))
            answer, chain = material.answers.get(key), material.chains.get(key)
            entry: dict[str, Any] = {"title": title}
            if answer is not None:
                entry["text"] = texts.number(_text_of(answer, side))
            if chain is not None:
                entry |= _chain(chain, texts)
            answers.append(entry)
        questions.append(
            {
                "id": identity,
                "category": question.category if question else judgments[0].category,
                "question": texts.number("\n\n".join(question.turns)) if question else None,
                "answers": answers,
                "judgments": [_judgment(each, texts) for each in judgments],
            }
        )
    return {"texts": texts.all(), "questions": questions}


def _shown(judgments: Sequence[Judgment]) -> dict[str, Shown]:
    """Every answer that was judged, by its title; revisions of one chain in order, others as they came."""
    sides = [side for each in judgments for side in (each.first, each.second) if side is not None]
    found = {side.title: side for side in sides}
    return dict(sorted(found.items(), key=lambda item: (item[1].revision is not None, item[1].revision or 0)))


def _text_of(answer: Answer, side: Shown) -> str:
    """The turn of the answer that was judged: the one whose text has this hash, else the last."""
    judged = (turn.text for turn in answer.turns if text_hash(turn.text) == side.sha256)
    return next(judged, answer.turns[-1].text)


def _chain(chain: Chain, texts: _Texts) -> dict[str, Any]:
    return {
        "steps": [_step(step, texts) for step in chain.steps],
        "delivered": chain.delivered,
        "end": chain.end.value,
        "cut": chain.cut.value if chain.cut else None,
    }


def _step(step: Step, texts: _Texts) -> dict[str, Any]:
    row: dict[str, Any] = {"answer": texts.number(step.answer), "finished": step.answer_finished}
    if step.feedback is not None:
        row["feedback"] = texts.number(step.feedback)
    if step.verdict is not None:
        row["needed"] = step.verdict.needed
        row["forced"] = step.verdict.forced
    if step.check is not None:
        row["check"] = {"passed": step.check.passed, "score": step.check.score, "reason": step.check.reason}
    return row


def _judgment(each: Judgment, texts: _Texts) -> dict[str, Any]:
    row: dict[str, Any] = {
        "judge": each.judge,
        "first": each.first.title,
        "second": each.second.title if each.second else None,
        "winner": each.winner.value if each.winner else None,
        "scores": list(each.scores) if each.scores is not None else None,
        "unreadable": each.unreadable.value if each.unreadable else None,
        "reply": texts.number(each.reply),
        "template": each.template,
    }
    if each.notes:
        row["notes"] = list(each.notes)
    if each.repeat:
        row["repeat"] = each.repeat
    return row
