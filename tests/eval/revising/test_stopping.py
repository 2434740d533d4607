"""Stop rules and choices are replayed over the same chains: what would have been delivered, and for how many tokens."""

from __future__ import annotations

import pytest
from tests.eval.revising.made import case, chain, step

from selfee.chain.types import ChainEnd
from selfee.eval.revising.result import Selection, StopRule
from selfee.eval.revising.stopping import selections_of, stop_rules_of
from selfee.eval.scoring.estimates import Resampling

DRAWS = Resampling(draws=200)

SPOILED = chain(
    step("1", True, needed=True, probability=0.6, feedback="Score: 6/10. Revision is needed."),
    step("2", True, needed=False, probability=0.3, feedback="Score: 9/10. Revision is not needed."),
    step("3", False, needed=False, probability=0.4, feedback="Score: 8/10. Revision is not needed."),
)
MENDED = chain(
    step("1", False, needed=True, probability=0.9, feedback="Score: 2/10. Revision is needed."),
    step("2", False, needed=True, probability=0.8, feedback="Score: 3/10. Revision is needed."),
    step("3", True, needed=False, probability=0.1, feedback="Score: 10/10. Revision is not needed."),
)
CASES = [case(SPOILED, name="spoiled"), case(MENDED, name="mended")]


def rules() -> dict[str, StopRule]:
    return {each.name: each for each in stop_rules_of(CASES, 2, DRAWS)}


def choices() -> dict[str, Selection]:
    return {each.name: each for each in selections_of(CASES, DRAWS)}


@pytest.mark.parametrize(
    ("name", "score", "revisions", "tokens"),
    [
        ("never revise", 0.5, 0, 10),
        ("always 1", 0.5, 1, 25),
        ("always 2", 0.5, 2, 40),
        ("critic is content", 1.0, 1.5, (30 + 40) / 2),  # after revision 1 with its feedback; after the last without
        ("critic's score ≥ 9", 1.0, 1.5, (30 + 40) / 2),
        ("critic is content with 9 of 10", 0.5, 2, 40),
        ("answer is right", 1.0, 1.0, (10 + 40) / 2),
    ],
)
def test_a_rule_delivers_and_costs_what_it_would_have(name: str, score: float, revisions: float, tokens: float) -> None:
    rule = rules()[name]
    assert (rule.score.value, rule.revisions, rule.tokens) == (score, revisions, tokens)
    assert rule.unknown == 0
    assert rule.is_oracle == (name == "answer is right")


def test_differences_are_to_never_revising() -> None:
    assert rules()["never revise"].difference is None
    difference = rules()["critic is content"].difference
    assert difference is not None
    assert difference.value == 0.5


def test_a_chain_that_ended_before_the_rule_could_say_stop_is_told() -> None:
    cut = case(chain(step("1", False, needed=True), step("2", None, finished=False), end=ChainEnd.CUT_OFF))
    repeated = case(chain(step("1", False, needed=True), step("1", False), end=ChainEnd.UNCHANGED))
    for each, unknown in ((cut, 1), (repeated, 0)):
        found = {rule.name: rule.unknown for rule in stop_rules_of([each], 3, DRAWS)}
        assert found["always 3"] == unknown
        assert found["never revise"] == 0


def test_the_last_answer_stands_beside_the_critics_favourite_and_the_best() -> None:
    found = {name: each.score.value for name, each in choices().items()}
    assert found == {"last": 0.5, "first": 0.5, "critic's score": 1.0, "critic's doubt": 1.0, "best": 1.0}
    assert choices()["best"].is_oracle
    difference = choices()["critic's score"].difference
    assert difference is not None
    assert difference.value == 0.5
