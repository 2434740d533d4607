"""A chain and its checker: what passes may end it, the best is delivered, and a bad checker costs nothing."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chain.test_run import DRIVERS, script

from selfee.chain.allowance import Allowance
from selfee.chain.checkers import CommandChecker, FunctionChecker, RegexChecker, Signal
from selfee.chain.policy import RevisionPolicy
from selfee.chain.record import from_dataset, from_json, to_answer, to_dataset, to_json
from selfee.chain.run import Mode, run_chain, stream_chain
from selfee.chain.selectors import best_by, best_checked, check_chain, last_finished, most_agreed
from selfee.chain.types import (
    Chain,
    ChainEnd,
    Check,
    Checked,
    CutReason,
    Instruction,
    SectionEnd,
    SectionStart,
    Step,
)
from selfee.chain.votes import last_number
from selfee.engines.scripted import ScriptedEngine
from selfee.errors import UsageError

ANSWERS = ("A zero.", "A one.", "A two.")


def says(found: Callable[[str], Check | bool | float | None]) -> FunctionChecker:
    return FunctionChecker(lambda instruction, answer: found(answer), name="says")


@pytest.mark.parametrize("mode", DRIVERS)
@pytest.mark.parametrize("passing", range(3))
def test_a_chain_ends_with_the_first_answer_that_passes(mode: Mode, passing: int) -> None:
    engine = script(mode)
    checker = says(lambda answer: answer == ANSWERS[passing])
    events = list(stream_chain(engine, "Q", mode=mode, checker=checker, until_passed=True))
    chain = events[-1].chain  # type: ignore[union-attr]
    assert (chain.end, chain.final, len(chain.steps)) == (ChainEnd.PASSED, ANSWERS[passing], passing + 1)
    which = f"revision {passing}" if passing else "the first answer"
    assert chain.status == f"{which} passed the check (says)"
    assert chain.is_complete
    assert chain.settings["checker"] == {"name": "says", "signal": "external"}
    assert chain.settings["until_passed"] is True
    assert repr(from_json(to_json(chain))) == repr(chain)


@pytest.mark.parametrize("mode", DRIVERS)
def test_every_finished_answer_is_checked_right_after_it(mode: Mode) -> None:
    events = list(stream_chain(script(mode), "Q", mode=mode, checker=says(lambda answer: answer == ANSWERS[1])))
    seen: list[tuple[str, int]] = []
    for event in events:
        if isinstance(event, SectionEnd | SectionStart):
            seen.append((type(event).__name__, event.section.is_answer))
        elif isinstance(event, Checked):
            seen.append(("Checked", event.number))
    numbers = [number for name, number in seen if name == "Checked"]
    assert numbers == [0, 1, 2]
    for place, (name, _) in enumerate(seen):
        if name == "Checked":
            assert seen[place - 1] == ("SectionEnd", True)
    chain = events[-1].chain  # type: ignore[union-attr]
    assert chain.end is ChainEnd.ACCEPTED, "without until_passed the chain goes its own way"
    assert (chain.selected, chain.final) == (1, "A one.")
    assert [step.check and step.check.passed for step in chain.steps] == [False, True, False]
    assert chain.check_cost.seconds > 0


@pytest.mark.parametrize("mode", DRIVERS)
@pytest.mark.parametrize(
    "found", [lambda answer: 1 / 0, lambda answer: math.nan, lambda answer: "text", lambda answer: sys.exit]
)
def test_a_checker_that_fails_loses_nothing_and_the_status_tells(mode: Mode, found: Callable[[str], float]) -> None:
    checker = says(found)
    chain = run_chain(script(mode), "Q", mode=mode, checker=checker, until_passed=True)
    assert (chain.end, chain.selected, chain.final) == (ChainEnd.ACCEPTED, None, "A two.")
    assert "; 3 of 3 checks failed themselves: " in chain.status
    assert repr(from_json(to_json(chain))) == repr(chain)


def test_a_checker_that_fails_once_leaves_the_other_checks() -> None:
    checker = says(lambda answer: 1 / 0 if answer == ANSWERS[0] else answer == ANSWERS[1])
    chain = run_chain(script("turns"), "Q", checker=checker)
    assert chain.selected == 1
    assert "; 1 of 3 checks failed themselves: ZeroDivisionError" in chain.status


def test_where_nothing_passes_the_last_finished_answer_is_delivered_and_the_status_says_so() -> None:
    chain = run_chain(script("turns"), "Q", checker=says(lambda answer: False))
    assert (chain.selected, chain.final) == (None, "A two.")
    assert chain.status.endswith("; no answer passed the check")


def test_a_pattern_and_a_program_check_a_chain() -> None:
    chain = run_chain(script("turns"), "Q", checker=RegexChecker(r"\bone\b"), until_passed=True)
    assert (chain.end, chain.final) == (ChainEnd.PASSED, "A one.")
    words = [sys.executable, "-I", "-S", "-c", "import sys; sys.exit('two' not in sys.stdin.read())"]
    assert run_chain(script("turns"), "Q", checker=CommandChecker(words)).selected == 2


def test_another_selector_may_be_chosen_beside_a_checker() -> None:
    chain = run_chain(script("turns"), "Q", checker=says(lambda answer: 0.5), selector=last_finished)
    assert (chain.selected, chain.settings["selector"]) == (None, "last_finished")


def test_an_answer_that_was_cut_off_or_is_empty_is_not_checked() -> None:
    seen: list[str] = []
    checker = says(lambda answer: seen.append(answer) or False)  # type: ignore[func-returns-value]
    run_chain(ScriptedEngine(["one two three"]), "Q", checker=checker, mode="turns", allowance=Allowance(tokens=2))
    engine = ScriptedEngine(["", "Empty. Revision is needed.", "now", "Good. Revision is not needed."])
    run_chain(engine, "Q", mode="turns", checker=checker)
    assert seen == ["now"]


def test_a_check_comes_before_repeats_and_before_a_maximum_of_no_revisions() -> None:
    checker = says(lambda answer: True)
    chain = run_chain(ScriptedEngine(["A"]), "Q", RevisionPolicy(0, 0), checker=checker, until_passed=True)
    assert chain.end is ChainEnd.PASSED
    left = run_chain(ScriptedEngine(["A"]), "Q", RevisionPolicy(0, 0), checker=checker)
    assert left.end is ChainEnd.CAPPED
    assert left.steps[0].check is not None


def test_cancelling_keeps_the_checks_made_so_far() -> None:
    stream = stream_chain(script("turns"), "Q", checker=says(lambda answer: True))
    for event in stream:
        if isinstance(event, Checked):
            break
    stream.close()
    assert stream.chain.cut is CutReason.CANCELLED
    assert stream.chain.steps[0].check == Check(True)


def test_gold_answers_are_marked_as_what_they_are() -> None:
    gold = FunctionChecker(lambda instruction, answer: answer == "A one.", name="gold", signal=Signal.GOLD)
    chain = run_chain(script("turns"), "Q", checker=gold, until_passed=True)
    assert chain.settings["checker"]["signal"] == "gold"
    assert chain.status == "revision 1 passed the check (gold, which knows the right answer)"


def test_a_plain_function_is_a_checker_too() -> None:
    def mentions_one(instruction: Instruction, answer: str) -> bool:
        return "one" in answer

    chain = run_chain(script("turns"), "Q", checker=mentions_one)
    assert (chain.selected, chain.settings["checker"]["name"]) == (1, "mentions_one")


def test_what_cannot_check_is_refused() -> None:
    class Vague:
        name = "vague"
        signal = "gold"

        def check(self, instruction: Instruction, answer: str) -> Check:
            return Check(True)

    for wrong, message in ((Vague(), "expected a Signal"), ("regex", "a str cannot check")):
        with pytest.raises(UsageError, match=message):
            stream_chain(script("turns"), "Q", checker=wrong)  # type: ignore[arg-type]


def test_until_passed_without_a_checker_is_refused() -> None:
    with pytest.raises(UsageError, match="until_passed"):
        stream_chain(script("turns"), "Q", until_passed=True)


CHECKS = st.none() | st.builds(
    Check,
    st.none() | st.booleans(),
    st.none() | st.integers(0, 3).map(float),
    failed=st.booleans(),
)


@given(st.lists(st.tuples(CHECKS, st.booleans()), min_size=1, max_size=6))
def test_the_best_checked_passes_if_any_does_and_has_the_highest_score_of_its_kind(
    found: list[tuple[Check | None, bool]],
) -> None:
    steps = tuple(
        Step(f"answer {number}", answer_finished=done, check=check) for number, (check, done) in enumerate(found)
    )
    best = best_checked(Chain(Instruction("Q"), steps, ChainEnd.ACCEPTED))
    able = [
        (number, check)
        for number, (check, done) in enumerate(found)
        if done and check is not None and (check.passed or check.score is not None)
    ]
    if best is None:
        assert not able
        return
    chosen = dict(able)[best]
    assert bool(chosen.passed) == any(check.passed for _, check in able)
    rivals = [(number, check) for number, check in able if bool(check.passed) == bool(chosen.passed)]
    mine = -math.inf if chosen.score is None else chosen.score
    for number, check in rivals:
        score = -math.inf if check.score is None else check.score
        assert (score, number) <= (mine, best)


def test_a_recorded_chain_can_be_checked_later() -> None:
    chain = run_chain(script("turns"), "Q")
    checker = says(lambda answer: 1.0 if answer == "A one." else 0.0)
    checked = check_chain(chain, checker)
    assert best_checked(checked) == best_by(checker)(chain) == 1
    assert best_by(checker).__name__ == "best by says"
    assert check_chain(checked, says(lambda answer: 1 / 0)) == checked, "what is known is not asked again"


def test_the_answer_most_agree_on_is_the_latest_of_the_largest_group() -> None:
    texts = ["5", "6", "It is 5", "7", ""]
    chain = Chain(Instruction("Q"), tuple(Step(text) for text in texts), ChainEnd.ACCEPTED)
    assert most_agreed()(chain) == 2
    alone = Chain(Instruction("Q"), (Step("5"), Step("6"), Step("5", answer_finished=False)), ChainEnd.ACCEPTED)
    assert most_agreed(last_number)(alone) == 1, "of equals the latest"
    assert most_agreed(lambda text: 1 / 0)(chain) is None  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("end", [ChainEnd.PASSED, ChainEnd.SPENT])
def test_historical_schemas_take_the_new_ends(end: ChainEnd) -> None:
    chain = Chain(Instruction("Q"), (Step("A", check=Check(True, 1.0)),), end, "said")
    row = to_dataset(chain)
    assert row["iteration_truncated"] is True, "the critic never accepted it"
    assert list(row) == ["iteration_truncated", "instruction", "input", "iteration", "outputs"]
    assert from_dataset(row).final == "A"
    assert to_answer(chain, 1, "id", "model")["metadata"]["end"] == end.value
    assert "checker" not in to_answer(chain, 1, "id", "model")["metadata"]
    marked = replace(chain, settings={"checker": {"name": "gold", "signal": "gold"}})
    assert to_answer(marked, 1, "id", "model")["metadata"]["checker"]["signal"] == "gold"
