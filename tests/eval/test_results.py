"""What selfee perplexity leaves behind: lines that survive a kill and say exactly what was measured."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.errors import BadFileError, ResourceError
from selfee.eval.results import Quality, append_result, read_results

PLAIN = Quality(
    file="m.gguf",
    size=1000,
    mtime_ns=5,
    sha256="ab",
    bits_per_weight=4.5,
    text="t.txt",
    text_sha256="cd",
    definition="current",
    n_ctx=512,
    chunks=3,
    positions=765,
    ppl=7.25,
    ppl_error=0.125,
    tokens_per_second=500.0,
    threads=2,
    instruction_set="avx2",
    selfee="0.1.0",
    date="2026-11-25T00:00:00+00:00",
)


def test_a_line_read_back_is_the_measurement_written(tmp_path: Path) -> None:
    compared = replace(PLAIN, base="b.gguf", base_size=1, kld_mean=0.5, kld_percentiles={"99": 1.0}, same_top=0.75)
    for quality in (PLAIN, compared):
        append_result(tmp_path / "r.jsonl", quality)
    assert read_results(tmp_path / "r.jsonl") == [PLAIN, compared]


@given(st.integers(0, 400))
def test_half_a_line_left_by_a_killed_process_is_passed_over_and_then_removed(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.jsonl"
        append_result(path, PLAIN)
        whole = path.read_bytes()
        path.write_bytes(whole + whole[: min(cut, len(whole) - 1)])
        assert read_results(path) == [PLAIN]
        append_result(path, replace(PLAIN, file="second"))
        assert [each.file for each in read_results(path)] == ["m.gguf", "second"]


def test_a_perplexity_beyond_json_is_null_in_the_file(tmp_path: Path) -> None:
    append_result(tmp_path / "r.jsonl", replace(PLAIN, ppl=math.inf, ppl_error=math.inf))
    assert json.loads((tmp_path / "r.jsonl").read_text())["ppl"] is None
    (back,) = read_results(tmp_path / "r.jsonl")
    assert back.ppl == math.inf


def test_no_file_means_no_results(tmp_path: Path) -> None:
    assert read_results(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2"),
        ({"schema": None}, "schema None"),
        ({"more": 1}, "unknown field 'more'"),
        ({"ppl": "7"}, "ppl is '7'"),
        ({"ppl": True}, "ppl is True"),
        ({"chunks": 1.5}, "chunks is a float"),
        ({"file": None}, "file is a NoneType"),
        ({"kld_percentiles": []}, "kld_percentiles is a list"),
        ({"kld_percentiles": {"99": None}}, "kld_percentiles.99 is None"),
        ({"kld_mean": "x"}, "kld_mean is 'x'"),
    ],
)
def test_a_line_that_is_no_measurement_is_refused_by_line_and_field(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "r.jsonl"
    append_result(path, PLAIN)
    with path.open("a") as file:
        file.write(json.dumps(PLAIN.as_row() | change) + "\n")
    with pytest.raises(BadFileError) as caught:
        read_results(path)
    assert f"{path}:2: {message}" in str(caught.value)


def test_a_line_without_a_required_field_is_refused(tmp_path: Path) -> None:
    row = PLAIN.as_row()
    del row["ppl"]
    with pytest.raises(BadFileError, match="no field 'ppl'"):
        Quality.from_row(row, "here")


def test_what_was_measured_is_told_apart_by_file_text_settings_and_base() -> None:
    changed = {"sha256": "x", "text_sha256": "x", "definition": "2023", "n_ctx": 1, "chunks": 1, "base": "b"}
    changed |= {"cache_type": "q8_0"}
    assert {each.name for each in fields(Quality)} >= set(changed)
    for name, value in changed.items():
        assert replace(PLAIN, **{name: value}).key != PLAIN.key  # type: ignore[arg-type]
    assert replace(PLAIN, ppl=1.0, date="later", file="renamed", mtime_ns=9).key == PLAIN.key


def test_a_results_file_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be written"):
        append_result(tmp_path / "no folder" / "r.jsonl", PLAIN)
