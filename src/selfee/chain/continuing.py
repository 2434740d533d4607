"""Going on with a chain that has ended or was stopped: one round more, or a revision after a person's own feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from selfee.chain.types import Chain, Step, Verdict, VerdictSource
from selfee.chain.verdict import NEEDED, find_verdict, joint
from selfee.errors import UsageError


def steps_of(chain: Chain) -> tuple[Step, ...]:
    """The steps of a chain as far as they are finished: where it can go on. Raises UsageError if there is none."""
    steps = list(chain.steps)
    while steps and not steps[-1].answer_finished:
        steps.pop()
    if not steps:
        raise UsageError("chain: no finished answer to go on from; expected at least one; ask again")
    last = steps[-1]
    if last.feedback is not None and (not last.feedback_finished or last.verdict is None):
        steps[-1] = replace(last, feedback=None, verdict=None, feedback_finished=True, feedback_cost=None)
    return tuple(steps)


def with_feedback(chain: Chain, feedback: str, number: int | None = None) -> tuple[Step, ...]:
    """The steps of a chain with a person's feedback on answer ``number`` (None: the last finished), which asks for a
    revision by being given; a sentence that says so is added where it does not. What followed that answer is dropped.

    Raises UsageError for empty feedback, and for an answer that is not a finished one.
    """
    words = feedback.strip()
    if not words:
        raise UsageError("feedback: is empty; expected what should become better")
    steps = list(steps_of(chain))
    if number is not None:
        if not 0 <= number < len(steps):
            raise UsageError(f"feedback: on answer {number} of {len(steps)}; expected 0 to {len(steps) - 1}")
        steps = steps[: number + 1]
    found = find_verdict(words)
    if found is None or not found.needed:
        words += joint(words) + NEEDED
    verdict = Verdict(needed=True, source=VerdictSource.USER)
    steps[-1] = replace(steps[-1], feedback=words, verdict=verdict, feedback_finished=True, overruled=None)
    return tuple(steps)


def check_start(start: Sequence[Step]) -> None:
    """Refuse steps that no chain could go on from. Raises UsageError naming the step."""
    for index, step in enumerate(start):
        is_last = index + 1 == len(start)
        if not step.answer_finished:
            raise UsageError(f"start: answer {index} is not finished; expected finished ones; use steps_of(chain)")
        if step.feedback is None and not is_last:
            raise UsageError(f"start: answer {index} has no feedback but a revision follows; expected feedback")
        if step.feedback is not None and step.verdict is None:
            raise UsageError(f"start: feedback {index + 1} has no verdict; expected one; use steps_of(chain)")
