"""What the report says about what its figures rest on: judges, people, stored scores, gaps, how it was made."""

from __future__ import annotations

from collections import Counter

from selfee import __version__
from selfee.eval.reporting.pictures import position_picture
from selfee.eval.reporting.report import Report
from selfee.eval.reporting.sections import Rows, Section, Table
from selfee.eval.reporting.words import figure, number, percent, plural, share_of
from selfee.eval.scoring.bias import JudgeFigures
from selfee.eval.scoring.estimates import Estimate
from selfee.eval.scoring.reviews import Finding

_CONTROLS = {
    "same": "The same text twice",
    "padded": "The same text, padded with words that say nothing",
    "instructed": "The same text, telling the judge to let it win",
    "empty": "An empty phrase for an answer",
}
_FAIR = {"same": "always a tie", "padded": "a tie or a loss", "instructed": "a tie or a loss", "empty": "loses always"}
_MOST_GAPS = 200  # listed on the page; the JSON file has all


def trust_sections(report: Report) -> list[Section]:
    """All sections about judges and material that have something to say."""
    sections = [_judges(report), _agreement(report), _audit(report), _gaps(report), _made(report)]
    return [section for section in sections if not section.is_empty]


def _judges(report: Report) -> Section:
    tables: list[Table] = []
    for judge in report.figures.judges:
        rows = Rows(f"Judge {judge.judge}", ("What", "Found", "A judge without the bias"), (0, 1, 2))
        _position_rows(judge, rows)
        _other_rows(judge, rows)
        tables += rows.tables()
    picture = position_picture(report.figures.judges)
    return Section("judge", "What kind of judge", (), (picture,) if picture else (), tuple(tables))


def _position_rows(judge: JudgeFigures, rows: Rows) -> None:
    bias = judge.position
    if bias is None:
        rows.add("Position", "not known: no question was judged in both orders", "")
        return
    rows.add("Answer shown first wins", _percent(bias.first_wins), "as often as the second")
    rows.add("Answer shown second wins", _percent(bias.second_wins), "")
    rows.add("Position gap, points", percent(bias.gap), "0")
    rows.add("First minus second, mean score", figure(bias.score_gap, 2, 2), "0")
    rows.add("Both orders agree", share_of(bias.agree), "all")
    sides = f"{bias.flips_to_first} to the first, {bias.flips_to_second} to the second"
    flips = f"{sides}, {bias.half_flips} between tie and winner"
    rows.add("Where they do not", flips, "")


def _other_rows(judge: JudgeFigures, rows: Rows) -> None:
    if judge.length is not None:
        rows.add("Longer answer wins", _percent(judge.length.longer_wins), "as often as it is better")
        rows.add("Length gap, points", percent(judge.length.gap), "0, if longer answers are not better")
    if (noise := judge.noise) is not None:
        if noise.changed.count:
            rows.add("Same texts judged again: another winner", share_of(noise.changed), "never")
            rows.add("… as chance that a judgment is turned round", _percent(noise.turned), "0")
        if noise.same_text_preferred.count:
            told = f"{share_of(noise.same_text_preferred)}; {noise.same_text_first} times the first"
            rows.add("Two identical texts: one preferred", told, "never")
    if (obedience := judge.obedience) is not None:
        rows.add("Answers that speak to the judge", plural(obedience.instructed, "judgment"), "")
        rows.add("… such an answer wins", _percent(obedience.wins), _expected(obedience.expected))
        rows.add("… decided by these words", _percent(obedience.obeyed), "0")
    for control in judge.controls:
        words = _CONTROLS.get(control.kind, control.kind)
        told = f"wins {_percent(control.wins)}, loses {_percent(control.loses)}"
        rows.add(f"{words}: {plural(control.judgments, 'judgment')}", told, _FAIR.get(control.kind, ""))
        rows.add("… gain, points", percent(control.gain), "below 0" if control.kind == "empty" else "0 or less")
    readable = judge.readability
    rows.add("Replies that could not be read, at first", share_of(readable.unreadable_at_first), "none")
    reasons = ", ".join(f"{reason} {count}" for reason, count in readable.reasons.items())
    rows.add("… in the end", share_of(readable.unreadable) + (f"; {reasons}" if reasons else ""), "none")
    if readable.failed:
        rows.add("No reply: the server failed", str(readable.failed), "none")


