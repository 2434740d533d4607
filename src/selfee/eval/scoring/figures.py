"""All figures of a set of judgments: what each model scores, how sure that is, and what kind of judge said it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from selfee.errors import UsageError
from selfee.eval.scoring.agreement import Agreement, agreements
from selfee.eval.scoring.bias import JudgeFigures, judge_figures, order_agreement
from selfee.eval.scoring.comparisons import Comparison, Gap, compare_all, count_outcomes
from selfee.eval.scoring.controls import is_control
from selfee.eval.scoring.estimates import NO_ESTIMATE, Array, Draws, Estimate, Resampling, holm, sign_test
from selfee.eval.scoring.judgment import Form, Judgment
from selfee.eval.scoring.length import LengthControl, control_length, control_length_and_difficulty


@dataclass(frozen=True)
class Scores:
    """What a model scores against a baseline on some questions."""

    questions: int
    judgments: int
    relative: Estimate  # percent: sum of the model's scores over sum of the baseline's; value None without scores
    wins: int  # judgments
    ties: int
    losses: int
    win_rate: Estimate  # share, a tie counts a half


@dataclass(frozen=True)
class PairFigures:
    """One comparison, summed up, or why it is not."""

    model: str
    baseline: str
    judge: str
    form: Form
    both_orders: bool
    scores: Scores | None  # None = withheld because of gaps
    gaps: tuple[Gap, ...] = ()
    left_out: tuple[str, ...] = ()  # questions, because of gaps
    categories: Mapping[str, Scores] = field(default_factory=dict)
    better: int = 0  # questions where the model wins, all judgments of the question together
    worse: int = 0
    sign_p: float = 1.0  # two-sided sign test of better against worse
    holm_p: float = 1.0  # corrected for all comparisons of the report
    agreement: Estimate = NO_ESTIMATE  # of the two orders
    pooled: Estimate = NO_ESTIMATE  # the relative score where equal texts have been given one score
    soft_win_rate: Estimate = NO_ESTIMATE  # mean probability that the model is better, where the judge tells it
    length: LengthControl | None = None
    length_and_difficulty: LengthControl | None = None
    mean_score: float | None = None
    mean_baseline_score: float | None = None
    model_revision: int | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    templates: tuple[str, ...] = ()

    @property
    def said_by(self) -> str:
        """The judge and what it was asked for."""
        return f"{self.judge}, {self.form.value}"


@dataclass(frozen=True)
class Difference:
    """Two models against the same baseline on the same questions: the first minus the second."""

    model: str
    other: str
    baseline: str
    judge: str
    form: Form
    questions: int
    relative: Estimate  # percentage points
    win_rate: Estimate  # share
    better: int
    worse: int
    sign_p: float
    holm_p: float = 1.0

    @property
    def said_by(self) -> str:
        """The judge and what it was asked for."""
        return f"{self.judge}, {self.form.value}"


@dataclass(frozen=True)
class Figures:
    """Everything that judgments say."""

    pairs: tuple[PairFigures, ...]
    differences: tuple[Difference, ...]
    judges: tuple[JudgeFigures, ...]
    agreements: tuple[Agreement, ...]
    resampling: Resampling
    baseline: str
    comparisons: tuple[Comparison, ...] = ()  # the votes behind ``pairs``, in the same order

    @property
    def withheld(self) -> tuple[PairFigures, ...]:
        """Comparisons that were not summed up."""
        return tuple(pair for pair in self.pairs if pair.scores is None)


def sum_up(
    judgments: Sequence[Judgment],
    *,
    resampling: Resampling | None = None,
    baseline: str | None = None,
    questions: Sequence[str] = (),
    allow_gaps: bool = False,
    people: Sequence[Judgment] = (),
    speaking: frozenset[str] = frozenset(),
) -> Figures:
    """All figures of the judgments. ``people`` are labels by human raters, against which judges are held.

    Without ``allow_gaps`` nothing is said about a comparison of which a judgment is missing or unreadable; with it, the
    questions that have a gap are left out. ``speaking`` are hashes of answers that speak to the judge.
    """
    if not judgments:
        raise UsageError("judgments: none found; expected at least one; run selfee judge first")
    resampling = resampling or Resampling()
    models = [each for each in judgments if not is_control(each)]
    whole = compare_all(models, baseline, questions) if models else []
    used = [each.without_gaps() if allow_gaps and each.gaps else each for each in whole]
    pooled = _pooled_scores(judgments)
    pairs = [
        _pair_figures(each, before.gaps, used, resampling, pooled) for each, before in zip(used, whole, strict=True)
    ]
    summed = [place for place, pair in enumerate(pairs) if pair.scores is not None]
    for place, p in zip(summed, holm([pairs[place].sign_p for place in summed]), strict=True):
        pairs[place] = replace(pairs[place], holm_p=p)
    differences = _differences([each for each in used if not each.gaps and each.votes], resampling)
    main = whole[0].baseline if whole else ""
    judges = dict.fromkeys(each.judge for each in judgments)
    return Figures(
        tuple(pairs),
        tuple(differences),
        tuple(_judge(name, judgments, whole, resampling, speaking) for name in judges),
        tuple(agreements(models, people, resampling)),
        resampling,
        main,
        tuple(used),
    )


def _judge(
    name: str,
    judgments: Sequence[Judgment],
    comparisons: Sequence[Comparison],
    resampling: Resampling,
    speaking: frozenset[str],
) -> JudgeFigures:
    """A judge's own figures do not need every judgment: questions with gaps are left out."""
    mine = [each.without_gaps() if each.gaps else each for each in comparisons if each.judge == name]
    return judge_figures([each for each in judgments if each.judge == name], mine, resampling, speaking)


