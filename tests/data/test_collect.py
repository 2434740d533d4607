"""Collecting: every row becomes a sample or is counted with a reason; nothing depends on where it stood."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from selfee.data.collect import (
    CollectSettings,
    Input,
    Rejected,
    collect,
    parse_input,
    rejects_path,
    report_path,
    write_collection,
)
from selfee.data.sample import Sample, content_id, read_samples
from selfee.errors import UsageError


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def gsm8k(count: int, first: int = 0) -> list[dict[str, str]]:
    return [{"question": f"What is {n} and {n}?", "answer": f"Add.\n#### {2 * n}"} for n in range(first, first + count)]


def test_every_row_is_a_sample_or_rejected_and_all_are_counted(tmp_path: Path) -> None:
    rows: list[Any] = [*gsm8k(3), *gsm8k(1), {"question": "?"}, [1], {"question": "\ud800 x", "answer": "#### 1"}]
    path = write(tmp_path / "train.jsonl", rows)
    out = tmp_path / "samples.jsonl"
    counts = write_collection([Input("gsm8k", path, "train")], out)["gsm8k"]
    kept = list(read_samples(out))
    assert [sample.id for sample in kept] == [content_id(row["question"]) for row in gsm8k(3)]
    assert {(sample.source, sample.split, sample.reference) for sample in kept[:1]} == {
        ("gsm8k", "train", "Add.\n#### 0")
    }
    assert kept[1].origin == f"{path}:2"
    assert counts.to_json() == {
        "read": 7,
        "kept": 3,
        "with_reference": 3,
        "splits": {"train": 3},
        "rejected": {"duplicate": 1, "field missing": 1, "not valid Unicode": 1, "unreadable row": 1},
    }
    rejected = [json.loads(line) for line in rejects_path(out).read_text().splitlines()]
    assert [row["where"] for row in rejected] == [f"{path}:{line}" for line in (4, 5, 6, 7)]
    assert rejected[0]["detail"] == f"of {kept[0].id}"
    stored = json.loads(report_path(out).read_text())
    assert stored["sources"]["gsm8k"] == counts.to_json()
    assert stored["settings"]["reading"]["question_rule"] == "answer"


def test_test_splits_stay_out_unless_asked_for(tmp_path: Path) -> None:
    given = Input("gsm8k", write(tmp_path / "test.jsonl", gsm8k(2)), "test")
    assert {row.reason for row in collect([given]) if isinstance(row, Rejected)} == {"test split"}
    assert len([row for row in collect([given], CollectSettings(with_test=True)) if isinstance(row, Sample)]) == 2


def test_rows_that_say_their_split_win_over_the_user(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": f"Task {n}.", "code": "x", "task_id": n, "test_list": []} for n in (5, 100, 520, 700)
    ]
    path = write(tmp_path / "mbpp.jsonl", rows)
    told = [row for row in collect([Input("mbpp", path)]) if isinstance(row, Sample)]
    assert [row.split for row in told] == ["prompt", "validation", "train"]
    only = list(collect([Input("mbpp", path, "train")]))
    assert [getattr(row, "reason", "") for row in only] == ["another split", "another split", "another split", ""]


def test_halves_of_characters_are_rejected_wherever_they_stand_and_written_all_the_same(tmp_path: Path) -> None:
    talk = [
        {"from": "human", "value": "Was ist das \udc80 f\u00fcr ein Zeichen?"},
        {"from": "gpt", "value": "Nothing."},
    ]
    given = [
        Input(
            "gsm8k", write(tmp_path / "test.jsonl", [{"question": "Half \ud83d of one?", "answer": "#### 1"}]), "test"
        ),
        Input("sharegpt", write(tmp_path / "sg.jsonl", [{"id": "\udcff", "conversations": talk}])),
    ]
    english = [{"from": "human", "value": "What is this sign?"}, {"from": "gpt", "value": "Nothing."}]
    given.append(Input("sharegpt", write(tmp_path / "id.jsonl", [{"id": "\udcff", "conversations": english}])))
    write_collection(given, tmp_path / "samples.jsonl")
    reasons = [json.loads(line) for line in rejects_path(tmp_path / "samples.jsonl").read_text("utf-8").splitlines()]
    assert [row["reason"] for row in reasons] == ["test split", "question not in English", "not valid Unicode"]
    assert reasons[0]["text"] == "Half ? of one?"


def test_the_draw_of_a_task_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    rows = [
        {"inputs": f"Question {n} of {task}", "targets": "x", "task": task} for n in range(50) for task in ("a", "b")
    ]
    one = Input("flan", write(tmp_path / "one.jsonl", [*rows, rows[0]]))
    other = Input("flan", write(tmp_path / "other.jsonl", rows[::-1]))

    def drawn(given: Input, per_task: int = 10) -> set[str]:
        return {row.id for row in collect([given], CollectSettings(per_task=per_task)) if isinstance(row, Sample)}

    assert drawn(one) == drawn(other)
    assert len(drawn(one)) == 20
    assert drawn(one, 3) < drawn(one)
    found = list(collect([one]))
    assert len(found) == 101
    assert Counter(row.extra["task"] for row in found if isinstance(row, Sample)) == {"a": 10, "b": 10}


def test_near_duplicates_go_where_people_ask_and_stay_where_exercises_are_alike(tmp_path: Path) -> None:
    text = (
        "Please write a long and friendly letter to my landlord about the broken heating in the flat on the third floor"
    )
    talks = [
        {
            "id": str(n),
            "conversations": [{"from": "human", "value": f"{text}{end}"}, {"from": "gpt", "value": "Dear landlord."}],
        }
        for n, end in enumerate(
            ("", " now", " and the lift, the door, the roof, the garden and all the noisy neighbours")
        )
    ]
    alike = [{"instruction": f"{text}{end}", "input": "", "output": ""} for end in (" today", " soon")]
    given = [
        Input("sharegpt", write(tmp_path / "sg.jsonl", talks)),
        Input("alpaca", write(tmp_path / "alpaca.jsonl", alike)),
    ]
    results = [getattr(row, "reason", "kept") for row in collect(given)]
    assert results == ["kept", "near-duplicate", "kept", "kept", "kept"]
    everywhere = CollectSettings(near_in=("sharegpt", "alpaca"))
    assert [getattr(row, "reason", "kept") for row in collect(given, everywhere)][3:] == ["near-duplicate"] * 2
    assert all(isinstance(row, Sample) for row in collect(given, CollectSettings(threshold=1.0)))


def test_inputs_are_named_with_source_and_split() -> None:
    assert parse_input("gsm8k@train:a/b.jsonl") == Input("gsm8k", "a/b.jsonl", "train")
    assert parse_input("math:hf:some/math@algebra#train") == Input("math", "hf:some/math@algebra#train")
    for text in ("file.jsonl", "unknown:file.jsonl", "gsm8k:", "GSM8K:x"):
        with pytest.raises(UsageError, match="expected SOURCE:PATH"):
            parse_input(text)


def test_a_source_without_that_name_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="near-duplicates in 'nobody'"):
        next(collect([Input("gsm8k", "missing")], CollectSettings(near_in=("nobody",))))


def test_a_failed_collection_leaves_no_half_file(tmp_path: Path) -> None:
    good = Input("gsm8k", write(tmp_path / "good.jsonl", gsm8k(2)))
    out = tmp_path / "samples.jsonl"
    with pytest.raises(Exception, match="cannot be read"):
        write_collection([good, Input("gsm8k", str(tmp_path / "missing.jsonl"))], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.jsonl"]


@pytest.mark.corpus
def test_the_real_files_give_the_known_counts(corpus: Path) -> None:
    public = corpus / "public"
    given = [
        Input("gsm8k", str(public / "gsm8k_train.jsonl"), "train"),
        Input("aqua", str(public / "aqua_dev.jsonl"), "validation"),
        Input("mbpp", str(public / "mbpp.jsonl")),
        Input("drrepair", str(public / "drrepair_err_dev_1000.jsonl"), "validation"),
        Input("flan", str(public / "flan_cot_aqua_train.tsv"), "train"),
    ]
    found = list(collect(given))
    kept = Counter(row.source for row in found if isinstance(row, Sample))
    reasons = Counter((row.source, row.reason) for row in found if isinstance(row, Rejected))
    assert kept == {"gsm8k": 7473, "aqua": 254, "mbpp": 474, "drrepair": 999, "flan": 10}
    assert reasons == {
        ("mbpp", "test split"): 500,
        ("drrepair", "nothing to repair"): 1,
        ("flan", "more than 10 of the task"): 2718,
    }
    assert all(row.reference for row in found if isinstance(row, Sample))
