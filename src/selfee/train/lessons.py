"""What is to be learned from a chain, as texts: an objective chooses, nothing is tokenised yet.

A lesson is learned to its end token only where the text itself says that no revision is needed: a model trained on an
end after "Revision is needed." learns to stop there (specification of the original, D23).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace

from selfee.chain.format import header, render_steps
from selfee.chain.types import Chain, Instruction, Section, Step
from selfee.chain.verdict import find_verdict, without_verdict
from selfee.errors import UsageError


class Objective(enum.Enum):
    """What a model learns from a chain."""

    FULL = "full"  # the whole chain, as SelFee was trained
    ANSWER_ONLY = "answer-only"  # the first answer alone
    FINAL_ONLY = "final-only"  # the delivered answer, as if it had been the first
    SPLIT = "split"  # each round by itself, as if it were the first


class Part(enum.Enum):
    """The parts of a lesson that are learned with a weight of their own, and whose losses are told apart."""

    PROMPT = "prompt"
    ANSWER = "answer"  # a first answer that stands
    FLAWED = "flawed"  # a first answer that is revised
    FEEDBACK = "feedback"  # its header and what it says, without the verdict
    VERDICT = "verdict"  # the sentence that asks for a revision or does not, and what follows it
    REVISION = "revision"
    END = "end"  # the end token


class RefusedError(Exception):
    """A chain gives no lesson; the message is one of few, to be counted."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a lesson's text that belongs to one part."""

    part: Part
    number: int  # of the feedback or revision, from 1; 0 for the first answer
    text: str


@dataclass(frozen=True)
class Lesson:
    """A chain, or a part of one, to be learned."""

    where: str
    instruction: Instruction
    steps: tuple[Step, ...]
    has_end: bool  # whether the end token follows and is learned
    learns_first: bool = True  # False: the first answer is only there to be criticised
    is_round: bool = False  # one round of a longer chain: nothing can be dropped from it

    @property
    def pieces(self) -> list[Piece]:
        """What follows the prompt; the texts joined are ``render_steps(steps)``."""
        pieces = []
        for index, step in enumerate(self.steps):
            if index:
                pieces.append(Piece(Part.REVISION, index, header(Section.REVISION, index) + step.answer))
            else:
                pieces.append(Piece(Part.FLAWED if len(self.steps) > 1 else Part.ANSWER, 0, step.answer))
            if step.feedback is not None:
                pieces += _feedback_pieces(step.feedback, index + 1)
        return pieces

    def without_first_round(self) -> Lesson | None:
        """The same without its oldest answer and the feedback on it: the rest renumbered; None if nothing is left.

        What is dropped is the worst answer; what stays are whole rounds, the last verdict and the end token. Raises
        RefusedError where a text would then be read as a header.
        """
        return None if self.is_round or len(self.steps) < 2 else _checked(replace(self, steps=self.steps[1:]))


def lessons_of(chain: Chain, objective: Objective, where: str = "") -> Iterator[Lesson]:
    """The lessons in a chain. Raises RefusedError if it is not sound."""
    instruction = chain.instruction
    if not instruction.text.strip():
        raise RefusedError("empty instruction")
    if objective is Objective.FINAL_ONLY:
        if chain.delivered is None:
            raise RefusedError("no finished answer")
        yield _checked(Lesson(where, instruction, (Step(chain.final),), True))
        return
    steps = _finished(chain)
    if objective is Objective.ANSWER_ONLY:
        yield _checked(Lesson(where, instruction, (Step(steps[0].answer),), True))
    elif objective is Objective.FULL:
        yield _checked(Lesson(where, instruction, steps, _ends_content(steps[-1])))
    else:
        yield from [_checked(lesson) for lesson in _rounds(where, instruction, steps)]


def _rounds(where: str, instruction: Instruction, steps: tuple[Step, ...]) -> Iterator[Lesson]:
    for index, step in enumerate(steps):
        is_last = index + 1 == len(steps)
        if is_last and index and step.feedback is None:
            return  # that revision is learned in the round before
        shown = (step,) if is_last else (step, Step(steps[index + 1].answer))
        # A later answer was written as a revision, and is learned as one in the round before.
        has_end = is_last and _ends_content(step)
        yield Lesson(where, instruction, shown, has_end, learns_first=index == 0, is_round=True)


def _finished(chain: Chain) -> tuple[Step, ...]:
    """The steps up to the first section that was cut off or says nothing."""
    steps: list[Step] = []
    for step in chain.steps:
        if not step.is_deliverable:
            break
        is_criticised = step.feedback_finished and bool((step.feedback or "").strip())
        steps.append(Step(step.answer, step.feedback if is_criticised else None))
        if not is_criticised:
            break
    if not steps:
        raise RefusedError("no finished answer")
    return tuple(steps)


def _ends_content(step: Step) -> bool:
    verdict = find_verdict(step.feedback or "")
    return verdict is not None and not verdict.needed


def _checked(lesson: Lesson) -> Lesson:
    try:
        text = render_steps(lesson.steps)
    except UsageError:
        raise RefusedError("cannot be written as one text") from None
    try:
        f"{lesson.instruction.question_in_context}{lesson.instruction.system}{text}".encode()
    except UnicodeEncodeError:
        raise RefusedError("not valid Unicode") from None
    return lesson


def _feedback_pieces(feedback: str, number: int) -> list[Piece]:
    before = without_verdict(feedback)
    pieces = [Piece(Part.FEEDBACK, number, header(Section.FEEDBACK, number) + before)]
    if len(before) < len(feedback):
        # Without a verdict ``before`` is the whole feedback, so what is left is never white space alone.
        pieces.append(Piece(Part.VERDICT, number, feedback[len(before) :]))
    return pieces
