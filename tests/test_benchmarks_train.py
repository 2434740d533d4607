"""The benchmark of training: every engine takes the same steps in turns, and the first is not counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import train

from selfee.train.config import Precision, TrainConfig


def test_engines_take_turns_on_the_same_rows_and_the_median_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def engine(name: str, seconds: list[float]) -> object:
        def make(folder: Path, config: TrainConfig) -> train.Engine:
            left = list(seconds)

            def step(rows: train.Rows) -> float:
                asked.append((name, train.tokens(rows)))
                return train.tokens(rows) / left.pop(0)

            return step

        return make

    monkeypatch.setattr(train, "ENGINES", {"a": engine("a", [1, 50, 70, 60]), "b": engine("b", [9999, 20, 10, 30])})
    speeds = train.measure(tmp_path, train.settings(Precision.FP32), 1000, 3)
    assert speeds == pytest.approx({"a": 60, "b": 20})
    assert [name for name, _ in asked] == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert all(first[1] == second[1] for first, second in zip(asked[::2], asked[1::2], strict=True))


def test_rows_are_drawn_from_a_seed_and_learned_behind_their_prompt() -> None:
    rows = train.rows_of(50, 3)
    assert [row[0].ids for row in rows] == [row[0].ids for row in train.rows_of(50, 3)]
    assert [row[0].ids for row in rows] != [row[0].ids for row in train.rows_of(50, 4)]
    for (example,) in rows:
        assert example.labels[: len(example.ids) // 4] == [-100] * (len(example.ids) // 4)
        assert example.learned == len(example.ids) - len(example.ids) // 4
        assert max(example.ids) < 50
