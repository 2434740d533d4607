"""Rows come out of every published file format alike, and a damaged row or file is named and does not end the run."""

from __future__ import annotations

import csv
import gzip
import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.data import files
from selfee.data.files import BadRow, Row, files_of, read_hub, read_rows
from selfee.errors import BadFileError, UsageError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ROWS = st.lists(
    st.dictionaries(TEXTS, TEXTS | st.integers() | st.lists(TEXTS, max_size=2), max_size=3), min_size=1, max_size=5
)


def rows_of(path: Path) -> list[Any]:
    return [row.fields if isinstance(row, Row) else row for row in read_rows(path)]


@given(rows=ROWS, indent=st.sampled_from([None, 0, 2]), piece=st.integers(1, 40), as_lines=st.booleans())
def test_however_the_file_is_cut_into_pieces_its_rows_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], indent: int | None, piece: int, as_lines: bool
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    if as_lines:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        text = json.dumps(rows, ensure_ascii=False, indent=indent)
    path.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_PIECE", piece)
        assert rows_of(path) == rows


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"question": f"Why {n}, \u2028 and how?", "answer": "Because\nof it."} for n in range(700)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(rows).encode())
    (tmp_path / "crlf.jsonl").write_bytes(lines.replace("\n", "\r\n").encode())
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "misnamed.json").write_text(lines, encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=100)
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(rows)
    for path in sorted(tmp_path.iterdir()):
        assert rows_of(path) == rows, path.name


def test_a_table_without_heading_takes_the_columns_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "task.tsv"
    path.write_text('Why "so?\t(A)\tBecause\\nof it\nshort\t(B)\nHow?\t(C)\tSo.\n', encoding="utf-8")
    found = list(read_rows(path, ("question", "answer", "rationale")))
    assert found[0] == Row(f"{path}:1", {"question": 'Why "so?', "answer": "(A)", "rationale": "Because\\nof it"})
    assert found[1] == BadRow(f"{path}:2", "2 columns; expected 3")
    assert isinstance(found[2], Row)


def test_a_folder_of_single_problems_is_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        (tmp_path / "algebra").mkdir(exist_ok=True)
        (tmp_path / "algebra" / f"{number}.json").write_text(
            json.dumps({"problem": number}, indent=4), encoding="utf-8"
        )
    (tmp_path / "README.md").write_text("no data")
    assert [row["problem"] for row in rows_of(tmp_path)] == [1, 2, 10]
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadFileError, match="without data files"):
        files_of(tmp_path / "empty")


def test_one_lost_file_of_a_folder_does_not_end_the_reading(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"{number}.json").write_text("" if number == 2 else json.dumps({"problem": number}))
    first, lost, last = read_rows(tmp_path)
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert lost == BadRow(f"{tmp_path / '2.json'}", "the file is lost: empty; expected rows")


def test_rows_of_tables_are_named_by_the_line_they_begin_in(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('question,answer\n"Why\nso?",a\n\nHow?,b,c\nWho?,d\n')
    (tmp_path / "a.tsv").write_text("Why?\ta\n\nHow?\tb\n")
    assert [row.where.rpartition(":")[2] for row in read_rows(tmp_path / "a.csv")] == ["2", "5", "6"]
    assert [row.where.rpartition(":")[2] for row in read_rows(tmp_path / "a.tsv", ("q", "a"))] == ["1", "3"]


def test_bad_rows_are_named_and_do_not_end_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n[1]\n\n{"a": "\xff"}\n{"a": 2}')
    found = list(read_rows(path))
    assert [row.where for row in found] == [f"{path}:{line}" for line in (1, 2, 3, 5, 6)]
    assert isinstance(found[1], BadRow)
    assert found[1].reason.startswith("not valid JSON")
    assert found[2] == BadRow(f"{path}:3", "found a list; expected an object")
    assert isinstance(found[3], Row)  # the byte that is no UTF-8 is left to whoever reads the text
    assert found[3].fields["a"] == "\udcff"
    assert found[4] == Row(f"{path}:6", {"a": 2})


def test_a_number_in_an_array_knows_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[\n {"a": 1},\n {\n  "a": 2\n },\n 7,\n {"a": 3}\n]\n')
    assert [row.where.rpartition(":")[2] for row in read_rows(path)] == ["2", "3", "6", "7"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1}, {"a": ', "ends within its array"),
        ('[{"a": 1}', "ends within its array"),
        ('[{"a": 1}, {"a" 2},' + ' {"a": 3},' * 20, "not valid JSON"),
    ],
)
def test_what_comes_before_the_damage_is_kept(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    first, last = read_rows(path)
    assert first == Row(f"{path}:1", {"a": 1})
    assert isinstance(last, BadRow)
    assert "the rest of the file is lost" in last.reason
    assert words in last.reason


def test_a_gzip_file_that_was_cut_gives_what_it_holds(tmp_path: Path) -> None:
    digits = random.Random(1).randbytes(20_000 * 60).hex()
    rows = (f'{{"a": {n}, "text": "{digits[120 * n : 120 * n + 120]}"}}\n' for n in range(20_000))
    whole = gzip.compress("".join(rows).encode(), compresslevel=1)
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    found = list(read_rows(path))
    assert len(found) > 1000
    assert isinstance(found[-1], BadRow)
    assert "the rest of the file is lost" in found[-1].reason


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.json", b"", "empty; expected rows"),
        ("none.json", None, "cannot be read"),
        ("bad.parquet", b"PAR1 but not really", "not a sound Parquet file"),
        ("bad.jsonl.gz", b"\x1f\x8b broken", "cannot be read"),
        ("bad.json", b"[nothing of the kind " + b"x" * 99, "not valid JSON"),
    ],
)
def test_a_file_that_gives_nothing_is_an_error(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFileError, match=words) as caught:
        list(read_rows(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    row = json.dumps({"text": "word " * 200})
    with path.open("w") as file:
        file.write("[" if name == "rows.json" else "")
        for number in range(12_000):
            file.write(("," if number and name == "rows.json" else "") + row + "\n")
        file.write("]" if name == "rows.json" else "")
    told = 0

    def count(size: int) -> None:
        nonlocal told
        told += size

    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(path, on_bytes=count)) == 12_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert told == path.stat().st_size > 12e6
    assert peak < 10e6


def test_a_data_set_of_the_library_is_read_split_by_split(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"question": "Why?"}\n{"question": "How?"}\n')
    (tmp_path / "test.jsonl").write_text('{"question": "Who?"}\n')
    rows = list(read_hub(f"{tmp_path}#train"))
    assert [row.fields["question"] for row in rows if isinstance(row, Row)] == ["Why?", "How?"]
    assert rows[0].where == f"hf:{tmp_path}#train:1"
    with pytest.raises(UsageError, match=r"expected one of its splits, for example .*#(train|test)"):
        list(read_hub(str(tmp_path)))
    with pytest.raises(BadFileError, match="cannot load it"):
        list(read_hub(f"{tmp_path / 'nothing'}#train"))
