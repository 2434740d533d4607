"""What a folder holds: judgments, the answers and chains that were judged, questions, labels by people, an analysis.

Files are known by what their first line says, not by their names. Review files of 2023 are read too; the answers and
questions that belong to them are looked for in the folders beside them (``answer/``, ``template/question.jsonl``), as
the original and FastChat keep them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selfee.chain.record import from_answer, from_json
from selfee.chain.types import Chain
from selfee.errors import BadFileError, SelfeeError, UsageError
from selfee.eval.answers import Answer, read_answers
from selfee.eval.questions import Question, read_questions
from selfee.eval.reporting.people import is_label, read_labels
from selfee.eval.rows import read_rows
from selfee.eval.scoring.judgment import Judgment, Shown, text_hash
from selfee.eval.scoring.reviews import Review, is_review, judgment_of, names_of, read_reviews

ANALYSIS = "analysis.json"
_SUBFOLDERS = ("answers", "judgments", "answer", "chains", "people")
_ANSWERS_BESIDE = ("answer", "answers")
_QUESTIONS_BESIDE = ("template/question.jsonl", "question.jsonl", "questions.jsonl")
_MOST_FILES = 2000
_MANIFEST = "manifest.json"

Key = tuple[str, str]
"""Title of an answers' set, and question id."""


@dataclass(frozen=True)
class Material:
    """What a report is made of."""

    folder: Path
    judgments: tuple[Judgment, ...]
    reviews: tuple[Review, ...] = ()  # those of the judgments that are lines of review files
    questions: Mapping[str, Question] = field(default_factory=dict)
    answers: Mapping[Key, Answer] = field(default_factory=dict)
    chains: Mapping[Key, Chain] = field(default_factory=dict)
    people: tuple[Judgment, ...] = ()
    analysis: Path | None = None
    expected: tuple[str, ...] = ()  # ids of the questions that should have been judged, where that is known
    files: Mapping[str, str] = field(default_factory=dict)  # file -> what it is
    notes: tuple[str, ...] = ()  # what could not be used


@dataclass
class _Found:
    """What has been found so far."""

    judgments: list[Judgment] = field(default_factory=list)
    review_files: list[Path] = field(default_factory=list)
    questions: dict[str, Question] = field(default_factory=dict)
    answer_files: list[Path] = field(default_factory=list)
    chains: dict[Key, Chain] = field(default_factory=dict)
    chains_by_id: dict[str, Chain] = field(default_factory=dict)
    people: list[Judgment] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_folder(
    folder: str | Path,
    *,
    answers: Sequence[str | Path] = (),
    questions: str | Path | None = None,
    people: Sequence[str | Path] = (),
) -> Material:
    """Everything in a folder that a report can use; or one file of judgments or reviews.

    ``answers``, ``questions`` and ``people`` are files (or folders of answers) that lie elsewhere. Raises UsageError
    for a folder without judgments and BadFileError for a damaged file.
    """
    folder, found = Path(folder), _Found()
    if not folder.exists():
        raise UsageError(f"{folder}: does not exist; expected a folder of judgments or of review files")
    for path in _files_of(folder):
        _take(path, found)
    home = folder if folder.is_dir() else folder.parent
    if found.review_files:
        _look_beside(home, found, bool(answers), questions is not None)
    if questions is not None:
        found.questions = _questions(Path(questions))
        found.files[str(questions)] = "questions"
    for given in answers:
        found.answer_files += [path for path in _files_of(Path(given)) if path.suffix == ".jsonl"]
    for given in people:
        found.people += read_labels(given)
        found.files[str(given)] = "labels by people"
    found.notes += _stopped_runs(home / _MANIFEST)
    return _material(folder, home, found)


