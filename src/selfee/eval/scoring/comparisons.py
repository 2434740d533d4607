"""Judgments sorted into comparisons: one model against one baseline, by one judge, question by question.

What is missing is a gap and has a name. Nothing is summed up over a comparison with gaps unless it was told to leave
out the questions that have one.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from selfee.errors import UsageError
from selfee.eval.scoring.estimates import Array, sums_by
from selfee.eval.scoring.judgment import Form, Judgment, Label, Shown

_Slot = tuple[str, bool, int]  # question, whether the model was shown first, repeat


@dataclass(frozen=True)
class Gap:
    """A judgment that should be there and is not, or says nothing."""

    question_id: str
    first: str  # titles of the answers, in the order in which the judge saw or should have seen them
    second: str
    reason: str  # a value of ``Unreadable``, or "missing"
    id: str = ""  # of the judgment, where there is one
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vote:
    """One readable judgment, seen from the model."""

    question_id: str
    category: str
    outcome: float  # 1 = the model wins, 0.5 = a tie, 0 = it loses
    model_first: bool | None  # None = the judge saw the answers one at a time
    model: Shown
    baseline: Shown
    model_score: float | None = None
    baseline_score: float | None = None
    preference: float | None = None  # probability that the model is better, as the judge's tokens say
    judgments: tuple[Judgment, ...] = ()

    @property
    def length_difference(self) -> float | None:
        """Characters that the model's answer is longer."""
        if self.model.length is None or self.baseline.length is None:
            return None
        return float(self.model.length - self.baseline.length)


@dataclass(frozen=True)
class Columns:
    """The votes of a comparison as arrays, one row a vote; NaN where a vote does not say it."""

    question: npt.NDArray[np.int64]  # index into ``Comparison.questions``
    outcome: Array
    model_score: Array
    baseline_score: Array
    preference: Array
    length_difference: Array
    model_first: Array  # 1, 0, or NaN


@dataclass(frozen=True)
class Comparison:
    """A model against a baseline, as one judge sees it."""

    model: str
    baseline: str
    judge: str
    form: Form
    votes: tuple[Vote, ...]
    gaps: tuple[Gap, ...] = ()
    left_out: tuple[str, ...] = ()  # questions left out because of gaps
    parameters: Mapping[str, object] = field(default_factory=dict)
    templates: tuple[str, ...] = ()

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """The questions with votes, in the order in which they first came."""
        return tuple(dict.fromkeys(vote.question_id for vote in self.votes))

    @cached_property
    def categories(self) -> Mapping[str, str]:
        """Each question's category."""
        return {vote.question_id: vote.category for vote in self.votes}

    @cached_property
    def has_both_orders(self) -> bool:
        """Whether the judge saw the two answers of each question in both orders."""
        seen = defaultdict(set)
        for vote in self.votes:
            seen[vote.question_id].add(vote.model_first)
        return bool(seen) and all({True, False} <= orders for orders in seen.values())

    @cached_property
    def columns(self) -> Columns:
        """The votes as arrays."""
        index = {question: number for number, question in enumerate(self.questions)}
        votes = self.votes

        def column(values: Iterable[float | bool | None]) -> Array:
            return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)

        return Columns(
            np.array([index[vote.question_id] for vote in votes], dtype=np.int64),
            column(vote.outcome for vote in votes),
            column(vote.model_score for vote in votes),
            column(vote.baseline_score for vote in votes),
            column(vote.preference for vote in votes),
            column(vote.length_difference for vote in votes),
            column(vote.model_first for vote in votes),
        )

    def by_question(self, values: Array) -> Array:
        """A column's sum for each question."""
        return sums_by(self.columns.question, values, len(self.questions))

    def of_category(self, category: str) -> Comparison:
        """Only the questions of one category."""
        return self.only({question for question, name in self.categories.items() if name == category})

    def only(self, questions: set[str]) -> Comparison:
        """Only some questions."""
        votes = tuple(vote for vote in self.votes if vote.question_id in questions)
        gaps = tuple(gap for gap in self.gaps if gap.question_id in questions)
        return Comparison(
            self.model, self.baseline, self.judge, self.form, votes, gaps, (), self.parameters, self.templates
        )

    def without_gaps(self) -> Comparison:
        """Only the questions that have no gap, which ``left_out`` then names."""
        bad = dict.fromkeys(gap.question_id for gap in self.gaps)
        votes = tuple(vote for vote in self.votes if vote.question_id not in bad)
        head = (self.model, self.baseline, self.judge, self.form)
        return Comparison(*head, votes, (), (*self.left_out, *bad), self.parameters, self.templates)


