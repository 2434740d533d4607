"""An analysis comes back from its file as it was, and a file that is none is refused with the place of the mistake."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.eval.revising.made import attempt
from tests.eval.revising.test_rounds import cases

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.eval.revising import read_analysis, write_analysis
from selfee.eval.revising.analysing import analyse
from selfee.eval.revising.result import Analysis, Grader
from selfee.eval.scoring.estimates import Resampling


@pytest.fixture
def analysis() -> Analysis:
    more = (attempt("it is 2", True, needed=False, probability=0.2),)
    whole = [replace(each, criticised=more) for each in cases()]
    grader = Grader("number", "gold", "right")
    group = analyse("task", whole, source="model", grader=grader, resampling=Resampling(draws=200), notes=["a note"])
    return Analysis((group,), {"seed": 1, "params": {"temperature": 0.7}}, "rule", "intervals", "selfee revisions", "0")


def test_an_analysis_comes_back_as_it_was(analysis: Analysis, tmp_path: Path) -> None:
    path = tmp_path / "analysis.json"
    write_analysis(path, analysis)
    assert read_analysis(path) == analysis
    assert [each.name for each in tmp_path.iterdir()] == ["analysis.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "no field 'format'"),
        ({"groups": 3}, "groups: is a int; expected a list"),
        ({"more": 1}, "unknown field 'more'"),
        ({"matching": None}, "matching: is a NoneType; expected a str"),
    ],
)
def test_a_file_that_is_no_analysis_is_refused(
    analysis: Analysis, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "analysis.json"
    write_analysis(path, analysis)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadFileError, match=message):
        read_analysis(path)


def test_the_place_of_a_mistake_is_named(analysis: Analysis, tmp_path: Path) -> None:
    path = tmp_path / "analysis.json"
    write_analysis(path, analysis)
    row = json.loads(path.read_text())
    row["groups"][0]["rounds"][0]["helped"]["value"] = "much"
    path.write_text(json.dumps(row))
    with pytest.raises(BadFileError, match=r"groups\[0\]: rounds\[0\]: helped: value: is a str; expected a float"):
        read_analysis(path)


def test_another_version_and_what_is_no_json_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "analysis.json"
    path.write_text('{"format": "selfee-analysis", "version": 99}')
    with pytest.raises(UnsupportedFileError, match="version 99"):
        read_analysis(path)
    path.write_text("{")
    with pytest.raises(BadFileError, match="not valid JSON"):
        read_analysis(path)
    with pytest.raises(BadFileError, match="cannot be read"):
        read_analysis(tmp_path / "none.json")