def _stopped_runs(manifest: Path) -> list[str]:
    """What a run of judgments says about having been stopped before its end."""
    try:
        row = json.loads(manifest.read_bytes())
        runs = row["judgments"].items()
        return [f"{name}: the run was stopped: {entry['stopped']}" for name, entry in runs if entry.get("stopped")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []  # no manifest, or one of another program


def _files_of(folder: Path) -> list[Path]:
    """The files of a folder and of those of its subfolders that hold such files, in order."""
    if folder.is_file():
        return [folder]
    places = [folder, *(folder / name for name in _SUBFOLDERS)]
    files = [path for place in places if place.is_dir() for path in sorted(place.iterdir())]
    files = [path for path in files if path.suffix in (".jsonl", ".json") and path.is_file()]
    if len(files) > _MOST_FILES:
        raise UsageError(f"{folder}: {len(files)} files; expected {_MOST_FILES} at most; name a smaller folder")
    return files


def _take(path: Path, found: _Found) -> None:
    """Read one file by what its first line says it is."""
    if path.name == ANALYSIS or path.suffix == ".json":
        return
    row = _first_row(path)
    kind = _kind_of(row)
    if kind == "judgments":
        found.judgments += [Judgment.from_row(row, where) for where, _, row in _whole_rows(path)]
    elif kind == "reviews":
        found.review_files.append(path)
    elif kind == "questions":
        found.questions |= _questions(path)
    elif kind == "answers":
        found.answer_files.append(path)
    elif kind == "labels by people":
        found.people += read_labels(path)
    elif kind == "chains":
        _take_chains(path, found)
    else:
        found.notes.append(f"{path.name}: of no kind that a report uses; passed over")
        return
    found.files[path.name] = kind


def _kind_of(row: Mapping[str, Any]) -> str:
    fields = set(row)
    kinds = (
        ("judgments", {"schema", "form", "judge", "first"} <= fields),
        ("reviews", is_review(row)),
        ("labels by people", is_label(row)),
        ("answers", {"question_id", "system", "turns"} <= fields or {"question_id", "choices"} <= fields),
        ("chains", {"id", "question_id", "steps"} <= fields),
        ("questions", {"id", "turns"} <= fields or {"question_id", "turns"} <= fields),
        ("answers", {"question_id", "text"} <= fields and bool({"answer_id", "model_id", "generation"} & fields)),
        ("questions", {"question_id", "text", "category"} <= fields),
    )
    return next((kind for kind, fits in kinds if fits), "")


def _first_row(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    row = json.loads(line)
                    return row if isinstance(row, dict) else {}
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read ({error.strerror}); expected a file of JSON lines") from error
    except (ValueError, RecursionError):
        return {}
    return {}


def _whole_rows(path: Path) -> Iterable[tuple[str, int, dict[str, Any]]]:
    """Rows of a journal: a last line without its end is what a killed process left, and is passed over."""
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        try:
            json.loads(data[data.rfind(b"\n") + 1 :])
        except ValueError:
            lines = data[: data.rfind(b"\n") + 1].splitlines()
            return [(f"{path}:{number}", number, json.loads(line)) for number, line in enumerate(lines, 1) if line]
    return read_rows(path)


def _questions(path: Path) -> dict[str, Question]:
    return {question.id: question for question in read_questions(path)}


def _take_chains(path: Path, found: _Found) -> None:
    for where, _, row in _whole_rows(path):
        found.chains_by_id[str(row["id"])] = from_json(row, where)


def _look_beside(folder: Path, found: _Found, has_answers: bool, has_questions: bool) -> None:
    """The answers and questions of review files lie in folders of fixed names beside theirs."""
    if not has_answers and not found.answer_files:
        for name in _ANSWERS_BESIDE:
            beside = folder.parent / name
            if beside.is_dir():
                found.answer_files += [path for path in _files_of(beside) if _kind_of(_first_row(path)) == "answers"]
    if not has_questions and not found.questions:
        paths = (place / name for place in (folder, folder.parent) for name in _QUESTIONS_BESIDE)
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            found.questions = _questions(path)
            found.files[f"{path.parent.name}/{path.name}"] = "questions"


def _material(given: Path, home: Path, found: _Found) -> Material:
    asked = {question.turns[0]: question.id for question in found.questions.values()}
    answers: dict[Key, Answer] = {}
    for path in dict.fromkeys(found.answer_files):
        for answer in read_answers(path, asked):
            answers[answer.system, answer.question_id] = answer
        _take_historical_chains(path, found)
        found.files.setdefault(path.name, "answers")
    for key, answer in answers.items():
        chain = found.chains_by_id.get(answer.turns[-1].chain)
        if chain is not None:
            found.chains[key] = _own_part(chain, answer)
    reviews: list[Review] = []
    for path in found.review_files:
        some = read_reviews(path)
        reviews += some
        found.judgments += _judgments_of(path, some, answers, found)
    analysis = home / ANALYSIS
    if not found.judgments and not analysis.is_file():
        raise UsageError(
            f"{given}: holds no judgments; expected what selfee judge or selfee revisions wrote, or review files of "
            "2023; run one of them first"
        )
    return Material(
        home,
        tuple(_completed(each, answers, found.questions) for each in found.judgments),
        tuple(reviews),
        found.questions,
        answers,
        found.chains,
        tuple(found.people),
        analysis if analysis.is_file() else None,
        tuple(found.questions) if reviews else (),
        found.files,
        tuple(found.notes),
    )


def _own_part(chain: Chain, answer: Answer) -> Chain:
    """One long chain serves several numbers of revisions: each has its beginning, and what it delivered."""
    steps = chain.steps if answer.revision is None else chain.steps[: answer.revision + 1]
    delivered = answer.turns[-1].delivered
    is_known = delivered is not None and delivered < len(steps)
    return replace(chain, steps=steps, selected=delivered if is_known else None)


def _take_historical_chains(path: Path, found: _Found) -> None:
    """The whole generations of the original's answer files."""
    for where, _, row in read_rows(path):
        if isinstance(row.get("whole_generation"), str):
            try:
                found.chains[path.stem, str(row.get("question_id"))] = from_answer(row, where)
            except SelfeeError as error:
                found.notes.append(str(error))


def _judgments_of(
    path: Path, reviews: Sequence[Review], answers: Mapping[Key, Answer], found: _Found
) -> list[Judgment]:
    """The reviews of one file as judgments of the answers that they name by id, or that their file names."""
    names = names_of(path.name) or ("first answer", "second answer")
    by_id = {answer.answer_id: answer for answer in answers.values()}
    by_name = {(_plain(title), question): answer for (title, question), answer in answers.items()}
    judgments = []
    for review in reviews:
        shown = []
        for name, told in zip(names, review.answer_ids, strict=True):
            answer = by_id.get(told) if told else by_name.get((_plain(name), review.question_id))
            if answer is not None and answer.question_id != review.question_id:
                raise BadFileError(
                    f"{review.where}: answer {told} belongs to question {answer.question_id}; expected question "
                    f"{review.question_id}"
                )
            shown.append(_shown(name, told, answer))
        question = found.questions.get(review.question_id)
        judgments.append(judgment_of(review, shown, question.category if question else ""))
    return judgments


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _shown(name: str, told: str, answer: Answer | None) -> Shown:
    if answer is None:
        return Shown(name, answer_id=told)
    return Shown.of(name, answer.turns[-1].text, answer_id=answer.answer_id, tokens=answer.turns[-1].tokens)


def _completed(judgment: Judgment, answers: Mapping[Key, Answer], questions: Mapping[str, Question]) -> Judgment:
    """A judgment whose category is filled in where only the question's file knows it."""
    question = question_of(judgment.question_id, questions)
    if judgment.category or question is None or not question.category:
        return judgment
    return replace(judgment, category=question.category)


def question_of(identity: str, questions: Mapping[str, Question]) -> Question | None:
    """The question of a judgment; a later turn of a question has its number behind the id: ``81/2``."""
    return questions.get(identity) or questions.get(identity.rpartition("/")[0])


def answer_hashes(material: Material) -> dict[str, str]:
    """Every answer's text by its hash."""
    texts = (turn.text for answer in material.answers.values() for turn in answer.turns)
    return {text_hash(text): text for text in texts}
