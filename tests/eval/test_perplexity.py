"""Perplexity against its formula, computed by the slow twin and plain NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.eval.prose import prose
from tests.tiny import make_tiny

from selfee.errors import BadFileError
from selfee.eval import perplexity as module
from selfee.eval.chunks import Chunks, Text, cut
from selfee.eval.models import open_measured
from selfee.eval.perplexity import Estimate, Evaluator, log_softmax, perplexity, surprise
from selfee.llama.reference import ReferenceSession
from selfee.weights.open import open_checkpoint

TEXT = Text("t.txt", prose(300), "")
N_CTX = 32


@contextmanager
def evaluator_of(path: Path, threads: int = 1) -> Iterator[tuple[Evaluator, Chunks]]:
    with open_measured(path, N_CTX, threads) as measured:
        evaluator = Evaluator(measured.model.new_session(), measured.model.config.vocabulary, str(path))
        yield evaluator, cut(TEXT, measured.tokenizer, N_CTX)


def by_formula(path: Path, chunks: Chunks) -> tuple[float, float]:
    """exp(mean -ln p) over the second halves, every chunk evaluated whole by the slow twin."""
    found = []
    with open_checkpoint(path) as checkpoint:
        for index in range(len(chunks)):
            tokens = chunks.evaluated(index).tolist()
            logits = ReferenceSession(checkpoint).forward(tokens, "all").astype(np.float64)
            for position in range(N_CTX // 2, N_CTX - 1):
                row = logits[position]
                p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
                found.append(-math.log(p[tokens[position + 1]]))
    mean = sum(found) / len(found)
    variance = sum(value * value for value in found) / len(found) - mean * mean
    return math.exp(mean), math.exp(mean) * math.sqrt(variance / (len(found) - 1))


@pytest.mark.parametrize("vocab", ["bpe", "spm"])
def test_perplexity_is_what_the_formula_says(tmp_path: Path, vocab: Any) -> None:
    path = make_tiny(tmp_path / "m.gguf", vocab=vocab)
    with evaluator_of(path) as (evaluator, chunks):
        found = perplexity(evaluator, chunks)
    value, error = by_formula(path, chunks)
    assert found.value == pytest.approx(value, rel=1e-4)
    assert found.error == pytest.approx(error, rel=1e-3)


def test_threads_and_the_size_of_portions_do_not_change_a_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_tiny(tmp_path / "m.gguf")
    with evaluator_of(path) as (evaluator, chunks):
        expected = perplexity(evaluator, chunks)
    for name, value in (("_MOST_ROWS", 1), ("_MOST_ROWS", 7), ("_BLOCK", 1), ("_SLICE", 1)):
        monkeypatch.setattr(module, name, value)
        with evaluator_of(path, threads=2) as (evaluator, chunks):
            assert perplexity(evaluator, chunks) == expected


def test_progress_tells_the_perplexity_so_far_and_ends_with_the_whole(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    with evaluator_of(make_tiny(tmp_path / "m.gguf")) as (evaluator, chunks):
        found = perplexity(evaluator, chunks, lambda done, value: told.append((done, value)))
    assert [done for done, _ in told] == list(range(1, len(chunks) + 1))
    assert told[-1][1] == found.value
    assert evaluator.tokens == len(chunks) * (N_CTX - 1)  # the last token of a chunk predicts nothing
    assert evaluator.tokens_per_second > 0


class Told:
    """A session that gives the logits it was told to."""

    def __init__(self, row: Sequence[float]) -> None:
        self.row = np.array(row, dtype=np.float32)

    def truncate(self, length: int) -> None: ...

    def forward(self, tokens: Sequence[int], logits_for: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.tile(self.row, (len(tokens) if logits_for == "all" else 0, 1))


def chunks_of_zeros(count: int = 3) -> Chunks:
    return Chunks(np.zeros((count, 8), dtype=np.int32), None, 4)


def test_a_model_that_knows_nothing_has_the_size_of_its_vocabulary_as_perplexity() -> None:
    found = perplexity(Evaluator(Told([0.0] * 7), 7, "m"), chunks_of_zeros())
    assert found.value == pytest.approx(7)
    assert found.error == pytest.approx(0, abs=1e-12)


def test_a_model_that_knows_everything_has_perplexity_one() -> None:
    assert perplexity(Evaluator(Told([100.0, 0.0, 0.0]), 3, "m"), chunks_of_zeros()).value == pytest.approx(1)


def test_a_perplexity_beyond_floating_point_is_infinite() -> None:
    assert perplexity(Evaluator(Told([0.0, 1e30]), 2, "m"), chunks_of_zeros()).value == math.inf


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_model_that_computes_no_numbers_is_refused_by_chunk(wrong: float) -> None:
    with pytest.raises(BadFileError, match=r"m\.gguf: its logits in chunk 1 are not finite"):
        perplexity(Evaluator(Told([0.0, wrong]), 2, "m.gguf"), chunks_of_zeros())


logit_rows = arrays(np.float32, (3, 5), elements=st.floats(-1e4, 1e4, width=32))


@given(logit_rows)
def test_probabilities_sum_to_one_and_keep_the_order_of_logits(logits: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    found = log_softmax(logits)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-12)
    differences = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    np.testing.assert_allclose(found - found.max(axis=1, keepdims=True), differences, atol=1e-9)


@given(logit_rows, st.integers(0, 4))
def test_surprise_is_minus_the_log_probability_of_what_came(
    logits: np.ndarray[Any, np.dtype[np.float32]], token: int
) -> None:
    targets = np.full(3, token, dtype=np.int32)
    np.testing.assert_array_equal(surprise(logits, targets), -log_softmax(logits)[:, token])


def test_one_position_has_no_error() -> None:
    assert Estimate.of_mean(np.array([2.0])) == Estimate(2.0, 0.0)
