"""Controls: an answer judged against itself with a change that makes it no better. What the change gains is bias.

Their sets of answers are named ``NAME (control: KIND)``, as ``selfee judge`` names them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfee.eval.scoring.comparisons import compare_all
from selfee.eval.scoring.estimates import Draws, Estimate, Resampling, sums_by
from selfee.eval.scoring.judgment import Judgment

_CONTROL = re.compile(r" \(control: ([a-z-]+)\)$")


@dataclass(frozen=True)
class Control:
    """What a judge makes of one kind of change."""

    kind: str  # same, padded, instructed, empty
    judgments: int
    wins: Estimate  # share of judgments that the changed answer wins
    loses: Estimate
    gain: Estimate  # the first minus the second: 0 for a judge that the change does not move


def kind_of(name: str) -> str:
    """The kind of control that a set of answers is; "" for none."""
    found = _CONTROL.search(name)
    return found[1] if found else ""


def is_control(judgment: Judgment) -> bool:
    """Whether one of the answers shown is a control."""
    return any(shown is not None and kind_of(shown.name) for shown in (judgment.first, judgment.second))


def control_figures(judgments: Sequence[Judgment], resampling: Resampling) -> list[Control]:
    """One judge's controls, by kind; questions with an unreadable judgment are left out."""
    mine = [each for each in judgments if is_control(each) and each.second is not None]
    kinds = dict.fromkeys(kind for each in mine for kind in _kinds(each))
    found = []
    for kind in kinds:
        some = [each for each in mine if kind in _kinds(each)]
        votes = []
        for comparison in compare_all(some):
            turned = kind_of(comparison.baseline) == kind
            whole = comparison.without_gaps() if comparison.gaps else comparison
            votes += [(vote.question_id, 1.0 - vote.outcome if turned else vote.outcome) for vote in whole.votes]
        if votes:
            found.append(_figures(kind, votes, resampling))
    return found


def _kinds(judgment: Judgment) -> list[str]:
    names = [shown.name for shown in (judgment.first, judgment.second) if shown is not None]
    return [kind for name in names if (kind := kind_of(name))]


def _figures(kind: str, votes: Sequence[tuple[str, float]], resampling: Resampling) -> Control:
    names = list(dict.fromkeys(question for question, _ in votes))
    where = np.array([names.index(question) for question, _ in votes])
    outcome = np.array([value for _, value in votes])
    sizes = np.bincount(where, minlength=len(names)).astype(np.float64)
    draws = Draws(len(names), resampling)

    def mean(values: np.typing.NDArray[np.float64]) -> Estimate:
        return draws.ratio(sums_by(where, values, len(names)), sizes, len(votes))

    wins, loses = (outcome == 1.0).astype(np.float64), (outcome == 0.0).astype(np.float64)
    return Control(kind, len(votes), mean(wins), mean(loses), mean(wins - loses))
