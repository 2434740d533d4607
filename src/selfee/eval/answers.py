"""Answers to be judged, whatever file they came from.

A *system* is whoever answers: a name, and the number of revisions where one was enforced. ``read_answers`` reads our
own lines, the original's answer files, MT-bench's and AlpacaEval's; ``choose_systems`` finds those that a user names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError, UsageError
from selfee.eval.rows import read_rows

AUTO = "auto"
"""What stands behind the @ for what a chain delivers if it decides itself when to stop."""


@dataclass(frozen=True)
class Turn:
    """The answer to one turn of a question, and where it comes from."""

    text: str
    delivered: int | None = None  # which answer of its chain it is: 0 = the first
    status: str = ""  # complete, repeated, fallback or cut; see ``answering.derive``
    chain: str = ""  # id of the chain
    tokens: int | None = None  # of this text
    spent: int | None = None  # generated up to its last word: answers and feedback before it too
    seconds: float | None = None  # wall time up to its last word


@dataclass(frozen=True)
class Answer:
    """One system's answer to one question."""

    question_id: str
    name: str  # of the system, without its number of revisions
    turns: tuple[Turn, ...]
    revision: int | None = None  # revisions enforced; None = it decided itself, or nobody told
    category: str = ""
    model: str = ""  # whatever the file says who wrote it
    answer_id: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of every turn."""
        return tuple(turn.text for turn in self.turns)

    @property
    def system(self) -> str:
        """``name@2``; the name alone where no number of revisions was enforced."""
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    def as_row(self) -> dict[str, Any]:
        """One line of ``answers/NAME.jsonl``; what is not known is left out."""
        row: dict[str, Any] = {"question_id": self.question_id, "system": self.name, "revision": self.revision}
        row |= {"category": self.category, "model": self.model, "answer_id": self.answer_id}
        turns = [{key: value for key, value in vars(turn).items() if value not in (None, "")} for turn in self.turns]
        return row | {"turns": [{"text": ""} | turn for turn in turns]}


def answer_id(question_id: str, system: str, texts: Sequence[str]) -> str:
    """An answer's id: the same answer of the same system has the same, whenever it was written."""
    said = json.dumps([question_id, system, list(texts)])
    return hashlib.blake2b(said.encode(), digest_size=11).hexdigest()


def read_answers(path: str | Path, questions: Mapping[str, str] | None = None) -> list[Answer]:
    """All answers of a file, in order.

    ``questions`` maps a question's first turn to its id, for files that repeat the question instead of naming its id.
    Raises BadFileError naming file and line; a system answers a question once.
    """
    path = Path(path)
    answers: list[Answer] = []
    seen: dict[tuple[str, str, int | None], str] = {}
    for where, _, row in read_rows(path):
        answer = _read(row, where, path.stem, questions or {})
        key = (answer.question_id, answer.name, answer.revision)
        if key in seen:
            raise BadFileError(
                f"{where}: {answer.system} answers question {answer.question_id!r} at {seen[key]} too; expected once"
            )
        seen[key] = where
        answers.append(answer)
    if not answers:
        raise BadFileError(f"{path}: no answers; expected at least one line")
    return answers


def choose_systems(spec: str, questions: Mapping[str, str] | None = None) -> dict[str, list[Answer]]:
    """The systems that a user means by FILE or FILE@REVISION, by name, in order of their revisions.

    FILE alone means every system of the file. Raises UsageError for a revision that it does not hold.
    """
    file, _, wanted = spec.rpartition("@")
    if not file or not (wanted == AUTO or wanted.isdecimal()) or Path(spec).exists():
        file, wanted = spec, ""
    systems: dict[str, list[Answer]] = {}
    for answer in sorted(read_answers(file, questions), key=_order):
        systems.setdefault(answer.system, []).append(answer)
    if not wanted:
        return systems
    revision = None if wanted == AUTO else int(wanted)
    chosen = {name: given for name, given in systems.items() if given[0].revision == revision}
    if not chosen:
        has = ", ".join(f"@{AUTO if given[0].revision is None else given[0].revision}" for given in systems.values())
        raise UsageError(f"{spec}: no such answers; {file} holds {has}")
    return chosen


