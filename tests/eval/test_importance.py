"""Importance matrices computed: the slow twin's sums, and stopping anywhere changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.eval.prose import prose
from tests.tiny import make_tiny

from selfee.errors import UsageError
from selfee.eval.chunks import Chunks, Text, cut
from selfee.eval.importance import Collector
from selfee.eval.models import FileIdentity, open_measured
from selfee.llama.reference import ReferenceSession
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.imatrix import Importance, read_imatrix, write_imatrix
from selfee.weights.quants import QuantType

TEXT = Text("t.txt", prose(200), "hash")
N_CTX = 32


@contextmanager
def collecting(path: Path, threads: int = 1, with_output: bool = False) -> Iterator[tuple[Collector, Chunks]]:
    with open_measured(path, N_CTX, threads) as measured:
        collector = Collector(measured.model, FileIdentity.of(path), TEXT, N_CTX, with_output=with_output)
        yield collector, cut(TEXT, measured.tokenizer, N_CTX)


def collected(path: Path, threads: int = 1, with_output: bool = False) -> Importance:
    with collecting(path, threads, with_output) as (collector, chunks):
        collector.read(chunks)
        return collector.result()


def test_importance_is_the_mean_square_that_the_slow_twin_sees(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf", vocab="spm")
    with collecting(path, with_output=True) as (collector, chunks):
        collector.read(chunks)
        found = collector.result()
    totals: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}
    with open_checkpoint(path) as checkpoint:
        for index in range(len(chunks)):
            twin = ReferenceSession(checkpoint)
            twin.forward(chunks.evaluated(index).tolist(), "all")
            for name, squares in twin.squares.items():
                totals[name] = totals.get(name, np.zeros(squares.shape)) + squares
        found.check(checkpoint)
    assert set(found) == set(totals)
    for name, total in totals.items():
        np.testing.assert_allclose(found[name], total / (len(chunks) * N_CTX), rtol=5e-4, err_msg=name)


def test_the_output_matrix_is_left_out_unless_asked_for_as_llama_cpp_does(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf")
    assert set(collected(path, with_output=True)) - set(collected(path)) == {"output.weight"}


def bits_of(importance: Importance) -> dict[str, bytes]:
    return {name: sums.squares.tobytes() + sums.counts.tobytes() for name, sums in importance.sums.items()}


def test_threads_do_not_change_a_bit(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf", type=QuantType.Q4_0)
    assert bits_of(collected(path, 1)) == bits_of(collected(path, 3))


@settings(max_examples=8)
@given(st.data())
def test_stopped_and_gone_on_with_is_the_same_as_never_stopped(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("im")
    path = make_tiny(folder / "m.gguf", type=QuantType.Q4_0, n_layer=1)
    whole = collected(path)
    stops = sorted(data.draw(st.sets(st.integers(1, whole.chunks - 1), min_size=1, max_size=2)))
    for stop in [*stops, None]:
        with collecting(path) as (collector, chunks):
            if (folder / "i.gguf").exists():
                collector.go_on(read_imatrix(folder / "i.gguf"))
            interrupt_after(collector, chunks, stop)
            write_imatrix(folder / "i.gguf", collector.result())
    found = read_imatrix(folder / "i.gguf")
    assert bits_of(found) == bits_of(whole)
    assert (found.chunks, found.notes) == (whole.chunks, whole.notes)


def interrupt_after(collector: Collector, chunks: Chunks, stop: int | None) -> None:
    def on_chunk(done: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    try:
        collector.read(chunks, on_chunk)
    except KeyboardInterrupt:
        assert collector.chunks == stop


@pytest.mark.parametrize("other", ["model", "text", "context", "tensors"])
def test_what_an_earlier_run_of_something_else_saved_is_not_gone_on_with(tmp_path: Path, other: str) -> None:
    path = make_tiny(tmp_path / "m.gguf")
    write_imatrix(tmp_path / "i.gguf", collected(path))
    earlier = read_imatrix(tmp_path / "i.gguf")
    second = make_tiny(tmp_path / "n.gguf", seed=1) if other == "model" else path
    text = Text("t.txt", TEXT.content, "other hash") if other == "text" else TEXT
    n_ctx = 16 if other == "context" else N_CTX
    with open_measured(second, n_ctx) as measured:
        collector = Collector(measured.model, FileIdentity.of(second), text, n_ctx, with_output=other == "tensors")
        with pytest.raises(UsageError, match=f"is of another .*{other}"):
            collector.go_on(earlier)


def test_a_matrix_of_llama_cpp_is_not_gone_on_with(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf")
    foreign = collected(path)
    foreign.notes = {}
    with collecting(path) as (collector, _), pytest.raises(UsageError, match="another model and another text"):
        collector.go_on(foreign)