def _pair_figures(
    each: Comparison,
    gaps: Sequence[Gap],
    others: Sequence[Comparison],
    resampling: Resampling,
    pooled: Mapping[int, tuple[float, float]],
) -> PairFigures:
    revision = next((vote.model.revision for vote in each.votes), None)
    head = PairFigures(
        each.model,
        each.baseline,
        each.judge,
        each.form,
        each.has_both_orders,
        None,
        tuple(gaps),
        each.left_out,
        model_revision=revision,
        parameters=each.parameters,
        templates=each.templates,
    )
    if each.gaps or not each.votes:
        return head
    columns = each.columns
    better, worse = _better_worse(each)
    same = [
        other for other in others if (other.baseline, other.judge, other.form) == (each.baseline, each.judge, each.form)
    ]
    complete = [other for other in same if not other.gaps]
    return replace(
        head,
        scores=scores_of(each, resampling),
        categories={name: scores_of(each.of_category(name), resampling) for name in _categories(each)},
        better=better,
        worse=worse,
        sign_p=sign_test(better, worse),
        agreement=order_agreement(each),
        pooled=_pooled(each, pooled, resampling),
        soft_win_rate=_mean(each, columns.preference, resampling),
        length=control_length(each, resampling),
        length_and_difficulty=control_length_and_difficulty(each, complete, resampling),
        mean_score=_plain_mean(columns.model_score),
        mean_baseline_score=_plain_mean(columns.baseline_score),
    )


def _categories(each: Comparison) -> list[str]:
    return [name for name in dict.fromkeys(each.categories.values()) if name]


def scores_of(each: Comparison, resampling: Resampling) -> Scores:
    """Relative score, wins and win rate of the votes of a comparison."""
    columns = each.columns
    wins, ties, losses = count_outcomes(each.votes)
    relative = NO_ESTIMATE
    if np.isfinite(columns.model_score).all() and np.isfinite(columns.baseline_score).all():
        draws = Draws(len(each.questions), resampling)
        sums = each.by_question(columns.model_score), each.by_question(columns.baseline_score)
        relative = draws.ratio(*sums).scaled(100.0)
    win_rate = _mean(each, columns.outcome, resampling)
    return Scores(len(each.questions), len(each.votes), relative, wins, ties, losses, win_rate)


def _mean(each: Comparison, values: Array, resampling: Resampling) -> Estimate:
    """Mean of a column over judgments, drawn by question; value None where a judgment does not say it."""
    if not values.size or not np.isfinite(values).all():
        return NO_ESTIMATE
    draws = Draws(len(each.questions), resampling)
    return draws.ratio(each.by_question(values), each.by_question(np.ones_like(values)), len(values))


