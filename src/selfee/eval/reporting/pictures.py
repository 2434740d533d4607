"""The pictures of a report. Each shows nothing that a table beside it does not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from selfee.eval.reporting.report import Effort, Point, score_of
from selfee.eval.reporting.sections import Picture
from selfee.eval.reporting.svg import Drawing, Scale, scale_for, short
from selfee.eval.reporting.words import figure, number
from selfee.eval.revising.result import Group
from selfee.eval.scoring.bias import JudgeFigures
from selfee.eval.scoring.comparisons import Comparison
from selfee.eval.scoring.estimates import Estimate, share
from selfee.eval.scoring.figures import PairFigures

_WIDTH = 480.0
_LEFT, _RIGHT = 44.0, 468.0
_BINS = 6


def revisions_picture(points: Sequence[Point]) -> Picture | None:
    """Score against the number of revisions, with intervals. None with fewer than two points on every line."""
    series = list(dict.fromkeys(point.series for point in points))
    series = [name for name in series if sum(point.series == name for point in points) > 1]
    shown = [point for point in points if point.series in series]
    if not shown:
        return None
    top, bottom = 30.0, 260.0
    title = "Score against number of revisions"
    drawing = Drawing(
        title, "; ".join(_told(point.title, point.score) for point in shown), _WIDTH, 310 + 17 * len(series)
    )
    y = scale_for(_ends([point.score for point in shown]), bottom, top)
    x = scale_for([0.0, *(point.revisions for point in shown)], _LEFT + 10, _RIGHT - 10)
    drawing.axis_left(y, _LEFT, shown[0].unit, _RIGHT)
    drawing.axis_below(x, bottom, "revisions written: enforced number, or mean", top)
    if y.low < 100.0 < y.high:
        drawing.line(_LEFT, y(100.0), _RIGHT, y(100.0), "equal")
    for number_, name in enumerate(series):
        line = sorted((point for point in shown if point.series == name), key=lambda point: point.revisions)
        drawing.path([(x(point.revisions), y(point.score.value or 0.0)) for point in line], number_)
        for point in line:
            at = x(point.revisions)
            if point.score.low is not None and point.score.high is not None:
                drawing.whisker(at, y(point.score.low), at, y(point.score.high), number_)
            drawing.mark(at, y(point.score.value or 0.0), number_, _told(point.title, point.score))
            drawing.text(at + 8, y(point.score.value or 0.0) - 7, number(point.score.value, 1), "start", "value")
    drawing.legend([short(name, 52) for name in series], _LEFT, 318)
    return Picture(title, drawing.render(), "Bars are intervals of 95 %.")


def wins_picture(pairs: Sequence[PairFigures]) -> Picture | None:
    """Wins, ties and losses as bars."""
    shown = [pair for pair in pairs if pair.scores is not None]
    if not shown:
        return None
    rows = [f"{_versus(pair)}: {_wtl(pair)}" for pair in shown]
    drawing = Drawing("Wins, ties and losses", "; ".join(rows), _WIDTH, 46.0 * len(shown) + 26)
    for row, pair in enumerate(shown):
        assert pair.scores is not None
        y = 46.0 * row + 18
        drawing.text(2, y, short(_versus(pair), 62), "start", "label")
        total = pair.scores.wins + pair.scores.ties + pair.scores.losses
        at = 2.0
        for count, kind in ((pair.scores.wins, "win"), (pair.scores.ties, "tie"), (pair.scores.losses, "loss")):
            width = (_RIGHT - 2) * count / total
            drawing.box(at, y + 6, width, 18, kind)
            if width > 22:
                drawing.text(at + width / 2, y + 19, str(count), "middle", f"on-{kind}")
            at += width
    base = 46.0 * len(shown) + 16
    for x, kind, words in ((2, "win", "the first wins"), (130, "tie", "tie"), (190, "loss", "it loses")):
        drawing.box(x, base - 9, 10, 10, kind)
        drawing.text(x + 15, base, words, "start", "tick")
    return Picture("Wins, ties and losses", drawing.render(), "Judgments, both orders counted.")


def position_picture(judges: Sequence[JudgeFigures]) -> Picture | None:
    """How often the answer shown first or second wins, one bar a judge."""
    shown = [(each.judge, each.position) for each in judges if each.position is not None]
    if not shown:
        return None
    title = "Position: which place wins"
    told = "; ".join(
        f"{name}: first {_percent(bias.first_wins)}, second {_percent(bias.second_wins)}" for name, bias in shown
    )
    drawing = Drawing(title, told, _WIDTH, 46.0 * len(shown) + 26)
    for row, (name, bias) in enumerate(shown):
        y = 46.0 * row + 18
        drawing.text(2, y, short(name, 62), "start", "label")
        first, second = bias.first_wins.value or 0.0, bias.second_wins.value or 0.0
        at = 2.0
        for part, kind in ((first, "win"), (1.0 - first - second, "tie"), (second, "loss")):
            width = (_RIGHT - 2) * part
            drawing.box(at, y + 6, width, 18, kind)
            if width > 44:
                drawing.text(at + width / 2, y + 19, f"{part:.1%}", "middle", f"on-{kind}")
            at += width
    base = 46.0 * len(shown) + 16
    for x, kind, words in ((2, "win", "shown first wins"), (150, "tie", "tie"), (210, "loss", "shown second wins")):
        drawing.box(x, base - 9, 10, 10, kind)
        drawing.text(x + 15, base, words, "start", "tick")
    return Picture(title, drawing.render(), "A judge that does not care for the place gives two equal shares.")


def length_picture(comparison: Comparison, pair: PairFigures) -> Picture | None:
    """Win rate against the difference in length, in bins of equally many judgments, with the fitted curve."""
    if pair.length is None or pair.length.slope.value is None or pair.length.win_rate.value is None:
        return None
    difference, outcome = comparison.columns.length_difference, comparison.columns.outcome
    order = np.argsort(difference, kind="stable")
    groups = [group for group in np.array_split(order, min(_BINS, len(order))) if group.size]
    bins = [(float(difference[group].mean()), _bin_rate(outcome[group])) for group in groups]
    title = f"Length: {_versus(pair)}"
    told = "; ".join(f"{at:+.0f} characters: {_percent(rate)}" for at, rate in bins)
    top, bottom = 30.0, 220.0
    drawing = Drawing(title, told, _WIDTH, 270)
    low, high = float(difference.min()), float(difference.max())
    x = scale_for([low, high, 0.0], _LEFT + 6, _RIGHT - 6, 0.03)
    y = Scale(0.0, 100.0, bottom, top)
    drawing.axis_left(y, _LEFT, "win rate, %", _RIGHT)
    drawing.axis_below(x, bottom, "characters that the model's answer is longer", top)
    drawing.line(x(0.0), top, x(0.0), bottom, "equal")
    at_zero = min(max(pair.length.win_rate.value, 1e-9), 1 - 1e-9)
    intercept, slope = float(np.log(at_zero / (1 - at_zero))), pair.length.slope.value
    steps = np.linspace(low, high, 60)
    chances = 1.0 / (1.0 + np.exp(-(intercept + slope * np.tanh(steps / pair.length.spread))))
    drawing.path([(x(float(step)), y(100.0 * float(chance))) for step, chance in zip(steps, chances, strict=True)], 1)
    for at, rate in bins:
        drawing.whisker(x(at), y(100 * (rate.low or 0.0)), x(at), y(100 * (rate.high or 0.0)), 0)
        drawing.mark(x(at), y(100.0 * (rate.value or 0.0)), 0, f"{at:+.0f} characters: {_percent(rate)}")
    drawing.mark(x(0.0), y(100.0 * at_zero), 3, f"at equal lengths: {at_zero:.1%}")
    drawing.text(x(0.0) + 8, y(100.0 * at_zero) + 14, f"{at_zero:.1%} at equal lengths", "start", "value")
    return Picture(title, drawing.render(), "Dots are groups of judgments of similar difference; the line is the fit.")


def _bin_rate(outcomes: np.typing.NDArray[np.float64]) -> Estimate:
    """Wins and half the ties, with an interval that is right enough for a picture."""
    wins = float(outcomes.sum())
    rate = share(round(wins), len(outcomes))
    return Estimate(wins / len(outcomes), rate.low, rate.high, len(outcomes))


def effort_picture(pairs: Sequence[PairFigures], efforts: Mapping[str, Effort]) -> Picture | None:
    """What was spent against what it scored, all against the main baseline. None with fewer than two points."""
    main = pairs[0].baseline if pairs else ""
    shown = [pair for pair in pairs if pair.scores is not None and pair.baseline == main and pair.model in efforts]
    uses_tokens = all(efforts[pair.model].mean_tokens for pair in shown)
    spent = [_spent(efforts[pair.model], uses_tokens) for pair in shown]
    if len(shown) < 2 or not all(spent):
        return None
    scores = [score_of(pair) for pair in shown]
    title = "What was spent against what it scored"
    told = "; ".join(_told(pair.model, score) for pair, (score, _) in zip(shown, scores, strict=True))
    top, bottom = 30.0, 240.0
    drawing = Drawing(title, told, _WIDTH, 296 + 17 * len(shown))
    y = scale_for(_ends([score for score, _ in scores]), bottom, top)
    x = scale_for([0.0, *spent], _LEFT + 6, _RIGHT - 10, 0.04)
    drawing.axis_left(y, _LEFT, f"{scores[0][1]} against {main}", _RIGHT)
    unit = "tokens" if uses_tokens else "characters"
    drawing.axis_below(x, bottom, f"{unit} written for a question, everything included", top, ",.0f")
    for number_, (pair, (score, _), cost) in enumerate(zip(shown, scores, spent, strict=True)):
        if score.low is not None and score.high is not None:
            drawing.whisker(x(cost), y(score.low), x(cost), y(score.high), number_)
        drawing.mark(x(cost), y(score.value or 0.0), number_, f"{pair.model}: {cost:,.0f} {unit}, {figure(score)}")
    drawing.legend([short(pair.model, 52) for pair in shown], _LEFT, 300)
    return Picture(title, drawing.render(), "Right of another and not above it: more was spent for nothing.")


def _spent(effort: Effort, uses_tokens: bool) -> float:
    return (effort.mean_tokens if uses_tokens else effort.mean_written or effort.mean_length) or 0.0


def categories_picture(pairs: Sequence[PairFigures]) -> Picture | None:
    """The main figure by category, one row a category and one mark a model."""
    main = pairs[0].baseline if pairs else ""
    shown = [pair for pair in pairs if pair.scores is not None and pair.baseline == main and len(pair.categories) > 1][
        :6
    ]
    if not shown:
        return None
    names = list(dict.fromkeys(name for pair in shown for name in pair.categories))
    values = {
        (row, number_): _category_score(pair, name)
        for row, name in enumerate(names)
        for number_, pair in enumerate(shown)
        if name in pair.categories
    }
    title = f"By category, against {main}"
    told = "; ".join(f"{names[row]}: {_told(shown[number_].model, score)}" for (row, number_), score in values.items())
    step = 14.0 * len(shown) + 14
    left, top = 100.0, 12.0
    bottom = top + step * len(names)
    drawing = Drawing(title, told, _WIDTH, bottom + 50 + 17 * len(shown))
    x = scale_for(_ends(list(values.values())), left + 6, _RIGHT)
    drawing.axis_below(x, bottom, score_of(shown[0])[1], top)
    if x.low < 100.0 < x.high:
        drawing.line(x(100.0), top, x(100.0), bottom, "equal")
    for row, name in enumerate(names):
        drawing.text(left - 8, top + step * row + step / 2 + 4, short(name, 15), "end", "label")
        drawing.line(2, top + step * row, _RIGHT, top + step * row, "grid")
    for (row, number_), score in values.items():
        y = top + step * row + 14 + 14 * number_
        if score.low is not None and score.high is not None:
            drawing.whisker(x(score.low), y, x(score.high), y, number_)
        drawing.mark(x(score.value or 0.0), y, number_, f"{names[row]}: {_told(shown[number_].model, score)}")
    drawing.legend([short(pair.model, 52) for pair in shown], left, bottom + 52)
    return Picture(title, drawing.render(), "Few questions a category: wide intervals.")


def _category_score(pair: PairFigures, name: str) -> Estimate:
    scores = pair.categories[name]
    return scores.relative if scores.relative.value is not None else scores.win_rate.scaled(100.0)


def _ends(estimates: Sequence[Estimate]) -> list[float]:
    return [value for each in estimates for value in (each.low, each.value, each.high) if value is not None]


def _versus(pair: PairFigures) -> str:
    return f"{pair.model} against {pair.baseline}"


def _wtl(pair: PairFigures) -> str:
    assert pair.scores is not None
    return f"{pair.scores.wins} wins, {pair.scores.ties} ties, {pair.scores.losses} losses"


def _told(name: str, score: Estimate) -> str:
    return f"{name} {figure(score)}"


def _percent(estimate: Estimate) -> str:
    return "–" if estimate.value is None else f"{estimate.value:.1%}"


def attempts_picture(group: Group) -> Picture | None:
    """What would be delivered after so many revisions, with intervals. None with fewer than two attempts."""
    shown = [each for each in group.attempts if each.delivered_score.value is not None]
    if len(shown) < 2:
        return None
    is_share = group.grader is not None and group.grader.scale == "right"
    factor, unit = (100.0, "right, %") if is_share else (1.0, "grade")
    scores = [each.delivered_score.scaled(factor) for each in shown]
    title = f"{group.name}: delivered, against revisions allowed"
    told = "; ".join(f"{each.number}: {figure(score, 1)}" for each, score in zip(shown, scores, strict=True))
    top, bottom = 30.0, 230.0
    drawing = Drawing(title, told, _WIDTH, 276)
    y, x = scale_for(_ends(scores), bottom, top), scale_for([each.number for each in shown], _LEFT + 10, _RIGHT - 10)
    drawing.axis_left(y, _LEFT, unit, _RIGHT)
    drawing.line(_LEFT, bottom, _RIGHT, bottom)
    for each in shown:
        drawing.text(x(each.number), bottom + 15, str(each.number), "middle", "tick")
    drawing.text((_LEFT + _RIGHT) / 2, bottom + 32, "revisions allowed", "middle", "label")
    drawing.path([(x(each.number), y(score.value or 0.0)) for each, score in zip(shown, scores, strict=True)], 0)
    for each, score in zip(shown, scores, strict=True):
        if score.low is not None and score.high is not None:
            drawing.whisker(x(each.number), y(score.low), x(each.number), y(score.high), 0)
        drawing.mark(x(each.number), y(score.value or 0.0), 0, figure(score, 1))
        drawing.text(x(each.number) + 8, y(score.value or 0.0) - 7, number(score.value, 1), "start", "value")
    return Picture(title, drawing.render(), "Bars are intervals of 95 %.")


def strategies_picture(group: Group) -> Picture | None:
    """What each way to spend tokens delivers, against the tokens. None with fewer than two ways that tell them."""
    shown = [each for each in group.strategies if each.tokens is not None and each.score.value is not None]
    families = list(dict.fromkeys(each.family for each in shown))
    if len(shown) < 2:
        return None
    is_share = group.grader is not None and group.grader.scale == "right"
    factor, unit = (100.0, "right, %") if is_share else (1.0, "grade")
    title = f"{group.name}: tokens against quality"
    told = "; ".join(
        f"{each.name}: {figure(each.score.scaled(factor), 1)}, {each.tokens:,.0f} tokens" for each in shown
    )
    top, bottom = 30.0, 230.0
    drawing = Drawing(title, told, _WIDTH, 282 + 17 * len(families))
    y = scale_for([(each.score.value or 0.0) * factor for each in shown], bottom, top)
    x = scale_for([0.0, *(each.tokens or 0.0 for each in shown)], _LEFT + 6, _RIGHT - 10, 0.04)
    drawing.axis_left(y, _LEFT, unit, _RIGHT)
    drawing.axis_below(x, bottom, "tokens generated for a question", top, ",.0f")
    for each in shown:
        at, height = x(each.tokens or 0.0), y((each.score.value or 0.0) * factor)
        drawing.mark(at, height, families.index(each.family), f"{each.name}: {figure(each.score.scaled(factor), 1)}")
    drawing.legend(families, _LEFT, 282)
    return Picture(
        title, drawing.render(), "Of two at the same place from the left, the higher one spends its tokens better."
    )
