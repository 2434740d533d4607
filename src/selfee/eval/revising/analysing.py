"""Cases in, a group of figures out; everything else of this room is called from here."""

from __future__ import annotations

from collections.abc import Sequence

from selfee.eval.revising.cases import Case
from selfee.eval.revising.critics import critic_of
from selfee.eval.revising.result import Grader, Group
from selfee.eval.revising.rounds import attempts_of, delivery_of, rounds_of
from selfee.eval.revising.stopping import selections_of, stop_rules_of
from selfee.eval.revising.strategies import strategies_of
from selfee.eval.scoring.estimates import Resampling

INTERVALS = (
    "95 %. Shares of cases: Wilson's interval. Means, differences and everything about questions: 10,000 draws of as "
    "many questions with replacement, the same draws for every figure on the same number of questions. p-values: sign "
    "test over questions, two-sided, exact; not corrected for the number of comparisons."
)


def analyse(
    name: str,
    cases: Sequence[Case],
    *,
    source: str = "",
    grader: Grader | None = None,
    revisions: int | None = None,
    notes: Sequence[str] = (),
    resampling: Resampling | None = None,
) -> Group:
    """All figures about cases of one task. ``revisions`` were enforced (None: as many as the longest chain has).

    Without a grader only what chains look like and cost is told.
    """
    resampling = resampling or Resampling()
    most = max((case.chain.num_revisions for case in cases), default=0) if revisions is None else revisions
    failed = sum(
        step.check is not None and step.check.failed
        for case in cases
        for chain in (case.chain, *case.criticised, *case.plain, *(one for one in (case.longer, case.resampled) if one))
        for step in chain.steps
    )
    is_graded = grader is not None
    return Group(
        name=name,
        questions=len(cases),
        source=source,
        grader=grader,
        delivery=delivery_of(cases),
        attempts=attempts_of(cases, resampling),
        rounds=rounds_of(cases, resampling),
        critic=critic_of(cases) if is_graded else None,
        strategies=strategies_of(cases, most, resampling) if is_graded else (),
        selections=selections_of(cases, resampling) if is_graded else (),
        stop_rules=stop_rules_of(cases, most, resampling) if is_graded else (),
        check_failures=failed,
        notes=tuple(notes),
    )
