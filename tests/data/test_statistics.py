"""What chains are like, counted; and each feedback that SelFee's stop rule read in another way than it is meant."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.chain.verdict import find_verdict, stopped_in_2023
from selfee.data.files import Row
from selfee.data.merge import ChainFile
from selfee.data.page import render_page
from selfee.data.records import read_record
from selfee.data.statistics import (
    KINDS,
    SourceStatistics,
    count_record,
    disagreements_of,
    percentiles,
    read_statistics,
)

GOLD = "gold answer text"
CHAINS: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    (
        {"instruction": "a"},
        [("one", "Wrong. Score: 5/10. Revision is needed."), ("two", "Score: 8/10. Revision is not needed.")],
    ),
    ({"instruction": "b", "output": GOLD}, [("one", "There is no need to sort. Revision is needed.")]),
    ({"instruction": "c"}, [("one", "No further revision is needed."), ("one", "Fine, 9 out of 10.")]),
    (
        {"instruction": "d", "output": GOLD, "iteration_truncated": True},
        [("one", f"It is the {GOLD}, no critique."), ("two words", "A revision is needed. 10/10")],
    ),
]


@pytest.fixture
def found(tmp_path: Path) -> SourceStatistics:
    path = tmp_path / "chains.jsonl"
    rows = [
        {"input": "", "iteration": len(turns), "iteration_truncated": False}
        | row
        | {"outputs": [{"output": answer, "feedback": feedback} for answer, feedback in turns]}
        for row, turns in CHAINS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "[]\n")
    return read_statistics([ChainFile(path, "mine")])["mine"]


def test_chains_verdicts_and_scores_are_counted(found: SourceStatistics) -> None:
    told = found.to_json()
    assert told["records"] == told["questions"] == 4
    assert told["unreadable"] == {"unreadable row": 1}
    assert told["lengths"] == {"1": 1, "2": 3}
    assert told["capped"] == 1
    assert told["verdicts"] == {"revise": 3, "content": 2, "no verdict": 2}
    assert told["endings"] == {"revise": 2, "content": 1, "no verdict": 1}
    assert told["scores"] == {"5": 1, "8": 1, "9": 1, "10": 1}
    assert (told["scored_content"], told["low_but_content"], told["high_but_revise"]) == (1, 1, 1)
    assert (told["silent_in_midst"], told["content_in_midst"]) == (1, 1)
    assert (told["unchanged"], told["leaks"]) == (1, 1)
    assert told["words"]["answer"] == {"mean": 1.1, "p10": 1, "p50": 1, "p90": 2}


def test_each_disagreement_with_the_rule_of_2023_is_listed_by_id(found: SourceStatistics) -> None:
    rows = list(disagreements_of({"mine": found}))
    assert [(row["kind"], row["where"].rpartition(":")[2], row["step"], row["is_last"]) for row in rows] == [
        ("asks, yet stopped", "2", 1, True),
        ("content, yet went on", "3", 1, False),
        ("silent, yet stopped", "4", 1, False),
        ("silent, and went on", "3", 2, True),
    ]
    assert {row["source"] for row in rows} == {"mine"}
    assert all(len(row["id"]) == 20 for row in rows)


@given(
    st.lists(
        st.sampled_from(
            ["no need", "No revision is needed.", "Revision is needed.", "not needed", "No critique", "Fine. "]
        )
    )
)
def test_feedback_is_listed_exactly_where_rule_and_verdict_differ(parts: list[str]) -> None:
    feedback = " ".join(parts)
    row = {"instruction": "Why?", "outputs": [{"output": "x", "feedback": feedback}]}
    counted = SourceStatistics()
    count_record(counted, read_record(Row("f:1", row)), "f:1")
    verdict = find_verdict(feedback)
    agrees = verdict is not None and verdict.needed != stopped_in_2023(feedback)
    assert len(counted.disagreements) == (not agrees)
    assert all(one.kind in KINDS and one.step == 1 for one in counted.disagreements)


@given(st.lists(st.integers(0, 50), min_size=1))
def test_percentiles_are_values_that_occur_and_so_many_do_not_exceed_them(values: list[int]) -> None:
    told = percentiles(values)
    for percent in (10, 50, 90):
        value = told[f"p{percent}"]
        assert value in values
        assert sum(one <= value for one in values) >= percent / 100 * len(values)
        assert sum(one < value for one in values) < max(1, percent / 100 * len(values))
    assert percentiles([]) == {}


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(found: SourceStatistics) -> None:
    found.disagreements[0] = type(found.disagreements[0])(
        "asks, yet stopped", "x" * 20, "f:1", 1, True, "<script>alert(1)</script>"
    )
    page = render_page({"<b>": found}, ["<i>.jsonl"])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page
    assert not re.search(r"(?:src|href)=|https?://", page)
    assert page.count("<svg") == page.count("</svg>") == 7
    assert "prefers-color-scheme: dark" in page


def test_a_page_of_chains_without_scores_says_so(tmp_path: Path) -> None:
    path = tmp_path / "chains.jsonl"
    path.write_text(json.dumps({"instruction": "a", "outputs": [{"output": "x", "feedback": "Fine."}]}))
    assert "No feedback gives a score" in render_page(read_statistics([ChainFile(path)]), ["chains.jsonl"])


@pytest.mark.corpus
def test_selfees_augmented_files_have_the_known_statistics(corpus: Path) -> None:
    given = [
        ChainFile(corpus / "selfee" / "augmented" / f"feedback_gpt_3.5_turbo_{name}.jsonl", name)
        for name in ("conala", "mbpp")
    ]
    found = read_statistics(given)
    conala, mbpp = found["conala"].to_json(), found["mbpp"].to_json()
    assert conala["lengths"] == {"1": 716, "2": 1177, "3": 80, "4": 10, "5": 17}
    assert mbpp["lengths"] == {"1": 406, "2": 187, "3": 7}
    assert sum(conala["verdicts"].values()) == 3435
    assert sum(mbpp["verdicts"].values()) == 801
    assert mbpp["low_but_content"] == 182
