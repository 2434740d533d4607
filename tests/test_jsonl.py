"""Proves src/selfee/jsonl.py."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.errors import BadFileError
from selfee.jsonl import read_jsonl, write_jsonl

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values, max_size=4), max_size=5)
)
def test_what_was_written_is_read_back(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_jsonl(path, rows)
        assert [row for _, row in read_jsonl(path)] == rows


@pytest.mark.parametrize(
    ("line", "found"),
    [(b'{"a": }', "column"), (b"[1]", "list"), (b"\xff{}", "not valid JSON"), (b"[" * 100_000, "not valid JSON")],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: bytes, found: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"fine": 1}\n\n' + line + b"\n")
    with pytest.raises(BadFileError, match=r"rows\.jsonl:3: .*" + found):
        list(read_jsonl(path))


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="cannot be read"):
        list(read_jsonl(tmp_path / "absent.jsonl"))


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"old": 1}])
    with pytest.raises(TypeError):
        write_jsonl(path, [{"new": 1}, {"new": object()}])
    assert [row for _, row in read_jsonl(path)] == [{"old": 1}]
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


def test_what_is_written_may_be_read_by_those_who_may_read_new_files(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}])
    assert (tmp_path / "rows.jsonl").stat().st_mode == (tmp_path / "other").stat().st_mode
