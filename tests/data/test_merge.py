"""Merging: one training set, checked, without repetitions and evaluation questions, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.chain.record import to_json
from selfee.chain.types import Chain, ChainEnd, Instruction, Step
from selfee.chain.verdict import find_verdict
from selfee.data.files import Row, read_rows
from selfee.data.merge import MANIFEST, ChainFile, MergeSettings, merge, parse_chain_file, split_of
from selfee.data.records import BadRecordError, read_record
from selfee.data.sample import content_id
from selfee.errors import UsageError


def chain(question: str, *turns: tuple[str, str], **fields: Any) -> dict[str, Any]:
    """A record as SelFee's augmented files have them."""
    outputs = [
        {"output": answer, "feedback": feedback}
        for answer, feedback in turns or (("Blue.", "Revision is not needed."),)
    ]
    row = {
        "iteration_truncated": False,
        "instruction": question,
        "input": "",
        "iteration": len(outputs),
        "outputs": outputs,
    }
    return row | fields


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(tmp_path: Path, rows: list[Any], source: str = "conala", **options: Any) -> tuple[Path, Any]:
    folder = tmp_path / "training"
    folder.mkdir(exist_ok=True)
    against = options.pop("against", ())
    given = [ChainFile(write(tmp_path / "chains.jsonl", rows), source)]
    return folder, merge(given, folder, against, MergeSettings(**{"validation": 0.0} | options))


def test_a_record_keeps_its_fields_and_gets_its_true_source_and_id() -> None:
    row = chain("Why?", output="Scattering.", provenance={"model": "m", "cost": 0.1})
    record = read_record(Row("f:1", row | {"dataset": "repair"}))
    assert record.source == "drrepair"
    assert list(record.fields) == [
        *("iteration_truncated", "output", "instruction", "input", "iteration", "outputs"),
        *("dataset", "id", "provenance"),
    ]
    assert record.fields["dataset"] == "drrepair"
    assert record.fields["id"] == content_id("Why?")
    assert record.fields["provenance"] == {"model": "m", "cost": 0.1}
    assert read_record(Row("f:1", row), "mbpp").source == "mbpp"
    assert read_record(Row("f:1", row | {"source": "gsm8k", "dataset": "repair"})).source == "gsm8k"


def test_chains_in_our_own_format_are_taken_too() -> None:
    made = Chain(Instruction("Why?"), (Step("Blue.", "Good.", find_verdict("Good.")),), ChainEnd.ACCEPTED, "done")
    record = read_record(Row("f:1", to_json(made)), "mine")
    assert record.fields["outputs"] == [{"output": "Blue.", "feedback": "Good."}]
    assert record.fields["iteration_truncated"] is False


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "Why?"}, "not a chain"),
        (chain("Why?") | {"outputs": []}, "not a chain"),
        (chain("Why?") | {"outputs": [{"output": 3, "feedback": ""}]}, "not a chain"),
        (chain(" "), "empty instruction"),
        (chain("Why?") | {"iteration": 2}, "iteration is not the number of answers"),
        (chain("Why?", (" ", "Revision is needed.")), "empty answer"),
        (chain("Why?", ("a", ""), ("b", "Revision is not needed.")), "feedback missing"),
        (chain("Why?", ("a\n### Feedback 1:\nb", "Good.")), "cannot be written as one text"),
        (chain("Why \ud800?"), "not valid Unicode"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_a_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecordError) as caught:
        read_record(Row("f:1", row))
    assert caught.value.reason == reason


def test_both_forms_hold_the_same_records_and_any_reader_reads_them(tmp_path: Path) -> None:
    rows = [chain(f"Why {n}? \u2028 \x85 é", output="x") for n in range(5)]
    folder, report = run(tmp_path, [*rows, rows[0], [1]], source="alpaca")
    text = (folder / "train.jsonl").read_text(encoding="utf-8")
    assert text.isascii()
    assert len(text.splitlines()) == 5
    array = json.loads((folder / "train.json").read_text())
    assert array == lines(folder / "train.jsonl")
    assert [row["instruction"] for row in array] == [row["instruction"] for row in rows]
    assert json.loads((folder / "validation.json").read_text()) == []
    assert report.sources["alpaca"].to_json() == {
        "read": 7,
        "kept": 5,
        "train": 5,
        "validation": 0,
        "rejected": {"duplicate": 1, "unreadable row": 1},
    }
    assert [(row["where"], row["reason"]) for row in lines(folder / "rejected.jsonl")] == [
        ("chains.jsonl:6", "duplicate"),
        ("chains.jsonl:7", "unreadable row"),
    ]