def compare_all(
    judgments: Sequence[Judgment], baseline: str | None = None, questions: Sequence[str] = ()
) -> list[Comparison]:
    """Every comparison that the judgments hold, those against the main baseline first.

    ``baseline`` is what others are compared with where it is one of the two; else ``choose_baseline`` chooses.
    ``questions`` are the ids that should have been judged, where they are known. Raises UsageError for a baseline that
    nothing was compared with, and for judgments that contradict each other by being there twice.
    """
    titles = {shown.title for each in judgments for shown in (each.first, each.second) if shown is not None}
    if baseline is not None and baseline not in titles:
        raise UsageError(f"baseline: {baseline!r} is in no judgment; expected one of {', '.join(sorted(titles))}")
    pairs: dict[tuple[object, ...], list[Judgment]] = defaultdict(list)
    singles: dict[tuple[object, ...], list[Judgment]] = defaultdict(list)
    for each in judgments:
        setting = (each.judge, each.form, repr(sorted(each.parameters.items())))
        if each.second is None:
            singles[setting].append(each)
        elif each.first.title != each.second.title:
            pairs[(*sorted((each.first.title, each.second.title)), *setting)].append(each)
    main = baseline or choose_baseline(judgments)
    found = [_pair(group, main, judgments, questions) for group in pairs.values()]
    found += [one for group in singles.values() for one in _single(group, main, questions)]
    return sorted(found, key=lambda each: each.baseline != main)  # stable: else in the order they came


def choose_baseline(judgments: Sequence[Judgment]) -> str:
    """What most others were compared with; of two that were only compared with each other, the one shown second."""
    partners = _partners([each for each in judgments if not _is_of_one_chain(each)])
    if not partners:  # revisions of one chain, or answers judged one at a time: the earliest, else what came first
        sides = (side for each in judgments for side in (each.first, each.second) if side is not None)
        titles = {side.title: side.revision for side in sides}
        return min(titles, key=lambda title: math.inf if (number := titles[title]) is None else number, default="")
    most = max(len(names) for names in partners.values())
    best = [title for title, names in partners.items() if len(names) == most]
    return best[-1]


def _is_of_one_chain(judgment: Judgment) -> bool:
    """Whether it compares two numbers of revisions of the same answers: then the smaller number is the baseline."""
    first, second = judgment.first, judgment.second
    if second is None or first.name != second.name:
        return False
    return first.revision is not None and second.revision is not None and first.revision != second.revision


def _partners(judgments: Sequence[Judgment]) -> dict[str, dict[str, None]]:
    partners: dict[str, dict[str, None]] = {}
    for each in judgments:
        if each.second is not None and each.first.title != each.second.title:
            partners.setdefault(each.first.title, {})[each.second.title] = None
            partners.setdefault(each.second.title, {})[each.first.title] = None
    return partners


def _pair(group: Sequence[Judgment], main: str, everything: Sequence[Judgment], questions: Sequence[str]) -> Comparison:
    model, baseline = _roles(group, main, everything)
    votes: list[Vote] = []
    unread: list[tuple[int, Gap]] = []
    slots: dict[_Slot, Judgment] = {}
    for each in group:
        assert each.second is not None
        slot = (each.question_id, each.first.title == model, each.repeat)
        if slot in slots and slots[slot] != each:
            raise UsageError(
                f"judgments: question {each.question_id}, {each.first.title} before {each.second.title}, was judged "
                f"twice by {each.judge} with equal parameters (templates {slots[slot].template!r} and "
                f"{each.template!r}); expected one judgment; name one of the files, or give repeats a number"
            )
        if slot in slots:
            continue
        slots[slot] = each
        if each.unreadable is not None:
            reason = each.unreadable.value
            gap = Gap(each.question_id, each.first.title, each.second.title, reason, each.id, each.notes)
            unread.append((each.repeat, gap))
        else:
            votes.append(_vote(each, each.first.title == model))
    whole = _whole_repeats(slots)
    votes = [vote for vote in votes if vote.judgments[0].repeat in whole]
    gaps = [gap for repeat, gap in unread if repeat in whole]
    slots = {slot: each for slot, each in slots.items() if slot[2] in whole}
    gaps += _missing(slots, model, baseline, questions)
    first = group[0]
    templates = tuple(dict.fromkeys(each.template for each in group))
    head = (model, baseline, first.judge, first.form)
    return Comparison(*head, tuple(votes), tuple(gaps), (), first.parameters, templates)