def in_order(answers: Iterable[Answer], ids: Sequence[str]) -> list[Answer]:
    """Answers in the order of these questions, then of their revisions."""
    places = {question: place for place, question in enumerate(ids)}
    return sorted(answers, key=lambda each: (places.get(each.question_id, len(places)), _order(each)))


def _order(answer: Answer) -> tuple[bool, int]:
    return answer.revision is None, answer.revision or 0


def _read(row: Mapping[str, Any], where: str, stem: str, questions: Mapping[str, str]) -> Answer:
    if "question_id" not in row and "output" in row:
        return _alpaca_eval(row, where, questions)
    question_id = row.get("question_id", row.get("id"))
    if isinstance(question_id, bool) or not isinstance(question_id, str | int):
        raise BadFileError(f"{where}: field 'question_id' is {question_id!r}; expected the question that it answers")
    if "system" in row and "turns" in row:
        return _ours(row, where, str(question_id))
    texts = _texts(row, where)
    told = row.get("answer_id")
    answer = told if isinstance(told, str) and told else answer_id(str(question_id), stem, texts)
    model, category = (row.get(name) if isinstance(row.get(name), str) else "" for name in ("model_id", "category"))
    return Answer(str(question_id), stem, tuple(map(Turn, texts)), None, category or "", model or "", answer)


def _texts(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """What it says: MT-bench's ``choices``, or the original's ``text``."""
    choices = row.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        turns = choices[0].get("turns")
        if isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns):
            return tuple(turns)
        raise BadFileError(f"{where}: field 'choices' holds no turns; expected a list of texts")
    text = row.get("text", row.get("output"))
    if not isinstance(text, str):
        raise BadFileError(f"{where}: field 'text' is {str(text)[:60]!r}; expected the answer")
    return (text,)


def _alpaca_eval(row: Mapping[str, Any], where: str, questions: Mapping[str, str]) -> Answer:
    instruction, output, generator = (row.get(name, "") for name in ("instruction", "output", "generator"))
    if not isinstance(instruction, str) or not isinstance(output, str):
        raise BadFileError(f"{where}: instruction or output is no text; expected both; give each answer a question_id")
    if instruction not in questions:
        raise BadFileError(
            f"{where}: no field 'question_id', and none of the questions reads {instruction[:40]!r}; expected one of "
            "both; give the file with the questions"
        )
    question, model = questions[instruction], str(generator)
    return Answer(question, model, (Turn(output),), None, "", model, answer_id(question, model, [output]))


_KINDS: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "delivered": (int,),
    "status": (str,),
    "chain": (str,),
    "tokens": (int,),
    "spent": (int,),
    "seconds": (int, float),
}


def _ours(row: Mapping[str, Any], where: str, question_id: str) -> Answer:
    revision, turns = row.get("revision"), row.get("turns")
    if revision is not None and (isinstance(revision, bool) or not isinstance(revision, int)):
        raise BadFileError(f"{where}: field 'revision' is {revision!r}; expected a number or null")
    if not isinstance(turns, list) or not turns:
        raise BadFileError(f"{where}: field 'turns' is no list; expected the answer to each turn")
    told = [row.get(name, "") for name in ("system", "category", "model", "answer_id")]
    if not all(isinstance(text, str) for text in told):
        raise BadFileError(f"{where}: system, category, model or answer_id is no text; expected texts")
    name, category, model, answer = map(str, told)
    read = tuple(_turn(turn, f"{where}: turns[{number}]") for number, turn in enumerate(turns))
    return Answer(question_id, name, read, revision, category, model, answer)


def _turn(turn: Any, where: str) -> Turn:
    if not isinstance(turn, dict) or "text" not in turn:
        raise BadFileError(f"{where}: {str(turn)[:60]!r}; expected an object with a text")
    known = {each.name for each in fields(Turn)}
    for name, value in turn.items():
        if name not in known:
            raise BadFileError(f"{where}: unknown field '{name}'; expected {', '.join(sorted(known))}")
        if isinstance(value, bool) or not isinstance(value, _KINDS[name]):
            raise BadFileError(
                f"{where}: field '{name}' is a {type(value).__name__}; expected {_KINDS[name][0].__name__}"
            )
    return Turn(**turn)
