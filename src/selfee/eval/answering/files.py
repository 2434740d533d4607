"""What a run of answers leaves behind: answers, chains, the original's answer files, and how all was made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfee.chain.record import to_answer, to_json
from selfee.chain.run import choose_mode
from selfee.chain.shorter import shorten
from selfee.errors import BadFileError, UsageError
from selfee.eval.answering.plan import Made, Plan, collect
from selfee.eval.answers import Answer, answer_id
from selfee.eval.folder import Folder
from selfee.eval.questions import Question
from selfee.jsonl import write_jsonl


def write_all(folder: Folder, questions: Sequence[Question], plan: Plan, made: Sequence[Made]) -> list[Answer]:
    """Write everything; the same chains give the same bytes. Returns the answers."""
    answers = collect(questions, plan, made)
    write_jsonl(folder.answers(plan.name), (answer.as_row() for answer in answers))
    places = {question.id: place for place, question in enumerate(questions)}
    in_order = sorted(made, key=lambda one: (places[one.job.question.id], one.job.turn, one.job.systems[0] or 0))
    write_jsonl(folder.chains(plan.name), (_chain_row(one) for one in in_order))
    for system in plan.systems:
        rows = [row for one in in_order if (row := _original_row(one, system)) is not None]
        if rows:
            write_jsonl(folder.original(original_name(plan.name, system)), rows)
    return answers


def original_name(name: str, system: int | None) -> str:
    """How the original's release names an answer file."""
    return f"{name}_autonomous" if system is None else f"{name}_enforce_{system}_revisions"


def describe(plan: Plan, engine: object, questions: Sequence[Question], more: Mapping[str, Any]) -> dict[str, Any]:
    """How answers were made: everything needed to make them again."""
    said = "\n".join(question.sha256 for question in questions)
    params = asdict(plan.params) | {"logit_bias": {str(k): str(v) for k, v in plan.params.logit_bias.items()}}
    return {
        "model": plan.model,
        "revisions": plan.revisions,
        "enforced": plan.enforces,
        "stop_repeats": plan.stop_repeats,
        "mode": choose_mode(engine, plan.mode),
        "prompts": plan.prompts,
        "params": params,
        "budgets": asdict(plan.budgets),
        "questions": len(questions),
        "questions_sha256": hashlib.sha256(said.encode()).hexdigest(),
    } | dict(more)


def model_sha256(path: Path) -> str:
    """The checksum of a model file, or of all files of a model's folder. Raises BadFileError."""
    files = [path] if path.is_file() else sorted(each for each in path.iterdir() if each.is_file())
    total = hashlib.sha256()
    try:
        for each in files:
            with each.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            if path.is_file():
                return digest.hexdigest()
            total.update(each.name.encode() + b"\0" + digest.digest())
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read ({error.strerror}); expected a model") from error
    return total.hexdigest()


def _chain_row(one: Made) -> dict[str, Any]:
    job = one.job
    systems = ["auto" if system is None else system for system in job.systems]
    ids = {"id": job.chain_id, "question_id": job.question.id, "turn": job.turn, "systems": systems}
    return ids | to_json(one.chain)


def _original_row(one: Made, system: int | None) -> dict[str, Any] | None:
    """A row of the original's answer file; None for later turns, and for texts that its format cannot hold."""
    if one.job.turn or system not in one.job.systems:
        return None
    chain = shorten(one.chain, one.job.plan.policy(system))
    question: int | str = int(one.job.question.id) if one.job.question.id.isdecimal() else one.job.question.id
    name = f"{one.job.plan.name}@{'auto' if system is None else system}"
    try:
        return to_answer(chain, question, answer_id(one.job.question.id, name, [chain.final]), name)
    except UsageError:  # a text of it would be read as a header
        return None
