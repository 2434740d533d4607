"""What is measured, and what its shares mean; the figures themselves are the machine's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import make_tiny

from selfee.errors import BadFileError, ResourceError
from selfee.eval import bench
from selfee.eval.bench import Bench, Work, name_of
from selfee.eval.bench_child import ANSWER, GENERATE, PASS, PROMPT, REVISED, REVISION, Case, Stopwatch
from selfee.eval.child import ask_child
from selfee.eval.limits import Limits
from selfee.eval.models import open_measured
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType

CASES = (Case(PROMPT, 512), Case(GENERATE, 128), Case(PASS, 8), Case(REVISION), Case(REVISION, drafting=True))


def test_cases_have_the_names_people_know() -> None:
    assert [name_of(case) for case in CASES] == ["pp512", "tg128", "pass8", "revision", "revision-drafted"]


def test_the_revision_repeats_most_of_its_answer() -> None:
    repeated = sum(word in ANSWER.split() for word in REVISED.split())
    assert 0.8 < repeated / len(REVISED.split()) < 1


@pytest.mark.parametrize("tied", [False, True])
def test_work_counts_every_matrix_that_a_token_meets(tmp_path: Path, tied: bool) -> None:
    with open_checkpoint(make_tiny(tmp_path / "t.gguf", type=QuantType.Q8_0, tied=tied)) as checkpoint:
        work = Work.of(checkpoint)
        tensors = checkpoint.tensors
        embedding = tensors["token_embd.weight"]
        assert work.head == embedding.shape[0] * embedding.shape[1]
        every = sum(tensor.nbytes for tensor in tensors.values())
        assert work.bytes_read == (every if tied else every - embedding.nbytes)
        assert work.is_quantised
    assert work.bytes_of(Case(GENERATE, 10)) == 10 * work.bytes_read
    assert work.bytes_of(Case(PROMPT, 257)) == 2 * work.bytes_read
    assert work.bytes_of(Case(REVISION)) is None
    assert work.multiply_adds_of(Case(PROMPT, 10)) == 10 * work.layers + work.head
    assert work.multiply_adds_of(Case(PASS, 10)) == 10 * (work.layers + work.head)
    assert replace(work, is_quantised=False).multiply_adds_of(Case(PASS, 10)) is None


def test_weights_that_are_floats_have_no_products_of_bytes(tmp_path: Path) -> None:
    with open_checkpoint(make_tiny(tmp_path / "t.gguf", type=QuantType.F16)) as checkpoint:
        assert not Work.of(checkpoint).is_quantised


@pytest.mark.parametrize("case", [Case(PROMPT, 300), Case(GENERATE, 1), Case(GENERATE, 20), Case(PASS, 3)])
def test_every_case_is_timed_over_its_tokens(tmp_path: Path, case: Case) -> None:
    with open_measured(make_tiny(tmp_path / "t.gguf"), case.context) as measured:
        timed = Stopwatch(measured).time(case)
    assert timed.tokens == case.tokens
    assert timed.seconds > 0


def test_a_revision_is_the_same_text_with_and_without_drafting(tmp_path: Path) -> None:
    plain, drafted = Case(REVISION), Case(REVISION, drafting=True)
    with open_measured(make_tiny(tmp_path / "t.gguf"), plain.context) as measured:
        watch = Stopwatch(measured)
        assert watch.time(plain).tokens == watch.time(drafted).tokens
        assert watch.time(plain).tokens == len(measured.tokenizer.encode(REVISED, add_bos=False))


class FakeMachine:
    """Limits that never change."""

    def __init__(self, largest: int) -> None: ...

    def measure(self, size: int, threads: int) -> Limits:
        return Limits(float(size * threads), 1e9)


def test_medians_of_rounds_are_told_and_order_alternates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make_tiny(tmp_path / "one.gguf", type=QuantType.Q8_0), make_tiny(tmp_path / "two.gguf")
    asked: list[str] = []

    def fake_child(module: str, words: Sequence[str], path: Path, expected: str, on_line: Any) -> dict[str, Any]:
        asked.append(path.stem)
        seconds = float(asked.count(path.stem))
        on_line({"done": 1})
        return {"results": [{"seconds": seconds, "tokens": 6}], "load": seconds, "peak": len(asked)}

    monkeypatch.setattr(bench, "Machine", FakeMachine)
    monkeypatch.setattr(bench, "ask_child", fake_child)
    measured = Bench([one, two], [2], [Case(PASS, 6)], 3)
    assert measured.steps == 6
    assert measured.results() == []
    steps: list[str] = []
    measured.run(steps.append)
    assert asked == ["one", "two", "two", "one", "one", "two"]
    assert len(steps) == 6
    first, second = measured.results()
    (case,) = first.cases
    assert (case.seconds, case.tokens_per_second, case.slowest, case.fastest) == (2, 3, 2, 6)
    assert case.of_reading == 0.25  # one pass in the time of two, at the rate of two threads
    assert (first.rounds, first.load_seconds, first.peak_memory) == (3, 2, 5)
    assert second.cases[0].of_multiplying is None


def test_what_was_finished_before_a_ctrl_c_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make_tiny(tmp_path / "one.gguf"), make_tiny(tmp_path / "two.gguf")
    asked: list[Path] = []

    def fake_child(module: str, words: Sequence[str], path: Path, expected: str, on_line: Any) -> dict[str, Any]:
        asked.append(path)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return {"results": [{"seconds": 1.0, "tokens": 6}], "load": 1.0, "peak": 1}

    monkeypatch.setattr(bench, "Machine", FakeMachine)
    monkeypatch.setattr(bench, "ask_child", fake_child)
    measured = Bench([one, two], [1], [Case(PASS, 6)], 3)
    with pytest.raises(KeyboardInterrupt):
        measured.run()
    assert [(result.file, result.rounds) for result in measured.results()] == [("one.gguf", 1), ("two.gguf", 2)]


def test_a_real_round_fills_every_field(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "t.gguf", type=QuantType.Q8_0)
    measured = Bench([path], [1], [Case(PROMPT, 16), Case(GENERATE, 4)], 1)
    measured.run()
    (result,) = measured.results()
    assert [case.name for case in result.cases] == ["pp16", "tg4"]
    assert result.peak_memory > path.stat().st_size
    assert result.read_limit > 0
    assert all(case.of_reading and case.of_multiplying for case in result.cases)


def test_a_file_that_is_no_model_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadFileError, match=r"no\.gguf"):
        Bench([make_tiny(tmp_path / "t.gguf"), tmp_path / "no.gguf"], [1], CASES, 1)


def test_a_child_that_says_nothing_is_an_error_that_tells_its_end(tmp_path: Path) -> None:
    with pytest.raises(
        ResourceError, match=r"m\.gguf: the process that ran it ended with exit code 1 \(.*\); expected it"
    ):
        ask_child("selfee.no_such_module", [], Path("m.gguf"), "it to run")