def test_other_libraries_read_both_forms(tmp_path: Path) -> None:
    import pyarrow.json

    rows = [chain("Why?", ("a", "Revision is needed."), ("b", "Good.")), chain("How?", output="gold")]
    folder, _ = run(tmp_path, rows)
    table = pyarrow.json.read_json(folder / "train.jsonl")
    assert table.num_rows == 2
    assert table.column("outputs")[0].as_py()[1] == {"output": "b", "feedback": "Good."}
    assert [row.fields["iteration"] for row in read_rows(folder / "train.json") if isinstance(row, Row)] == [2, 1]


def test_the_manifest_knows_every_file_by_its_hash(tmp_path: Path) -> None:
    folder, report = run(tmp_path, [chain("Why?")])
    manifest = json.loads((folder / MANIFEST).read_text())
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {MANIFEST}
    for name, told in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert told["sha256"] == hashlib.sha256(data).hexdigest()
        assert told["bytes"] == len(data)
    source = (tmp_path / "chains.jsonl").read_bytes()
    assert manifest["inputs"] == [
        {
            "name": "chains.jsonl",
            "source": "conala",
            "rows": 1,
            "bytes": len(source),
            "sha256": hashlib.sha256(source).hexdigest(),
        }
    ]
    assert manifest["made_by"].startswith("selfee ")
    assert str(tmp_path) not in json.dumps(manifest)
    assert report.to_json() == {name: manifest[name] for name in ("sources", "evaluations", "inputs", "files")}


def test_the_same_files_give_the_same_bytes_in_another_place_and_process(tmp_path: Path) -> None:
    text = "Write a function to find the longest palindromic subsequence in the given"
    rows = [chain(f"Why is number {n} what it is?") for n in range(300)]
    rows += [chain(f"{text} {word}.") for word in ("string", "list", "word")]
    questions = [{"question_id": n, "text": f"{text} {word}."} for n, word in enumerate(("string", "text"))]
    code = (
        "import sys\nfrom pathlib import Path\nfrom selfee.data.merge import ChainFile, MergeSettings, merge\n"
        "here = Path(sys.argv[1])\n(here / 'out').mkdir()\n"
        "settings = MergeSettings(validation=0.2, threshold=0.8)\n"
        "merge([ChainFile(here / 'chains.jsonl', 'x')], here / 'out', [str(here / 'q.jsonl')], settings)\n"
    )
    for name in ("one", "two"):
        place = tmp_path / name
        place.mkdir()
        write(place / "chains.jsonl", rows)
        write(place / "q.jsonl", questions)
        source = str(Path(__file__).resolve().parents[2] / "src")
        env = os.environ | {"PYTHONHASHSEED": str(len(name) + ord(name[0])), "PYTHONPATH": source}
        subprocess.run([sys.executable, "-c", code, str(place)], check=True, timeout=60, env=env)
    one, two = (tmp_path / name / "out" for name in ("one", "two"))
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name
    assert len(lines(one / "contaminated.jsonl")) >= 2


