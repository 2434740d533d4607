"""How far two raters agree: a judge and people, or two judges."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selfee.eval.scoring.estimates import Array, Draws, Estimate, Resampling
from selfee.eval.scoring.judgment import Judgment, Label

_Case = tuple[str, str, str]  # question, and both titles in alphabetical order
_CLASSES = (Label.FIRST, Label.SECOND, Label.TIE)


@dataclass(frozen=True)
class Agreement:
    """Two raters on the same pairs of answers, each with one verdict a pair: both orders agree, else it is a tie."""

    rater: str
    other: str
    cases: int
    agree: Estimate  # share of equal verdicts: win, tie or loss
    kappa: Estimate  # Cohen's: 0 = as by chance, 1 = always
    agree_without_ties: Estimate  # share of equal verdicts where both name a winner
    table: tuple[tuple[int, ...], ...]  # rows the rater, columns the other: first, second, tie in alphabetical order


PEOPLE = "people"
"""The rater that all people together are: what most of them say, a tie where no verdict has most votes."""


def agreements(judgments: Sequence[Judgment], people: Sequence[Judgment], resampling: Resampling) -> list[Agreement]:
    """All pairs of judges that judged the same pairs of answers, and each judge with the people's majority."""
    verdicts = {rater: verdicts_of(judgments, rater) for rater in dict.fromkeys(each.judge for each in judgments)}
    if people:
        verdicts = {PEOPLE: majority_of(people), **verdicts}
    raters = list(verdicts)
    found = []
    for number, rater in enumerate(raters):
        for other in raters[number + 1 :]:
            common = [case for case in verdicts[rater] if case in verdicts[other]]
            if common:
                found.append(agreement(rater, other, verdicts[rater], verdicts[other], resampling))
    return found


def verdicts_of(judgments: Sequence[Judgment], rater: str) -> dict[_Case, Label]:
    """One rater's verdict on each pair: what all its judgments of the pair say, a tie where they differ."""
    said: dict[_Case, set[Label]] = defaultdict(set)
    for each in judgments:
        if each.judge == rater and each.second is not None and each.winner is not None:
            swapped = each.first.title > each.second.title
            titles = sorted((each.first.title, each.second.title))
            said[each.question_id, titles[0], titles[1]].add(_turned(each.winner) if swapped else each.winner)
    return {case: labels.pop() if len(labels) == 1 else Label.TIE for case, labels in said.items()}


def majority_of(people: Sequence[Judgment]) -> dict[_Case, Label]:
    """What most raters say of each pair."""
    votes: dict[_Case, Counter[Label]] = defaultdict(Counter)
    for rater in dict.fromkeys(each.judge for each in people):
        for case, label in verdicts_of(people, rater).items():
            votes[case][label] += 1
    found = {}
    for case, counts in votes.items():
        (label, most), *others = counts.most_common()
        found[case] = label if not others or others[0][1] < most else Label.TIE
    return found


def agreement(
    rater: str, other: str, mine: Mapping[_Case, Label], theirs: Mapping[_Case, Label], resampling: Resampling
) -> Agreement:
    """Figures on the pairs that both judged; intervals from drawing questions."""
    common = [case for case in mine if case in theirs]
    questions = list(dict.fromkeys(case[0] for case in common))
    index = {question: number for number, question in enumerate(questions)}
    tables_q = np.zeros((len(questions), 3, 3))
    for case in common:
        tables_q[index[case[0]], _CLASSES.index(mine[case]), _CLASSES.index(theirs[case])] += 1.0
    draws = Draws(len(questions), resampling)
    table = tables_q.sum(axis=0)
    drawn = np.einsum("dq,qij->dij", draws.counts, tables_q, optimize=True)
    cases = len(common)

    def figure(of: Array, of_drawn: Array) -> Estimate:
        value = float(of)
        return draws.estimate(value, of_drawn, cases) if np.isfinite(value) else Estimate(None, count=cases)

    return Agreement(
        rater,
        other,
        cases,
        figure(_agree(table), _agree(drawn)),
        figure(kappa(table), kappa(drawn)),
        figure(_agree(table[:2, :2]), _agree(drawn[:, :2, :2])),
        tuple(tuple(int(number) for number in row) for row in table),
    )


def kappa(tables: Array) -> Array:
    """Cohen's kappa of tables of counts (the last two axes); NaN where both raters always say the same one thing."""
    total = tables.sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.trace(tables, axis1=-2, axis2=-1) / total
        chance = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1) / total**2
        found: Array = np.asarray((observed - chance) / (1.0 - chance))
    return found


def _agree(tables: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = np.asarray(np.trace(tables, axis1=-2, axis2=-1) / tables.sum(axis=(-2, -1)))
    return found


def _turned(label: Label) -> Label:
    return {Label.FIRST: Label.SECOND, Label.SECOND: Label.FIRST, Label.TIE: Label.TIE}[label]
