"""What the report says, section by section, about models: scores, wins, revisions, categories, length, effort."""

from __future__ import annotations

from selfee.eval.reporting.pictures import (
    categories_picture,
    effort_picture,
    length_picture,
    revisions_picture,
    wins_picture,
)
from selfee.eval.reporting.report import Report
from selfee.eval.reporting.sections import Picture, Rows, Section, Table
from selfee.eval.reporting.words import figure, interval, number, p_value, percent, plural
from selfee.eval.scoring.comparisons import Comparison
from selfee.eval.scoring.figures import PairFigures


def model_sections(report: Report) -> list[Section]:
    """All sections about models that have something to say."""
    sections = [
        _scores(report),
        _revisions(report),
        _categories(report),
        _length(report),
        _effort(report),
    ]
    return [section for section in sections if not section.is_empty]


def _drawn(*pictures: Picture | None) -> tuple[Picture, ...]:
    return tuple(picture for picture in pictures if picture is not None)


def _several_judges(report: Report) -> bool:
    return len({pair.said_by for pair in report.figures.pairs}) > 1


def _scores(report: Report) -> Section:
    rows = Rows(
        "Every comparison. In brackets: intervals of 95 %.",
        (
            "Model",
            "Baseline",
            "Judge",
            "Relative score, %",
            "Win / tie / loss",
            "Win rate, %",
            "At equal lengths, %",
            "Questions won / lost",
            "p (sign test, corrected)",
            "Orders agree",
            "Questions",
        ),
        (0, 1, 2),
    )
    several = _several_judges(report)
    for pair in report.figures.pairs:
        if pair.scores is None:
            continue
        scores = pair.scores
        rows.add(
            pair.model,
            pair.baseline,
            pair.said_by if several else "",
            figure(scores.relative),
            f"{scores.wins} / {scores.ties} / {scores.losses}",
            percent(scores.win_rate),
            percent(pair.length.win_rate) if pair.length else "",
            f"{pair.better} / {pair.worse}",
            p_value(pair.holm_p),
            f"{pair.agreement.hits} of {pair.agreement.count}" if pair.agreement.count else "one order only",
            str(scores.questions),
        )
    words = (
        "Relative score: the sum of the model's scores over the sum of the baseline's, all judgments counted. Win "
        "rate: a tie counts a half. At equal lengths: what a regression leaves of the win rate where both answers are "
        "equally long.",
    )
    pictures = _drawn(wins_picture(report.figures.pairs))
    return Section("scores", "Scores", words if rows.rows else (), pictures, rows.tables(), _warnings(report))


def _warnings(report: Report) -> tuple[str, ...]:
    found = [
        f"{pair.model} against {pair.baseline} ({pair.judge}) is not summed up: "
        f"{plural(len(pair.gaps), 'judgment')} missing or unreadable, in {plural(len(_questions(pair)), 'question')}. "
        "Judge them again, or pass --allow-gaps to leave these questions out."
        for pair in report.figures.withheld
    ]
    found += [
        f"{pair.model} against {pair.baseline} ({pair.judge}): {plural(len(pair.left_out), 'question')} with missing "
        "or unreadable judgments left out."
        for pair in report.figures.pairs
        if pair.left_out
    ]
    summed = [pair for pair in report.figures.pairs if pair.scores is not None and pair.form.num_answers == 2]
    one_order = [pair for pair in summed if not pair.both_orders]
    if one_order:
        found.append(
            f"{plural(len(one_order), 'comparison')} judged in one order only: these figures hold the judge's "
            "preference for a place as well as for an answer."
        )
    return tuple(found)


def _questions(pair: PairFigures) -> dict[str, None]:
    return dict.fromkeys(gap.question_id for gap in pair.gaps)


def _revisions(report: Report) -> Section:
    rows = Rows(
        "The first minus the second, on the same questions against the same baseline.",
        (
            "Model",
            "Minus",
            "Baseline",
            "Judge",
            "Relative score, points",
            "Win rate, points",
            "Questions better / worse",
            "p (sign test, corrected)",
        ),
        (0, 1, 2, 3),
    )
    several = _several_judges(report)
    for each in report.figures.differences:
        rows.add(
            each.model,
            each.other,
            each.baseline,
            each.said_by if several else "",
            figure(each.relative),
            percent(each.win_rate),
            f"{each.better} / {each.worse}",
            p_value(each.holm_p),
        )
    words = ("A difference whose interval holds 0 may be chance.",) if rows.rows else ()
    pictures = _drawn(revisions_picture(report.points))
    return Section("differences", "Does revising help?", words, pictures, rows.tables())