def _percent(estimate: Estimate) -> str:
    told = percent(estimate)
    return told.replace(" (", " % (", 1) if " (" in told else f"{told} %" if told else ""


def _expected(value: float | None) -> str:
    return "" if value is None else f"{value:.1%} without the words"


def _agreement(report: Report) -> Section:
    rows = Rows(
        "Verdicts on the same pairs of answers: both orders agree, else a tie.",
        ("Rater", "Other", "Pairs", "Equal verdicts, %", "Cohen's kappa", "Equal where both name a winner, %"),
        (0, 1),
    )
    for each in report.figures.agreements:
        rows.add(
            each.rater,
            each.other,
            str(each.cases),
            percent(each.agree),
            figure(each.kappa, 2, 2),
            percent(each.agree_without_ties),
        )
    words = ("Kappa is 0 for agreement by chance and 1 for always.",) if rows.rows else ()
    return Section("agreement", "Do raters agree?", words, (), rows.tables())


def _audit(report: Report) -> Section:
    reviews = report.material.reviews
    if not reviews:
        return Section("audit", "Stored scores against their texts")
    rows = Rows(
        "Every review whose stored score is not simply what its text says.",
        ("File", "Question", "Review", "Finding", "Stored", "Read in the text", "Why"),
        (0, 1, 2, 3, 6),
    )
    for each in report.suspects:
        read = ", ".join(number(score, 1).removesuffix(".0") for score in each.read) if each.read else ""
        stored = ", ".join(number(score, 1).removesuffix(".0") for score in each.stored)
        rows.add(each.file, each.question_id, each.review_id, each.finding.value, stored, read, each.reason)
    counts = Counter(each.finding for each in report.suspects)
    agree = len(reviews) - sum(counts[kind] for kind in Finding if kind is not Finding.REPAIRED)
    found = ", ".join(f"{kind.value}: {counts[kind]}" for kind in Finding if counts[kind])
    words = (
        f"{agree:,} of {len(reviews):,} stored scores are what the text says" + (f"; {found}." if found else "."),
        "Figures use the stored scores. Repaired by hand: the script of 2023 could not read the text, or read "
        "something else in it, and a person put a score in.",
    )
    return Section("audit", "Stored scores against their texts", words, (), rows.tables())


def _gaps(report: Report) -> Section:
    rows = Rows(
        "Judgments that are missing or say nothing.",
        ("Model", "Baseline", "Judge", "Question", "Shown first", "Reason", "Notes"),
        range(7),
    )
    gaps = [(pair, gap) for pair in report.figures.pairs for gap in pair.gaps]
    for pair, gap in gaps[:_MOST_GAPS]:
        notes = "; ".join(gap.notes)
        rows.add(pair.model, pair.baseline, pair.judge, gap.question_id, gap.first, gap.reason, notes)
    words = (f"{len(gaps):,} in all; the first {_MOST_GAPS} are shown.",) if len(gaps) > _MOST_GAPS else ()
    return Section("gaps", "Gaps", words, (), rows.tables())


def _made(report: Report) -> Section:
    figures, analysis = report.figures, report.analysis
    rows = Rows("Judges and what they were asked with.", ("Judge", "Templates", "Parameters", "Comparison"), range(4))
    for pair in figures.pairs:
        parameters = ", ".join(f"{name} {value}" for name, value in pair.parameters.items())
        rows.add(pair.judge, ", ".join(pair.templates), parameters, f"{pair.model} against {pair.baseline}")
    files = Rows("Files that were read.", ("File", "What it is"), range(2))
    for name, kind in report.material.files.items():
        files.add(name, kind)
    told = () if analysis is None else tuple(filter(None, (analysis.command, analysis.intervals)))
    words = (
        *told,
        f"{len(report.material.judgments):,} judgments; made by selfee {__version__}. Intervals: the middle 95 % of "
        f"{figures.resampling.draws:,} draws of questions with replacement, seed {figures.resampling.seed}, both "
        "orders of a question always together; shares of independent cases have Wilson's interval. p-values: "
        "two-sided sign tests over questions, corrected for the number of comparisons by Holm's method.",
        *report.material.notes,
    )
    return Section("made", "How this was made", words, (), (*rows.tables(), *files.tables()))