def _plain_mean(values: Array) -> float | None:
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


def _better_worse(each: Comparison) -> tuple[int, int]:
    """Questions that the model wins and loses, all judgments of a question together."""
    balance = each.by_question(each.columns.outcome - 0.5)
    return int((balance > 0).sum()), int((balance < 0).sum())


def _pooled_scores(judgments: Sequence[Judgment]) -> dict[int, tuple[float, float]]:
    """By the identity of a judgment: its scores, averaged over all judgments of the same texts in the same order."""
    groups: dict[tuple[object, ...], list[Judgment]] = defaultdict(list)
    for each in judgments:
        if each.scores is not None and each.second is not None and each.first.sha256 and each.second.sha256:
            groups[each.judge, each.form, each.question_id, each.first.sha256, each.second.sha256].append(each)
    found = {}
    for group in groups.values():
        scores = [each.scores for each in group if each.scores is not None]
        mean = sum(pair[0] for pair in scores) / len(scores), sum(pair[1] for pair in scores) / len(scores)
        found.update({id(each): mean for each in group})
    return found


def _pooled(each: Comparison, pooled: Mapping[int, tuple[float, float]], resampling: Resampling) -> Estimate:
    """The relative score from pooled scores; value None where no text was judged twice or texts are unknown."""
    pairs = [pooled.get(id(vote.judgments[0])) for vote in each.votes]
    if not all(pairs) or all(pair == vote.judgments[0].scores for pair, vote in zip(pairs, each.votes, strict=True)):
        return NO_ESTIMATE
    known = [pair for pair in pairs if pair is not None]
    sides = [pair if vote.model_first else pair[::-1] for pair, vote in zip(known, each.votes, strict=True)]
    values = np.array(sides)
    draws = Draws(len(each.questions), resampling)
    return draws.ratio(each.by_question(values[:, 0]), each.by_question(values[:, 1])).scaled(100.0)


def _differences(comparisons: Sequence[Comparison], resampling: Resampling) -> list[Difference]:
    """All pairs of models with the same judge and baseline, the later minus the earlier."""
    found = []
    for first, second in combinations(comparisons, 2):
        same = (first.baseline, first.judge, first.form) == (second.baseline, second.judge, second.form)
        if same and (common := set(first.questions) & set(second.questions)):
            found.append(_difference(second.only(common), first.only(common), resampling))
    corrected = holm([each.sign_p for each in found])
    return [replace(each, holm_p=p) for each, p in zip(found, corrected, strict=True)]


def _difference(one: Comparison, other: Comparison, resampling: Resampling) -> Difference:
    order = [other.questions.index(question) for question in one.questions]
    draws = Draws(len(order), resampling)

    def sums(values_of: str) -> list[Array]:
        mine = one.by_question(getattr(one.columns, values_of))
        return [mine, other.by_question(getattr(other.columns, values_of))[order]]

    def minus(above: list[Array], below: list[Array], factor: float) -> Estimate:
        if not all(np.isfinite(each).all() for each in (*above, *below)):
            return NO_ESTIMATE
        value = float(above[0].sum() / below[0].sum() - above[1].sum() / below[1].sum())
        drawn = draws.ratios(above[0], below[0]) - draws.ratios(above[1], below[1])
        return draws.estimate(value, drawn).scaled(factor)

    ones = [each.by_question(np.ones(len(each.votes))) for each in (one, other)]
    sizes = [ones[0], ones[1][order]]
    outcomes = sums("outcome")
    balance = outcomes[0] / sizes[0] - outcomes[1] / sizes[1]
    better, worse = int((balance > 1e-12).sum()), int((balance < -1e-12).sum())
    return Difference(
        one.model,
        other.model,
        one.baseline,
        one.judge,
        one.form,
        len(order),
        minus(sums("model_score"), sums("baseline_score"), 100.0),
        minus(outcomes, sizes, 1.0),
        better,
        worse,
        sign_test(better, worse),
    )
