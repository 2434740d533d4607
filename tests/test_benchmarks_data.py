"""The synthetic conversations that collecting is measured with are what they promise to be."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from benchmarks.data import FOREIGN_SHARE, MOVED, conversations

from selfee.data.collect import Input, write_collection
from selfee.data.sample import read_samples


def test_the_rows_hold_the_shares_of_languages_and_repetitions_that_are_announced(tmp_path: Path) -> None:
    count = 500
    rows = list(conversations(count))
    assert rows == list(conversations(count))
    path, out = tmp_path / "sg.json", tmp_path / "samples.jsonl"
    path.write_text(json.dumps(rows), encoding="utf-8")
    reasons: Counter[str] = write_collection([Input("sharegpt", str(path))], out)["sharegpt"].rejected
    assert abs(reasons["duplicate"] / count - MOVED) < 0.03
    assert abs(reasons["question not in English"] / count - FOREIGN_SHARE) < 0.04
    assert 0 < reasons["near-duplicate"] / count < MOVED + 0.02
    assert set(reasons) <= {"duplicate", "near-duplicate", "question not in English", "answer not in English"}
    code = [sample.answer for sample in read_samples(out) if sample.answer and "```python\n" in sample.answer]
    assert len(code) > count / 5
    assert not any("Copy code" in answer or "<span" in answer for answer in code)
