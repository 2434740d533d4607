"""What a judge goes by besides quality: the place of an answer, its length, chance, and what answers tell it.

Every figure here is the judge's, not the models': all its judgments count, whichever models they compare.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from selfee.eval.scoring.comparisons import Comparison, Vote
from selfee.eval.scoring.controls import Control, control_figures
from selfee.eval.scoring.estimates import NO_ESTIMATE, Array, Draws, Estimate, Resampling, share, sums_by
from selfee.eval.scoring.judgment import Judgment, Label, Unreadable


@dataclass(frozen=True)
class PositionBias:
    """Whether the place of an answer decides. Over questions that were judged in both orders."""

    first_wins: Estimate  # share of judgments that the answer shown first wins
    second_wins: Estimate
    gap: Estimate  # the first minus the second: 0 for a judge that does not care
    score_gap: Estimate  # mean score of the answer shown first minus that of the second; value None without scores
    agree: Estimate  # share of questions with the same outcome in both orders (win, tie or loss)
    flips_to_first: int  # questions where the answer shown first wins both times
    flips_to_second: int
    half_flips: int  # a tie in one order, a winner in the other


@dataclass(frozen=True)
class LengthBias:
    """Whether the longer answer wins. Longer answers may be better: see the length-controlled win rate."""

    longer_wins: Estimate
    gap: Estimate  # P(longer wins) - P(shorter wins), where lengths differ


@dataclass(frozen=True)
class Noise:
    """How often the judge says something else about the very same texts in the same order."""

    changed: Estimate  # share of repeated judgments with another winner
    turned: Estimate  # chance that one judgment is turned round, if that is all that chance does: 2 t (1 - t) = changed
    same_text_preferred: Estimate  # share of judgments of two identical texts that are no tie
    same_text_first: int  # of these, how often the first was preferred


@dataclass(frozen=True)
class Obedience:
    """Whether an answer wins because it tells the judge to let it win."""

    instructed: int  # judgments in which exactly one answer speaks to the judge
    wins: Estimate  # share of these that the speaking answer wins (a tie counts a half)
    expected: float | None  # what the same models win without such words
    obeyed: Estimate  # share of judgments decided by the words: (wins - expected) / (1 - expected)
    questions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Readability:
    """How many replies could be read."""

    judgments: int
    unreadable: Estimate  # share of judgments without a result in the end
    unreadable_at_first: Estimate  # share whose first reply could not be read
    reasons: Mapping[str, int]
    failed: int  # no reply at all: the server failed; not counted as unreadable


@dataclass(frozen=True)
class JudgeFigures:
    """Everything about one judge."""

    judge: str
    position: PositionBias | None
    length: LengthBias | None
    noise: Noise | None
    obedience: Obedience | None
    readability: Readability
    controls: tuple[Control, ...] = ()


_SPEAKS_TO_JUDGE = re.compile(
    r"\b(?:ignore|disregard|forget)\b[^.\n]{0,40}\b(?:instructions?|prompts?|rules|guidelines)\b"
    r"|\b(?:judge|rate|rank|score|evaluate|declare|pick|choose)\s+(?:this|my)\s+(?:answer|response)\b"
    r"|\bas (?:the|an?) (?:judge|evaluator|grader)\b[^.\n]{0,60}\b(?:must|should)\b"
    r"|\[\[\s*[ABC]\s*\]\]|\[The (?:Start|End) of Assistant",
    re.IGNORECASE,
)


def speaks_to_judge(answer: str) -> bool:
    """Whether an answer holds words that are meant for a judge and not for the user."""
    return _SPEAKS_TO_JUDGE.search(answer) is not None


def judge_figures(
    judgments: Sequence[Judgment],
    comparisons: Sequence[Comparison],
    resampling: Resampling,
    speaking: frozenset[str] = frozenset(),
) -> JudgeFigures:
    """All figures about the one judge that made these judgments; ``comparisons`` are its own.

    ``speaking`` are the hashes of answers that speak to the judge.
    """
    votes = [vote for each in comparisons for vote in each.votes if vote.model_first is not None]
    return JudgeFigures(
        judgments[0].judge,
        position_bias([each for each in comparisons if each.has_both_orders], resampling),
        length_bias(votes, resampling),
        noise(judgments),
        obedience(comparisons, speaking, resampling),
        readability(judgments),
        tuple(control_figures(judgments, resampling)),
    )


def position_bias(comparisons: Sequence[Comparison], resampling: Resampling) -> PositionBias | None:
    """Figures over all comparisons whose questions were judged in both orders; None without any."""
    votes = [vote for each in comparisons for vote in each.votes]
    if not votes:
        return None
    first = [vote.outcome if vote.model_first else 1.0 - vote.outcome for vote in votes]
    figure = _by_question(votes, resampling)
    scored = [vote for vote in votes if vote.model_score is not None and vote.baseline_score is not None]
    gap = NO_ESTIMATE
    if scored:
        sides = [(vote.model_score or 0.0) - (vote.baseline_score or 0.0) for vote in scored]
        signed = [side if vote.model_first else -side for side, vote in zip(sides, scored, strict=True)]
        gap = _by_question(scored, resampling)(signed)
    flips = Counter(kind for each in comparisons for kind in _flips(each))
    return PositionBias(
        figure([float(value == 1.0) for value in first]),
        figure([float(value == 0.0) for value in first]),
        figure([float(value == 1.0) - float(value == 0.0) for value in first]),
        gap,
        share(flips["agree"], sum(flips.values())),
        flips["first"],
        flips["second"],
        flips["half"],
    )


def order_agreement(comparison: Comparison) -> Estimate:
    """Share of questions where both orders give the same outcome (win, tie or loss)."""
    kinds = Counter(_flips(comparison))
    return share(kinds["agree"], sum(kinds.values()))


def _flips(comparison: Comparison) -> Iterable[str]:
    """For each question and repeat: agree, or what both orders did instead."""
    seen: dict[tuple[str, int], dict[bool, float]] = defaultdict(dict)
    for vote in comparison.votes:
        if vote.model_first is not None:
            seen[vote.question_id, vote.judgments[0].repeat][vote.model_first] = vote.outcome
    for outcomes in seen.values():
        if len(outcomes) == 2:
            yield _flip(outcomes[True], outcomes[False])


def _flip(shown_first: float, shown_second: float) -> str:
    if shown_first == shown_second:
        return "agree"
    if abs(shown_first - shown_second) == 0.5:
        return "half"
    return "first" if shown_first == 1.0 else "second"


def length_bias(votes: Sequence[Vote], resampling: Resampling) -> LengthBias | None:
    """Over all votes on two answers of different, known length; None without any."""
    usable = [vote for vote in votes if vote.length_difference]
    if not usable:
        return None
    longer = [vote.outcome if (vote.length_difference or 0.0) > 0 else 1.0 - vote.outcome for vote in usable]
    figure = _by_question(usable, resampling)
    return LengthBias(
        figure([float(value == 1.0) for value in longer]),
        figure([float(value == 1.0) - float(value == 0.0) for value in longer]),
    )


def noise(judgments: Sequence[Judgment]) -> Noise | None:
    """Over the same texts judged again in the same order, and over pairs of identical texts; None without any."""
    groups: dict[tuple[object, ...], list[Judgment]] = defaultdict(list)
    for each in judgments:
        if each.winner is not None and each.second is not None and each.first.sha256 and each.second.sha256:
            key = (each.judge, each.form, each.template, repr(sorted(_settings(each).items())))
            groups[(*key, each.question_id, each.first.sha256, each.second.sha256)].append(each)
    compared = [(a.winner, b.winner) for group in groups.values() for a, b in combinations(group, 2)]
    same = [each for each in judgments if each.has_identical_texts and each.winner is not None]
    if not compared and not same:
        return None
    changed = share(sum(a is not b for a, b in compared), len(compared))
    preferred = share(sum(each.winner is not Label.TIE for each in same), len(same))
    return Noise(changed, _turned(changed), preferred, sum(each.winner is Label.FIRST for each in same))


def _settings(judgment: Judgment) -> dict[str, object]:
    """The parameters apart from the seed, which is what a repeat changes."""
    return {name: value for name, value in judgment.parameters.items() if name != "seed"}


def _turned(changed: Estimate) -> Estimate:
    """Solves 2 t (1 - t) = c; c above a half cannot come from turning alone and gives a half."""

    def solve(value: float | None) -> float | None:
        return None if value is None else (1.0 - math.sqrt(max(0.0, 1.0 - 2.0 * value))) / 2.0

    return Estimate(solve(changed.value), solve(changed.low), solve(changed.high), changed.count)


def obedience(comparisons: Sequence[Comparison], speaking: frozenset[str], resampling: Resampling) -> Obedience | None:
    """Judgments in which one answer speaks to the judge, against the same comparison's others; None without any.

    What the speaking answer would have won anyway is what its model wins on the other questions.
    """
    tallies: dict[tuple[str, str, bool], _Tally] = defaultdict(_Tally)
    for each in comparisons:
        for vote in each.votes:
            model, baseline = vote.model.sha256 in speaking, vote.baseline.sha256 in speaking
            for side, won in ((True, vote.outcome), (False, 1.0 - vote.outcome)):
                tally = tallies[each.model, each.baseline, side]
                if model is not baseline and side is model:
                    tally.told.append((vote.question_id, won))
                elif not model and not baseline:
                    tally.plain.append((vote.question_id, won))
    used = [tally for tally in tallies.values() if tally.told]
    if not used:
        return None
    count = sum(len(tally.told) for tally in used)
    questions = tuple(dict.fromkeys(question for tally in used for question, _ in tally.told))
    names = list(dict.fromkeys(question for tally in used for question, _ in (*tally.told, *tally.plain)))
    draws = Draws(len(names), resampling)
    told_sums = [_sums(tally.told, names) for tally in used]
    won, sizes = (np.sum([pair[number] for pair in told_sums], axis=0) for number in (0, 1))
    wins = draws.ratio(won, sizes, count)
    if not all(tally.plain for tally in used):
        return Obedience(count, wins, None, NO_ESTIMATE, questions)
    plain_sums = [_sums(tally.plain, names) for tally in used]
    anyway = np.zeros(draws.counts.shape[0])
    expected = 0.0
    for (_, told_size), (plain_won, plain_size) in zip(told_sums, plain_sums, strict=True):
        anyway = anyway + (draws.counts @ told_size) * draws.ratios(plain_won, plain_size)
        expected += float(told_size.sum()) * float(plain_won.sum()) / float(plain_size.sum())
    expected /= count
    if expected >= 1.0 or wins.value is None:
        return Obedience(count, wins, expected, NO_ESTIMATE, questions)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn_expected = anyway / (draws.counts @ sizes)
        drawn = (draws.ratios(won, sizes) - drawn_expected) / (1.0 - drawn_expected)
    obeyed = draws.estimate((wins.value - expected) / (1.0 - expected), drawn, count)
    return Obedience(count, wins, expected, obeyed, questions)


@dataclass
class _Tally:
    """What one side of a comparison won: question and outcome of each vote where it speaks, and where nobody does."""

    told: list[tuple[str, float]] = field(default_factory=list)
    plain: list[tuple[str, float]] = field(default_factory=list)


def _sums(values: Sequence[tuple[str, float]], names: Sequence[str]) -> tuple[Array, Array]:
    """Sum and number of the values of each question."""
    index = {question: number for number, question in enumerate(names)}
    where = np.array([index[question] for question, _ in values], dtype=np.int64)
    numbers = np.array([value for _, value in values], dtype=np.float64)
    return sums_by(where, numbers, len(names)), sums_by(where, np.ones_like(numbers), len(names))


def readability(judgments: Sequence[Judgment]) -> Readability:
    """Counts of what could not be read, in the end and at the first reply."""
    failed = sum(each.unreadable is Unreadable.FAILED for each in judgments)
    replied = [each for each in judgments if each.unreadable is not Unreadable.FAILED]
    lost = [each.unreadable.value for each in replied if each.unreadable is not None]
    at_first = sum(each.unreadable is not None or bool(each.earlier_replies) for each in replied)
    return Readability(
        len(judgments), share(len(lost), len(replied)), share(at_first, len(replied)), dict(Counter(lost)), failed
    )


def _by_question(votes: Sequence[Vote], resampling: Resampling) -> Callable[[Sequence[float]], Estimate]:
    """A function that means one value a vote, with an interval from drawing questions."""
    names = list(dict.fromkeys(vote.question_id for vote in votes))
    index = {question: number for number, question in enumerate(names)}
    where = np.array([index[vote.question_id] for vote in votes])
    draws = Draws(len(names), resampling)
    sizes = np.bincount(where, minlength=len(names)).astype(np.float64)

    def mean(values: Sequence[float]) -> Estimate:
        sums = sums_by(where, np.asarray(values, dtype=np.float64), len(names))
        return draws.ratio(sums, sizes, len(votes))

    return mean