@given(st.text(max_size=10), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_question_held_back_stays_held_back_when_more_is_held_back(id: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if split_of(id, low) == "validation":
        assert split_of(id, high) == "validation"
    assert split_of(id, 0.0) == "train"


def test_the_share_held_back_is_the_one_asked_for_whatever_ids_were_drawn() -> None:
    ids = [f"{n:020x}" for n in range(20_000)]  # all begin alike, as those of Flan's draw do
    share = sum(split_of(id, 0.05) == "validation" for id in ids) / len(ids)
    assert abs(share - 0.05) < 0.006


def test_evaluation_questions_are_taken_out_and_reported(tmp_path: Path) -> None:
    asked = "Write a function to find the longest palindromic subsequence in the given string."
    questions = write(tmp_path / "questions.jsonl", [{"question_id": 7, "text": asked}])
    near = asked.replace("the given", "a given")
    rows = [
        chain("Why is the sky blue at noon and red in the evening?"),
        chain(asked),
        chain(near),
        chain("Say it.", (asked, "Good.")),
    ]
    folder, report = run(tmp_path, rows, against=[str(questions)])
    assert [row["instruction"] for row in lines(folder / "train.jsonl")] == [rows[0]["instruction"], "Say it."]
    assert dict(report.evaluations["questions.jsonl"]) == {"questions": 1, "exact": 1, "near": 1}
    found = lines(folder / "contaminated.jsonl")
    assert [(row["kind"], row["evaluation"]["id"], row["id"]) for row in found] == [
        ("exact", "7", content_id(asked)),
        ("near", "7", content_id(near)),
    ]
    reasons = report.sources["conala"].rejected
    assert reasons == {"evaluation question, exact": 1, "evaluation question, near": 1}


def test_contaminated_records_can_be_kept_and_answers_checked(tmp_path: Path) -> None:
    asked = "Write a function to find the longest palindromic subsequence in the given string."
    questions = write(tmp_path / "questions.jsonl", [{"text": asked}])
    rows = [chain(asked), chain("Say it.", (asked, "Good."))]
    folder, report = run(tmp_path, rows, against=[str(questions)], keep_contaminated=True, check_answers=True)
    assert len(lines(folder / "train.jsonl")) == 2
    assert report.evaluations["questions.jsonl"]["exact"] == 2


def test_a_record_of_a_test_split_is_never_trained_on(tmp_path: Path) -> None:
    rows = [chain("Why?", split="test"), chain("How?", split="train")]
    folder, report = run(tmp_path, rows)
    assert [row["instruction"] for row in lines(folder / "train.jsonl")] == ["How?"]
    assert report.sources["conala"].rejected == {"test split": 1}


def test_near_duplicates_are_only_taken_out_where_asked(tmp_path: Path) -> None:
    text = "Please write a long and friendly letter to my landlord about the broken heating on the third floor"
    rows = [chain(text), chain(text + " now")]
    assert run(tmp_path, rows)[1].sources["conala"].kept == 2
    assert run(tmp_path, rows, threshold=0.8)[1].sources["conala"].rejected == {"near-duplicate": 1}


def test_a_record_of_no_known_source_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"chains\.jsonl:1: does not say .* conala:"):
        run(tmp_path, [chain("Why?")], source="")


def test_files_are_named_with_or_without_their_source(tmp_path: Path) -> None:
    odd = tmp_path / "a:b.jsonl"
    odd.touch()
    assert parse_chain_file("x/y.jsonl") == ChainFile(Path("x/y.jsonl"))
    assert parse_chain_file("repair:x.jsonl") == ChainFile(Path("x.jsonl"), "drrepair")
    assert parse_chain_file("mine:x.jsonl") == ChainFile(Path("x.jsonl"), "mine")
    assert parse_chain_file(str(odd)) == ChainFile(odd)


@pytest.mark.corpus
def test_selfees_own_files_are_read_and_their_test_problems_found(corpus: Path, tmp_path: Path) -> None:
    given = [
        ChainFile(corpus / "selfee" / "augmented" / f"feedback_gpt_3.5_turbo_{name}.jsonl", name)
        for name in ("conala", "mbpp")
    ]
    public = corpus / "public"
    report = merge(given, tmp_path, [f"mbpp@test:{public / 'mbpp.jsonl'}", str(public / "vicuna_bench_question.jsonl")])
    assert {name: count.read for name, count in report.sources.items()} == {"conala": 2000, "mbpp": 600}
    assert report.sources["conala"].rejected == {"duplicate": 85}
    assert report.sources["mbpp"].rejected["evaluation question, exact"] == 249
    assert report.evaluations["vicuna_bench_question.jsonl"] == {"questions": 80, "exact": 0, "near": 0}
