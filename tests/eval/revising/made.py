"""Chains made by hand, so that every figure about them can be worked out on paper."""

from __future__ import annotations

from collections.abc import Sequence

from selfee.chain.types import Chain, ChainEnd, Check, Cost, CutReason, Instruction, Step, Verdict
from selfee.chain.votes import last_number
from selfee.eval.revising.cases import Case

ASKED = Instruction("How many?")


def step(
    answer: str,
    right: bool | None,
    *,
    needed: bool | None = None,
    probability: float | None = None,
    feedback: str | None = None,
    tokens: int = 10,
    feedback_tokens: int = 5,
    finished: bool = True,
    points: float | None = None,
) -> Step:
    """An answer; with ``needed`` also the critic's verdict on it."""
    has_feedback = needed is not None or feedback is not None
    words = feedback or ("Revision is needed." if needed else "Revision is not needed.")
    return Step(
        answer,
        words if has_feedback else None,
        None if needed is None else Verdict(needed, probability=probability),
        answer_finished=finished,
        answer_cost=Cost(tokens, prompt_tokens=100),
        feedback_cost=Cost(feedback_tokens, prompt_tokens=50) if has_feedback else None,
        check=Check(right, points) if right is not None or points is not None else None,
    )


def chain(*steps: Step, end: ChainEnd = ChainEnd.CAPPED) -> Chain:
    """A chain of these steps."""
    return Chain(ASKED, steps, end, cut=CutReason.LENGTH if end is ChainEnd.CUT_OFF else None)


def attempt(answer: str, right: bool, **more: float | bool | None) -> Chain:
    """A separate attempt."""
    return chain(step(answer, right, **more))  # type: ignore[arg-type]


def case(own: Chain, criticised: Sequence[Chain] = (), plain: Sequence[Chain] = (), name: str = "q") -> Case:
    """A question with these chains; votes are about the last number."""
    return Case(name, own, tuple(criticised), tuple(plain), extractor=last_number)
