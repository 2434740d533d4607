"""What is to be judged: pairs of systems, question by question, turn by turn, in both orders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from selfee.errors import UsageError
from selfee.eval.answers import Answer
from selfee.eval.questions import Question
from selfee.eval.scoring.judgment import Shown

Systems = Mapping[str, Sequence[Answer]]
"""Name of a system -> its answers."""


@dataclass(frozen=True)
class Item:
    """One judgment to ask for: one turn of a question, answers in one order."""

    question: Question
    turn: int
    first: Answer
    second: Answer | None = None
    repeat: int = 0
    is_swapped: bool = False  # the other order of a pair: two equal texts are asked for twice all the same

    @property
    def question_id(self) -> str:
        """The question's id; a later turn has its number behind it: a judgment of it is another one."""
        return self.question.id if self.turn == 0 else f"{self.question.id}/{self.turn + 1}"

    @property
    def answers(self) -> tuple[Answer, ...]:
        """What the judge is shown, in that order."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of answers that the judge is shown, those of earlier turns too."""
        return tuple(text for answer in self.answers for text in answer.texts[: self.turn + 1])

    def shown(self) -> tuple[Shown, ...]:
        """The answers as a judgment names them."""
        return tuple(
            Shown.of(
                answer.name,
                answer.texts[self.turn],
                tokens=answer.turns[self.turn].tokens,
                revision=answer.revision,
                answer_id=answer.answer_id,
            )
            for answer in self.answers
        )


@dataclass(frozen=True)
class Scope:
    """How much of everything is judged."""

    swaps: bool = True  # both orders
    repeats: int = 1  # how often each judgment is asked for, with another seed each time
    allow_missing: bool = False  # leave out questions that a system has not answered, instead of refusing

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UsageError(f"repeats: {self.repeats}; expected 1 or more")


def pairs_between(ones: Systems, others: Systems) -> list[tuple[str, str]]:
    """Every system of one file with every one of another, but none with itself. Raises UsageError if none is left."""
    pairs = [(one, other) for one in ones for other in others if one != other]
    if not pairs:
        raise UsageError(f"systems: {', '.join(ones)} on both sides; expected two different ones")
    return pairs


def pairs_of_rounds(systems: Systems, against: str = "previous") -> list[tuple[str, str]]:
    """Each number of revisions with the one before it, or with the first answer (``against`` "first").

    Raises UsageError for systems that hold no two numbers of revisions.
    """
    if against not in ("previous", "first"):
        raise UsageError(f"against: {against!r}; expected previous or first")
    numbered = sorted((given[0].revision, name) for name, given in systems.items() if given[0].revision is not None)
    names = [name for _, name in numbered]
    if len(names) < 2:
        raise UsageError(f"{', '.join(systems)}: nothing to compare it with; expected a second file of answers")
    return [(names[0 if against == "first" else place - 1], name) for place, name in enumerate(names) if place]


def plan_pairs(
    questions: Sequence[Question], systems: Systems, pairs: Iterable[tuple[str, str]], scope: Scope
) -> list[Item]:
    """The judgments of pairs, both orders of each beside each other. Raises UsageError naming what is missing."""
    known = _by_question(systems)
    items: list[Item] = []
    for one, other in pairs:
        for question in _answered(questions, known, (one, other), scope):
            first, second = known[one][question.id], known[other][question.id]
            for turn in range(_num_turns(question, first, second)):
                for repeat in range(scope.repeats):
                    items.append(Item(question, turn, first, second, repeat))
                    if scope.swaps:
                        items.append(Item(question, turn, second, first, repeat, True))
    return items


def plan_singles(questions: Sequence[Question], systems: Systems, scope: Scope) -> list[Item]:
    """The judgments of single answers. Raises UsageError naming what is missing."""
    known = _by_question(systems)
    return [
        Item(question, turn, known[name][question.id], None, repeat)
        for name in systems
        for question in _answered(questions, known, (name,), scope)
        for turn in range(_num_turns(question, known[name][question.id]))
        for repeat in range(scope.repeats)
    ]


def _by_question(systems: Systems) -> dict[str, dict[str, Answer]]:
    return {name: {answer.question_id: answer for answer in answers} for name, answers in systems.items()}


def _answered(
    questions: Sequence[Question], known: Mapping[str, Mapping[str, Answer]], names: Sequence[str], scope: Scope
) -> list[Question]:
    """The questions that all these systems have answered."""
    kept = []
    for question in questions:
        missing = [name for name in names if question.id not in known[name]]
        if not missing:
            kept.append(question)
        elif not scope.allow_missing:
            raise UsageError(
                f"{missing[0]}: has no answer to question {question.id!r}; expected one to each; answer it, or leave "
                "such questions out with --allow-missing"
            )
    if not kept:
        raise UsageError(f"{' and '.join(names)}: no question that all of them answered; expected some")
    return kept


def _num_turns(question: Question, *answers: Answer) -> int:
    """Turns that all of them answered. Raises UsageError for an answer with more turns than its question."""
    for answer in answers:
        if len(answer.turns) > len(question.turns):
            raise UsageError(
                f"{answer.system}: answers {len(answer.turns)} turns of question {question.id!r}, which has "
                f"{len(question.turns)}; expected no more"
            )
    return min(len(answer.turns) for answer in answers)
