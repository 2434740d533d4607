"""Chains that others made, read for analysis: SelFee's answer files and training records, and our own lines.

What such files do not tell is filled in from elsewhere where the user has it: tokens by counting, grades from reviews
and judgments of the same texts, or from problems with the same question.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfee.chain.checkers import Checker
from selfee.chain.format import header
from selfee.chain.record import from_answer, from_dataset, from_json
from selfee.chain.types import Chain, ChainEnd, Check, Cost, Section, Step
from selfee.errors import BadFileError
from selfee.eval.revising.cases import POINTS, RIGHT, Case, graded
from selfee.eval.rows import read_rows
from selfee.eval.scoring.judgment import Form, Judgment, text_hash
from selfee.eval.scoring.reviews import is_review, read_reviews

Count = Callable[[str], int]
"""Tokens of a text."""


@dataclass(frozen=True)
class Recorded:
    """The chains of one file."""

    name: str
    path: Path
    chains: Mapping[str, Chain]  # by question
    texts: Mapping[str, tuple[str, str]]  # answer id -> question and the text delivered


def read_recorded(path: str | Path, count: Count | None = None) -> Recorded:
    """The chains of a file, with their tokens where they can be counted. Raises BadFileError naming file and line.

    Of several chains of a question, as ``selfee answer`` writes, the one with the most revisions enforced counts; of a
    conversation the first turn.
    """
    path = Path(path)
    chains: dict[str, Chain] = {}
    enforced: dict[str, int] = {}
    texts: dict[str, tuple[str, str]] = {}
    for where, number, row in read_rows(path):
        if row.get("turn"):
            continue  # what follows in a conversation
        question, chain = _read(row, number, where)
        rank = max((system for system in row.get("systems", ()) if isinstance(system, int)), default=-1)
        if question in chains and rank == enforced[question]:
            raise BadFileError(f"{where}: question {question!r} comes twice; expected one chain each")
        if rank < enforced.get(question, -1):
            continue
        enforced[question] = rank
        chains[question] = chain if count is None else with_tokens(chain, count)
        if isinstance(row.get("answer_id"), str):
            texts[row["answer_id"]] = question, chain.final
    if not chains:
        raise BadFileError(f"{path}: no chains; expected at least one line")
    return Recorded(path.stem, path, chains, texts)


def _read(row: Mapping[str, Any], number: int, where: str) -> tuple[str, Chain]:
    if "whole_generation" in row:
        return str(row.get("question_id", number)), from_answer(row, where)
    if "outputs" in row:
        return str(number), from_dataset(row, where)
    for inner in (row, row.get("chain")):
        if isinstance(inner, Mapping) and "steps" in inner:
            return str(row.get("question_id", row.get("id", number))), from_json(inner, where)
    raise BadFileError(
        f"{where}: fields {', '.join(list(row)[:8])}; expected a chain: SelFee's answers (whole_generation), its "
        "training records (outputs) or our own (steps)"
    )


def with_tokens(chain: Chain, count: Count) -> Chain:
    """The chain with the tokens of every section, its header included, where it does not tell them itself."""
    steps = []
    for number, step in enumerate(chain.steps):
        section = Section.REVISION if number else Section.ANSWER
        answer_cost = step.answer_cost or Cost(count((header(section, number) if number else "") + step.answer))
        feedback_cost = step.feedback_cost
        if step.feedback is not None and feedback_cost is None:
            feedback_cost = Cost(count(header(Section.FEEDBACK, number + 1) + step.feedback))
        steps.append(replace(step, answer_cost=answer_cost, feedback_cost=feedback_cost))
    return replace(chain, steps=tuple(steps))


def ungraded_cases(recorded: Recorded) -> list[Case]:
    """The chains as cases that nothing grades."""
    return [Case(question, chain) for question, chain in recorded.chains.items()]


Grades = Mapping[tuple[str, str], float]
"""Question and hash of the text -> mean of the points that judges gave it."""


def grades_from(paths: Iterable[str | Path], recorded: Sequence[Recorded]) -> Grades:
    """What judges said about texts, from review files of 2023 and from our judgments.

    A text that was judged several times (both orders, in several files) has the mean of its points.
    """
    texts = {answer: place for each in recorded for answer, place in each.texts.items()}
    points: dict[tuple[str, str], list[float]] = defaultdict(list)
    for path in paths:
        rows = read_rows(path)
        first = next(rows, None)
        if first is None:
            raise BadFileError(f"{path}: no reviews; expected at least one line")
        if is_review(first[2]):
            _add_reviews(path, texts, points)
        else:
            for where, _, row in (first, *rows):
                _add_judgment(Judgment.from_row(row, where), points)
    return {place: sum(given) / len(given) for place, given in points.items()}


def _add_reviews(
    path: str | Path, texts: Mapping[str, tuple[str, str]], points: dict[tuple[str, str], list[float]]
) -> None:
    for review in read_reviews(path):
        for answer, score in zip(review.answer_ids, review.score, strict=True):
            if answer in texts and score >= 0:  # a failed reading was stored as -1
                question, text = texts[answer]
                points[question, text_hash(text)].append(score)


def _add_judgment(judgment: Judgment, points: dict[tuple[str, str], list[float]]) -> None:
    if judgment.scores is None or judgment.form not in (Form.PAIR_SCORES, Form.SINGLE_SCORE):
        return
    for shown, score in zip((judgment.first, judgment.second), judgment.scores, strict=False):
        if shown is not None and shown.sha256:
            points[judgment.question_id, shown.sha256].append(score)


def judged_cases(recorded: Recorded, grades: Grades) -> list[Case]:
    """The chains with the points of every text that was judged."""
    return [_judged(question, chain, grades) for question, chain in recorded.chains.items()]


def _judged(question: str, chain: Chain, grades: Grades) -> Case:
    steps = tuple(replace(step, check=_points(question, step.answer, grades)) for step in chain.steps)
    return Case(question, replace(chain, steps=steps), scale=POINTS)


def _points(question: str, text: str, grades: Grades) -> Check | None:
    score = grades.get((question, text_hash(text)))
    return None if score is None else Check(None, score)


def ladder(recorded: Sequence[Recorded], grades: Grades) -> list[Case]:
    """What each file delivers for a question, one after another, as if each were a revision of the one before.

    Files of the same model with more and more revisions enforced show so what enforcing did to what users get.
    """
    shared = [question for question in recorded[0].chains if all(question in each.chains for each in recorded)]
    cases = []
    for question in shared:
        chains = [each.chains[question] for each in recorded]
        steps = tuple(Step(chain.final, check=_points(question, chain.final, grades)) for chain in chains)
        cases.append(Case(question, Chain(chains[0].instruction, steps, ChainEnd.CAPPED), scale=POINTS))
    return cases


def checked_cases(recorded: Recorded, checkers: Mapping[str, Checker]) -> list[Case]:
    """The chains of questions for which there is a checker, every answer checked; ``checkers`` is by question text."""
    cases = []
    for question, chain in recorded.chains.items():
        checker = checkers.get(plain(chain.instruction.question))
        if checker is not None:
            cases.append(Case(question, graded(chain, checker), scale=RIGHT))
    return cases


def plain(text: str) -> str:
    """A question without what two copies of it may differ in."""
    return " ".join(text.split()).casefold()