def _categories(report: Report) -> Section:
    names = list(dict.fromkeys(name for pair in report.figures.pairs for name in pair.categories))
    tables: list[Table] = []
    for pair in report.figures.pairs:
        if len(pair.categories) < 2:
            continue
        rows = Rows(
            f"{pair.model} against {pair.baseline}" + (f", {pair.said_by}" if _several_judges(report) else ""),
            ("Category", "Questions", "Relative score, %", "Win / tie / loss", "Win rate, %"),
        )
        for name in names:
            if name in pair.categories:
                scores = pair.categories[name]
                outcomes = f"{scores.wins} / {scores.ties} / {scores.losses}"
                rows.add(name, str(scores.questions), figure(scores.relative), outcomes, percent(scores.win_rate))
        tables += rows.tables()
    return Section("categories", "By category", (), _drawn(categories_picture(report.figures.pairs)), tuple(tables))


def _length(report: Report) -> Section:
    rows = Rows(
        "Lengths in characters; win rates in percent.",
        (
            "Model",
            "Baseline",
            "Judge",
            "Mean length",
            "Baseline's",
            "Win rate",
            "At equal lengths",
            "… and difficulty",
            "Slope",
        ),
        (0, 1, 2),
    )
    pictures = []
    for pair, comparison in _with_comparisons(report):
        if pair.length is None or pair.scores is None:
            continue
        rows.add(
            pair.model,
            pair.baseline,
            pair.said_by if _several_judges(report) else "",
            number(pair.length.mean_model_length, 0),
            number(pair.length.mean_baseline_length, 0),
            percent(pair.scores.win_rate),
            percent(pair.length.win_rate),
            percent(pair.length_and_difficulty.win_rate) if pair.length_and_difficulty else "",
            figure(pair.length.slope),
        )
        pictures.append(length_picture(comparison, pair))
    words = (
        "Judges like long answers, and revisions make answers longer. At equal lengths: a logistic regression of the "
        "outcome (a tie counts a half) on tanh of the difference in length, in standard deviations, read at zero. With "
        "difficulty: a term more for how well the other models here do on each question, the form of AlpacaEval 2; "
        "where the other models are versions of the same one, that term takes away what they share.",
        "Where nearly all of a model's answers are longer, the value at zero is the end of a curve and not a "
        "measurement: look at the picture, and at the interval.",
    )
    if not rows.rows:
        return Section("length", "Length")
    return Section("length", "Length", words, _drawn(*pictures), rows.tables())


def _with_comparisons(report: Report) -> list[tuple[PairFigures, Comparison]]:
    return list(zip(report.figures.pairs, report.comparisons, strict=True))


def _effort(report: Report) -> Section:
    rows = Rows(
        "What a question took, on average.",
        (
            "Answers",
            "Delivered, characters",
            "Written, characters",
            "Generated, tokens",
            "Revisions written",
            "Revision delivered",
            "Chains cut off",
            "Answers judged",
        ),
    )
    for each in report.efforts.values():
        if not each.answers:
            continue
        rows.add(
            each.title,
            number(each.mean_length, 0),
            number(each.mean_written, 0),
            number(each.mean_tokens, 0),
            number(each.mean_revisions, 2),
            number(each.mean_delivered, 2),
            "" if each.cut is None else str(each.cut),
            str(each.answers),
        )
    picture = effort_picture(report.figures.pairs, report.efforts)
    return Section("effort", "Effort", (), _drawn(picture), rows.tables())


def headlines(report: Report) -> tuple[str, ...]:
    """The findings in sentences, for the top of the page and the end of a command."""
    told: list[str] = []
    for pair in report.figures.pairs:
        if pair.scores is None:
            continue
        scores = pair.scores
        outcome = f"won {scores.wins}, tied {scores.ties}, lost {scores.losses} of {scores.judgments} judgments"
        if scores.relative.value is not None:
            within = interval(scores.relative)
            told.append(
                f"{pair.model} scores {scores.relative.value:.2f} % of {pair.baseline}"
                + (f" ({within})" if within else "")
                + f"; it {outcome}."
            )
        else:
            told.append(f"{pair.model} {outcome} against {pair.baseline}: {percent(scores.win_rate)} %.")
    return tuple(told)
