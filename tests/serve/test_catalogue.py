"""Every row of the catalogue of inputs, faults, the revision loop and security has a test that bears its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROWS = [f"{table}{row}" for table, rows in (("i", 12), ("f", 14), ("r", 14), ("s", 8)) for row in range(1, rows + 1)]
NAMED = re.compile(r"def test_([ifrs]\d+)_")


@pytest.fixture(scope="module")
def named() -> set[str]:
    files = [path.read_text(encoding="utf-8") for path in HERE.rglob("test_*.py")]
    return {name for text in files for name in NAMED.findall(text)}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_catalogue_is_tested_by_name(row: str, named: set[str]) -> None:
    assert row in named


def test_no_test_names_a_row_that_there_is_not(named: set[str]) -> None:
    assert named <= set(ROWS)
