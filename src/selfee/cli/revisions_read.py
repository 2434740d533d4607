"""The reading half of ``selfee revisions``: chains that others made, with points from judges or checked anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfee.cli.output import Screen, for_terminal
from selfee.errors import UsageError

if TYPE_CHECKING:
    from selfee.chain.checkers import Checker
    from selfee.eval.revising.cases import Case
    from selfee.eval.revising.reading import Recorded
    from selfee.eval.revising.result import Grader, Group


def analyse_recorded(
    answers: Sequence[Path],
    reviews: Sequence[Path],
    tokenizer: str | None,
    problems: Sequence[Path],
    stderr: Screen | None,
) -> tuple[list[Group], dict[str, Any]]:
    """A group for each file; with judges' points also one for what the files deliver, one after another."""
    from selfee.eval.revising.analysing import analyse
    from selfee.eval.revising.reading import grades_from, judged_cases, ladder, read_recorded, ungraded_cases
    from selfee.eval.revising.result import Grader

    if reviews and problems:
        raise UsageError("--reviews and problems: both given; expected one of them to say how good answers are")
    count = None if tokenizer is None else _counter(tokenizer)
    recorded = [read_recorded(path, count) for path in answers]
    settings: dict[str, Any] = {
        "answers": [path.name for path in answers],
        "tokenizer": tokenizer and Path(tokenizer).name,
    }
    if problems:
        return _checked(recorded, problems, stderr), settings | {"questions": [path.name for path in problems]}
    if not reviews:
        return [analyse(each.name, ungraded_cases(each), source=each.path.name) for each in recorded], settings
    settings["reviews"] = [path.name for path in reviews]
    grades, grader = grades_from(reviews, recorded), Grader("judges", "external", "points")
    groups = [
        analyse(each.name, judged_cases(each, grades), source=each.path.name, grader=grader, notes=_JUDGED)
        for each in recorded
    ]
    if len(recorded) > 1:
        steps = ", ".join(f"{number} = {each.name}" for number, each in enumerate(recorded))
        note = f"each 'revision' is what the next file delivers for the same question: {steps}"
        name = "delivered, file after file"
        groups.append(analyse(name, ladder(recorded, grades), source="all files", grader=grader, notes=[note]))
    return groups, settings


_JUDGED = (
    "points: the mean over all judgments of the same text. An answer that no judge saw has none, so rows may be about "
    "different questions: compare them by their difference, which is taken question by question",
    "verdicts as the file has them: SelFee's enforcement rewrote those that were content, and the file does not say "
    "which",
)


def _checked(recorded: Sequence[Recorded], problems: Sequence[Path], stderr: Screen | None) -> list[Group]:
    from selfee.eval.revising.analysing import analyse
    from selfee.eval.revising.grading import checker_of, grader_of, sandbox_notes
    from selfee.eval.revising.problems import read_problems
    from selfee.eval.revising.reading import checked_cases, plain

    groups = []
    for path in problems:
        read = read_problems(path)
        checkers: dict[str, Checker] = {plain(each.question): checker_of(each) for each in read}
        for each in recorded:
            if stderr is not None:
                stderr.write(stderr.style(f"checking {for_terminal(each.name)} …", "dim") + "\n")
            cases: list[Case] = checked_cases(each, checkers)
            if not cases:
                raise UsageError(f"{each.path}: asks none of the questions of {path}; expected the same questions")
            grader: Grader = grader_of(read[0].task)
            notes = [
                *sandbox_notes([read[0].task]),
                f"{len(cases)} of {len(each.chains)} chains ask a question of {path.name}",
            ]
            groups.append(analyse(each.name, cases, source=each.path.name, grader=grader, notes=notes))
    return groups


def _counter(tokenizer: str) -> Callable[[str], int]:
    """Counts the tokens of a text with the vocabulary of a model file."""
    from selfee.cli.model_file import local_file
    from selfee.llama.tokenizer import load_tokenizer
    from selfee.weights.open import open_checkpoint

    with open_checkpoint(local_file(tokenizer)) as checkpoint:
        loaded = load_tokenizer(checkpoint.vocab)
    return lambda text: len(loaded.encode(text, add_bos=False))
