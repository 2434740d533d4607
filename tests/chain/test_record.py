"""Chains as JSON lines: nothing is lost, and damaged lines are refused by name."""

from __future__ import annotations

import contextlib
import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chain.strategies import chains, texts

from selfee.chain.policy import RevisionPolicy
from selfee.chain.record import from_answer, from_dataset, from_json, to_answer, to_dataset, to_json
from selfee.chain.run import run_chain
from selfee.chain.types import (
    Chain,
    ChainEnd,
    Check,
    Cost,
    CutReason,
    Exchange,
    Instruction,
    Step,
    Verdict,
    VerdictSource,
)
from selfee.engines.base import SamplingParams
from selfee.engines.scripted import ScriptedEngine
from selfee.errors import BadFileError, UsageError

FULL = Chain(
    Instruction("Add.", "1 2"),
    (
        Step(
            "3.",
            "Fine. Revision is needed.",
            Verdict(False, VerdictSource.CHOICE, "", 0.25, forced=True),
            overruled="Fine.",
            answer_cost=Cost(3, 0.5, 10, 2, (7,)),
            feedback_cost=Cost(2, 0.25),
            check=Check(False, 0.5, "1 of 2", cost=Cost(5, 0.1)),
        ),
        Step("The sum is", answer_finished=False),
    ),
    ChainEnd.CUT_OFF,
    "revision 1 was cut off",
    CutReason.LENGTH,
    selected=0,
    seed=7,
    mode="guided",
    engine="script",
    settings={"policy": {"min_revisions": 1}},
)


def through_json(chain: Chain) -> Chain:
    return from_json(json.loads(json.dumps(to_json(chain))))


def test_a_line_keeps_everything_also_what_equality_ignores() -> None:
    again = through_json(FULL)
    assert again == FULL
    assert repr(again) == repr(FULL)


CHECKS = st.none() | st.builds(
    Check,
    st.none() | st.booleans(),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    texts(),
    st.booleans(),
    st.none() | st.builds(Cost, st.integers(0, 99), st.floats(0, 1e9)),
)


@given(
    chains(),
    texts(),
    st.sampled_from([end for end in ChainEnd if end is not ChainEnd.CUT_OFF]) | st.sampled_from(CutReason),
    st.lists(CHECKS, min_size=4, max_size=4),
)
def test_any_chain_survives_its_line(
    chain: Chain, question: str, end: ChainEnd | CutReason, checks: list[Check | None]
) -> None:
    steps = tuple(replace(step, check=check) for step, check in zip(chain.steps, checks, strict=False))
    cut, end = (end, ChainEnd.CUT_OFF) if isinstance(end, CutReason) else (None, end)
    told = (Exchange(question, "So."),) * len(steps)
    changed = Chain(Instruction(question, question, told, question), steps, end, "said", cut, seed=2**31, mode="turns")
    assert repr(through_json(changed)) == repr(changed)


def test_a_line_made_by_running_a_chain_survives() -> None:
    engine = ScriptedEngine(["A\n\n### Feedback 1:\nGood.", "B\n\n### Feedback 2:\nFine."])
    chain = run_chain(
        engine, "Why?", RevisionPolicy(1), SamplingParams(seed=3, logit_bias={5: 1.0}), mode="single-pass"
    )
    assert repr(through_json(chain)) == repr(chain)
    assert to_json(chain)["final"] == "B"


@pytest.mark.parametrize("name", ["instruction", "steps", "end"])
def test_a_missing_field_is_named(name: str) -> None:
    row = to_json(FULL)
    del row[name]
    with pytest.raises(BadFileError, match=f"x.jsonl:3: no field '{name}'"):
        from_json(row, "x.jsonl:3")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("end",), "done", "end is 'done'; expected one of accepted"),
        (("cut",), None, "to agree"),
        (("selected",), 5, "selected is 5"),
        (("seed",), "7", "'seed' is a str"),
        (("seed",), True, "'seed' is a bool"),
        (("steps",), {}, "'steps' is a dict"),
        (("steps", 0), "text", r"steps\[0\]: found a str"),
        (("steps", 0, "answer"), None, r"steps\[0\]: field 'answer' is a NoneType"),
        (("steps", 0, "verdict", "source"), "guess", r"steps\[0\]: verdict: source is 'guess'"),
        (("steps", 0, "answer_cost", "seeds"), ["x"], "'seeds' holds"),
        (("steps", 0, "check"), "passed", r"steps\[0\]: check: found a str"),
        (("steps", 0, "check", "passed"), 1, "'passed' is a int"),
        (("steps", 0, "check", "score"), float("nan"), "check: score is nan"),
        (("steps", 0, "check", "score"), 10**400, "check: score is inf"),
        (("settings",), [], "'settings' is a list"),
    ],
)
def test_a_damaged_field_is_named(path: tuple[Any, ...], value: Any, message: str) -> None:
    row = copy.deepcopy(to_json(FULL))
    inner: Any = row
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(BadFileError, match=message):
        from_json(row)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "instruction",
                        "steps",
                        "end",
                        "cut",
                        "answer",
                        "outputs",
                        "output",
                        "feedback",
                        "whole_generation",
                    ]
                ),
                inner,
            )
        ),
    )
)
def test_whatever_stands_in_a_line_the_reader_answers_or_refuses(row: Any) -> None:
    for reader in (from_json, from_dataset, from_answer):
        with contextlib.suppress(BadFileError):
            assert isinstance(reader(row), Chain)


def test_the_dataset_schema_has_its_historical_fields_in_order() -> None:
    row = to_dataset(FULL)
    assert list(row) == ["iteration_truncated", "instruction", "input", "iteration", "outputs"]
    assert row["iteration"] == 2
    assert row["iteration_truncated"]
    assert row["outputs"][0] == {"output": "3.", "feedback": "Fine. Revision is needed."}
    assert row["outputs"][1] == {"output": "The sum is", "feedback": ""}


def test_a_dataset_record_without_answers_is_refused() -> None:
    with pytest.raises(BadFileError, match="empty"):
        from_dataset({"instruction": "x", "outputs": []})


def test_the_answer_schema_holds_the_whole_text_and_the_finished_answer() -> None:
    row = to_answer(FULL, 1, "id", "model")
    assert row["text"] == "3."
    assert row["whole_generation"].endswith(
        "### Answer:\n3.\n\n### Feedback 1:\nFine. Revision is needed.\n\n### Revision 1:\nThe sum is"
    )
    again = from_answer(row)
    assert again.final == "3."
    assert again.instruction == FULL.instruction


def test_a_text_without_our_prompt_is_refused_as_an_answer() -> None:
    with pytest.raises(BadFileError, match="whole_generation"):
        from_answer({"whole_generation": "hello"})


def test_a_chain_that_the_text_format_cannot_hold_is_refused_as_an_answer_but_not_as_json() -> None:
    chain = Chain(Instruction("q"), (Step("a\n### Feedback 1:\nb"),), ChainEnd.ACCEPTED)
    with pytest.raises(UsageError, match="line 2"):
        to_answer(chain, 1, "id", "model")
    assert through_json(chain) == chain