def _roles(group: Sequence[Judgment], main: str, everything: Sequence[Judgment]) -> tuple[str, str]:
    """Which of the two is the model: the one that is not the baseline, else the one that the baseline was used for."""
    first, second = group[0].first, group[0].second
    assert second is not None
    titles = first.title, second.title
    if _is_of_one_chain(group[0]):
        return titles if (first.revision or 0) > (second.revision or 0) else titles[::-1]
    if main in titles:
        return (titles[0], main) if titles[1] == main else (titles[1], main)
    known = _partners(everything).get(main, {})
    if (titles[0] in known) != (titles[1] in known):
        return titles if titles[0] in known else (titles[1], titles[0])
    return titles


def _whole_repeats(slots: Mapping[_Slot, Judgment]) -> set[int]:
    """The repeats that count: those asked for as often as the first time. Others only tell the judge's noise."""
    counts = Counter(repeat for _, _, repeat in slots)
    return {repeat for repeat, count in counts.items() if count >= counts[min(counts)]}


def _missing(slots: Mapping[_Slot, Judgment], model: str, baseline: str, questions: Sequence[str]) -> list[Gap]:
    """What should be there: each question that anything is known of, in every order and repeat that others have."""
    kinds = {(model_first, repeat) for _, model_first, repeat in slots}
    asked = list(dict.fromkeys([*questions, *(question for question, _, _ in slots)]))
    wanted = ((question, *kind) for question in asked for kind in sorted(kinds, reverse=True))
    found = []
    for question, model_first, repeat in wanted:
        if (question, model_first, repeat) not in slots:
            names = (model, baseline) if model_first else (baseline, model)
            found.append(Gap(question, *names, "missing"))
    return found


def _vote(each: Judgment, model_first: bool) -> Vote:
    assert each.second is not None
    model, baseline = (each.first, each.second) if model_first else (each.second, each.first)
    scores = each.scores
    if scores is not None:
        scores = scores if model_first else scores[::-1]
    preference = each.preference
    if preference is not None and not model_first:
        preference = 1.0 - preference
    winner = each.winner
    outcome = 0.5 if winner is Label.TIE else float((winner is Label.FIRST) is model_first)
    pair = scores if scores is not None else (None, None)
    return Vote(
        each.question_id, each.category, outcome, model_first, model, baseline, pair[0], pair[1], preference, (each,)
    )


def _single(group: Sequence[Judgment], main: str, questions: Sequence[str]) -> list[Comparison]:
    """Answers judged one at a time: every title against the baseline, question by question."""
    by_title: dict[str, dict[tuple[str, int], Judgment]] = defaultdict(dict)
    for each in group:
        by_title[each.first.title].setdefault((each.question_id, each.repeat), each)
    base = main if main in by_title else next(iter(by_title))
    found = []
    for title, mine in by_title.items():
        if title == base:
            continue
        votes, gaps = [], []
        wanted = dict.fromkeys([*((question, 0) for question in questions), *mine, *by_title[base]])
        for key in wanted:
            pair = mine.get(key), by_title[base].get(key)
            said = [each for each in pair if each is not None and each.scores is not None]
            if len(said) == 2:
                votes.append(_single_vote(said[0], said[1]))
                continue
            for name, one in zip((title, base), pair, strict=True):
                if one is None or one.unreadable is not None:
                    reason = "missing" if one is None or one.unreadable is None else one.unreadable.value
                    gaps.append(Gap(key[0], name, "", reason, one.id if one else "", one.notes if one else ()))
        templates = tuple(dict.fromkeys(each.template for each in group))
        head = (title, base, group[0].judge, group[0].form)
        found.append(Comparison(*head, tuple(votes), tuple(gaps), (), group[0].parameters, templates))
    return found


def _single_vote(mine: Judgment, other: Judgment) -> Vote:
    assert mine.scores is not None
    assert other.scores is not None
    a, b = mine.scores[0], other.scores[0]
    outcome = 0.5 if a == b else float(a > b)
    return Vote(mine.question_id, mine.category, outcome, None, mine.first, other.first, a, b, None, (mine, other))


def count_outcomes(votes: Iterable[Vote]) -> tuple[int, int, int]:
    """Wins, ties and losses of the model."""
    counts = Counter(vote.outcome for vote in votes)
    return counts[1.0], counts[0.5], counts[0.0]
