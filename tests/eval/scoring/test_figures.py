"""Comparisons and their sums: what counts, what is a gap, what is compared with what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.eval.scoring.made import judged, label, random_judge

from selfee.errors import UsageError
from selfee.eval.scoring.comparisons import choose_baseline, compare_all
from selfee.eval.scoring.estimates import Resampling
from selfee.eval.scoring.figures import sum_up
from selfee.eval.scoring.judgment import Form, Judgment, Label, Shown, Unreadable

FEW = Resampling(300)


def test_the_relative_score_is_the_ratio_of_sums_over_both_orders() -> None:
    points = {"q0": (9.0, 8.0), "q1": (7.0, 10.0)}

    def decide(question: str, first: str, second: str, repeat: int) -> tuple[float, float]:
        return points[question] if first == "model" else points[question][::-1]

    (pair,) = sum_up(list(judged(decide, questions=2)), resampling=FEW, baseline="baseline").pairs
    assert pair.scores is not None
    assert pair.scores.relative.value == pytest.approx(100 * 32 / 36)
    assert (pair.scores.wins, pair.scores.ties, pair.scores.losses) == (2, 0, 2)
    assert (pair.agreement.hits, pair.better, pair.worse) == (2, 1, 1)
    assert set(pair.categories) == {"even", "odd"}


def test_exchanging_model_and_baseline_turns_every_figure_round() -> None:
    judgments = list(judged(random_judge(3, prefers_first=0.2)))
    one = sum_up(judgments, resampling=FEW, baseline="baseline").pairs[0]
    other = sum_up(judgments, resampling=FEW, baseline="model").pairs[0]
    assert one.scores is not None
    assert other.scores is not None
    assert (one.scores.wins, one.scores.losses) == (other.scores.losses, other.scores.wins)
    assert one.scores.relative.value is not None
    assert other.scores.relative.value is not None
    assert one.scores.relative.value / 100 == pytest.approx(100 / other.scores.relative.value)
    assert one.sign_p == other.sign_p


def test_the_order_of_judgments_changes_nothing() -> None:
    judgments = list(judged(random_judge(3)))
    one = sum_up(judgments, resampling=FEW, baseline="baseline").pairs[0].scores
    other = sum_up(judgments[::-1], resampling=FEW, baseline="baseline").pairs[0].scores
    assert one is not None
    assert other is not None
    assert (one.relative.value, one.wins) == pytest.approx((other.relative.value, other.wins))


def broken(judgments: list[Judgment]) -> list[Judgment]:
    """One unreadable, one missing."""
    lost = replace(judgments[0], scores=None, unreadable=Unreadable.NO_VERDICT)
    return [lost, *judgments[1:7], *judgments[8:]]


def test_nothing_is_summed_up_over_gaps_and_every_gap_is_named() -> None:
    figures = sum_up(broken(list(judged(random_judge(3)))), resampling=FEW, baseline="baseline")
    (pair,) = figures.withheld
    assert pair.scores is None
    assert {(gap.question_id, gap.reason) for gap in pair.gaps} == {("q0", "no-verdict"), ("q3", "missing")}


def test_told_to_allow_gaps_it_leaves_out_the_whole_question() -> None:
    judgments = list(judged(random_judge(3)))
    (pair,) = sum_up(broken(judgments), resampling=FEW, baseline="baseline", allow_gaps=True).pairs
    (whole,) = sum_up([*judgments[2:6], *judgments[8:]], resampling=FEW, baseline="baseline").pairs
    assert pair.scores == whole.scores
    assert pair.left_out == ("q0", "q3")


def test_a_question_that_nobody_judged_is_a_gap_where_it_is_known_that_it_should_have_been() -> None:
    judgments = list(judged(random_judge(3), questions=3))
    (comparison,) = compare_all(judgments, "baseline", ["q0", "q1", "q2", "q3"])
    assert [(gap.question_id, gap.reason) for gap in comparison.gaps] == [("q3", "missing")] * 2


def test_one_order_alone_is_no_gap_but_said() -> None:
    judgments = [each for each in judged(random_judge(3)) if each.first.name == "model"]
    (pair,) = sum_up(judgments, resampling=FEW, baseline="baseline").pairs
    assert pair.scores is not None
    assert not pair.both_orders
    assert pair.agreement.value is None


def test_repeats_of_some_questions_only_tell_of_noise_and_change_no_score() -> None:
    judgments = list(judged(random_judge(3)))
    again = [replace(each, repeat=1) for each in judgments[:4]]
    one = sum_up(judgments, resampling=FEW, baseline="baseline")
    other = sum_up([*judgments, *again], resampling=FEW, baseline="baseline")
    assert one.pairs[0].scores == other.pairs[0].scores
    assert other.judges[0].noise is not None


def test_two_different_judgments_in_one_place_are_refused() -> None:
    judgments = list(judged(random_judge(3), questions=2))
    other = replace(judgments[0], scores=(5.0, 5.0), template="other")
    with pytest.raises(UsageError, match="judged twice"):
        sum_up([*judgments, other], resampling=FEW)


def test_the_baseline_is_what_most_were_compared_with() -> None:
    pairs = [("a", "base"), ("base", "b"), ("c", "base"), ("a", "other")]
    judgments = [label("1", first, second, Label.FIRST) for first, second in pairs]
    assert choose_baseline(judgments) == "base"
    roles = {(each.model, each.baseline) for each in compare_all(judgments)}
    assert roles == {("a", "base"), ("b", "base"), ("c", "base"), ("a", "other")}


def test_of_two_numbers_of_revisions_the_smaller_is_the_baseline_in_every_pair() -> None:
    judgments = [
        Judgment(
            form=Form.PAIR_LABEL,
            question_id="1",
            first=Shown("m", revision=first),
            second=Shown("m", revision=second),
            judge="j",
            template="t",
            label=Label.TIE,
        )
        for first, second in ((0, 1), (1, 0), (2, 1), (1, 2), (2, 3))
    ]
    pairs = {(each.model, each.baseline) for each in compare_all(judgments)}
    assert pairs == {("m@1", "m@0"), ("m@2", "m@1"), ("m@3", "m@2")}


def test_an_unknown_baseline_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match=r"expected one of baseline, model"):
        sum_up(list(judged(random_judge(3))), baseline="gpt")


def test_labels_give_wins_and_no_relative_score() -> None:
    judgments = [label(f"q{n}", *names, Label.TIE) for n in range(3) for names in (("a", "b"), ("b", "a"))]
    (pair,) = sum_up(judgments, resampling=FEW, baseline="b").pairs
    assert pair.scores is not None
    assert pair.scores.relative.value is None
    assert (pair.scores.ties, pair.scores.win_rate.value, pair.sign_p) == (6, 0.5, 1.0)


def test_answers_judged_alone_are_compared_question_by_question() -> None:
    judgments = [
        Judgment(
            form=Form.SINGLE_SCORE,
            question_id=f"q{number}",
            first=Shown("m", revision=revision),
            judge="j",
            template="t",
            scores=(5.0 + revision * (number % 2),),
        )
        for number in range(4)
        for revision in (0, 1, 2)
    ]
    figures = sum_up(judgments, resampling=FEW)
    assert [(pair.model, pair.baseline) for pair in figures.pairs] == [("m@1", "m@0"), ("m@2", "m@0")]
    assert figures.pairs[1].scores is not None
    assert figures.pairs[1].scores.relative.value == pytest.approx(100 * 24 / 20)
    assert (figures.pairs[1].scores.wins, figures.pairs[1].scores.ties) == (2, 2)


def test_the_difference_of_two_models_has_a_narrower_interval_than_either_because_questions_are_shared() -> None:
    hard = {f"q{number}": 1.0 + number % 8 for number in range(60)}

    def by(gain: float) -> list[Judgment]:
        def decide(question: str, first: str, second: str, repeat: int) -> tuple[float, float]:
            mine = hard[question] + gain
            return (mine, 6.0) if first != "baseline" else (6.0, mine)

        return list(judged(decide, model=f"m{gain:g}", questions=60))

    figures = sum_up([*by(0.0), *by(0.5)], resampling=FEW)
    (difference,) = figures.differences
    assert (difference.model, difference.other) == ("m0.5", "m0")
    assert difference.relative.value == pytest.approx(100 * 0.5 / 6.0)
    alone = figures.pairs[0].scores
    assert alone is not None
    assert difference.relative.low == pytest.approx(difference.relative.high)
    assert (alone.relative.high or 0.0) - (alone.relative.low or 0.0) > 5.0


def test_equal_texts_judged_twice_are_pooled() -> None:
    one = list(judged(lambda q, a, b, r: (9.0, 8.0), model="m1", questions=4))
    other = list(judged(lambda q, a, b, r: (8.0, 8.0), model="m2", questions=4))
    same = [
        replace(
            each,
            first=replace(each.first, sha256=each.first.sha256.replace("m2", "m1")),
            second=replace(each.second, sha256=each.second.sha256.replace("m2", "m1")) if each.second else None,
        )
        for each in other
    ]
    figures = sum_up([*one, *same], resampling=FEW)
    assert {pair.pooled.value for pair in figures.pairs} == {100.0}
    assert figures.pairs[0].scores is not None
    assert figures.pairs[0].scores.relative.value == 100.0


def test_a_judge_and_people_are_held_against_each_other() -> None:
    labels = {"q0": Label.FIRST, "q1": Label.FIRST, "q2": Label.SECOND, "q3": Label.TIE}
    judge = [label(q, "a", "b", value) for q, value in labels.items()]
    turned = {Label.FIRST: Label.SECOND, Label.SECOND: Label.FIRST, Label.TIE: Label.TIE}
    judge += [label(q, "b", "a", turned[value]) for q, value in labels.items()]
    people = [label(q, "a", "b", value, "one") for q, value in labels.items()]
    people += [label("q0", "a", "b", Label.SECOND, rater) for rater in ("two", "three")]
    (agreement,) = sum_up(judge, resampling=FEW, people=people).agreements
    assert (agreement.rater, agreement.other, agreement.cases) == ("people", "judge", 4)
    assert agreement.agree.value == 0.75
    assert agreement.table == ((1, 0, 0), (1, 1, 0), (0, 0, 1))


def test_kappa_is_that_of_an_independent_library() -> None:
    import numpy as np

    rates = pytest.importorskip("statsmodels.stats.inter_rater", reason="statsmodels is not installed")
    from selfee.eval.scoring.agreement import kappa

    table = np.array([[20.0, 5.0, 3.0], [4.0, 25.0, 2.0], [6.0, 1.0, 9.0]])
    assert float(kappa(table)) == pytest.approx(rates.cohens_kappa(table).kappa)
