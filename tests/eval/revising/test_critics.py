"""A critic that knows, one that guesses and one that lies get the figures that they deserve."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tests.eval.revising.made import attempt, case, chain, step

from selfee.chain.types import Verdict, VerdictSource
from selfee.eval.revising.cases import POINTS, Case
from selfee.eval.revising.critics import critic_of
from selfee.eval.revising.result import Critic


def found(cases: list[Case]) -> Critic:
    critic = critic_of(cases)
    assert critic is not None
    return critic


def test_the_confusion_matrix_counts_every_verdict_on_a_graded_answer() -> None:
    own = chain(step("1", False, needed=True), step("2", True, needed=True), step("3", False, needed=False))
    critic = found([case(own, criticised=[attempt("2", True, needed=False), attempt("4", False, needed=True)])])
    assert (critic.accepted_right, critic.accepted_wrong, critic.rejected_right, critic.rejected_wrong) == (1, 1, 1, 2)
    assert critic.verdicts == 5
    assert critic.wrong_if_accepted.value == 0.5
    assert critic.right_if_rejected.value == pytest.approx(1 / 3)
    assert critic.wrong_found.value == pytest.approx(2 / 3)
    assert critic.balanced_accuracy == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_critic_that_knows_is_perfect_and_one_that_lies_is_the_opposite() -> None:
    knows = [
        case(attempt("1", right, needed=not right, probability=0.0 if right else 1.0)) for right in (True, False) * 5
    ]
    lies = [case(attempt("1", right, needed=right, probability=1.0 if right else 0.0)) for right in (True, False) * 5]
    good, bad = found(knows), found(lies)
    assert (good.brier, good.auc, good.balanced_accuracy, good.calibration_error) == (0.0, 1.0, 1.0, 0.0)
    assert (bad.brier, bad.auc, bad.balanced_accuracy, bad.calibration_error) == (1.0, 0.0, 0.0, 1.0)
    assert good.brier_of_base_rate == bad.brier_of_base_rate == 0.25


def test_a_calibrated_critic_has_a_small_calibration_error_and_an_overconfident_one_a_large() -> None:
    rng = random.Random(1)
    calibrated, overconfident = [], []
    for _ in range(2000):
        probability = rng.random()
        right = rng.random() > probability
        calibrated.append(case(attempt("1", right, needed=probability > 0.5, probability=probability)))
        overconfident.append(case(attempt("1", right, needed=True, probability=0.99)))
    assert (found(calibrated).calibration_error or 0.0) < 0.04
    assert (found(calibrated).auc or 0.0) > 0.78
    assert (found(overconfident).calibration_error or 0.0) == pytest.approx(0.49, abs=0.04)
    assert found(overconfident).auc == 0.5
    assert sum(each.count for each in found(calibrated).bins) == 2000


def test_what_was_only_concluded_is_no_verdict_of_the_critic() -> None:
    silent = replace(step("1", False, needed=False), verdict=Verdict(False, VerdictSource.SILENCE))
    critic = found([case(chain(silent))])
    assert (critic.verdicts, critic.without_verdict) == (0, 1)


def test_the_same_feedback_again_is_counted() -> None:
    same = [step(str(number), False, feedback="Too short.", needed=True) for number in range(3)]
    assert found([case(chain(*same))]).repeated == 2


def test_there_is_no_critic_without_feedback_and_none_to_judge_without_right_and_wrong() -> None:
    assert critic_of([]) is None
    assert critic_of([case(chain(step("1", True)))]) is None
    assert critic_of([replace(case(attempt("1", True, needed=True)), scale=POINTS)]) is None
