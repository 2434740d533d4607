"""Divergence from a base: laws, and llama.cpp's statistics computed one position at a time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.eval.prose import prose
from tests.tiny import make_tiny

from selfee.errors import UsageError
from selfee.eval import divergence as module
from selfee.eval import perplexity as perplexity_module
from selfee.eval.base import Base, BaseModel, open_base, require_same_text
from selfee.eval.chunks import Chunks, Definition, Text, cut
from selfee.eval.divergence import Divergence, compare
from selfee.eval.logits_file import writing
from selfee.eval.models import open_measured
from selfee.eval.perplexity import Evaluator, perplexity
from selfee.weights.quants import QuantType

TEXT = Text("t.txt", prose(300), "")
N_CTX = 32


class Rows:
    """A session whose logits are a table's rows, one after another, wherever it is."""

    def __init__(self, table: np.ndarray[Any, Any]) -> None:
        self._table = table.astype(np.float32)
        self._at = 0

    def truncate(self, length: int) -> None: ...

    def forward(self, tokens: Any, logits_for: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        if logits_for == "none":
            return np.empty((0, self._table.shape[1]), dtype=np.float32)
        self._at += len(tokens)
        return self._table[self._at - len(tokens) : self._at]


def table_of(chunks: Chunks, vocabulary: int, seed: int, spread: float = 2.0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(0, spread, (len(chunks) * chunks.scored, vocabulary))


def made_up(count: int = 4, vocabulary: int = 6) -> Chunks:
    tokens = np.random.default_rng(9).integers(0, vocabulary, (count, 12), dtype=np.int32)
    return Chunks(tokens, None, 6)


def compared(chunks: Chunks, model: np.ndarray[Any, Any], base: np.ndarray[Any, Any]) -> Divergence:
    vocabulary = model.shape[1]
    other = BaseModel(Evaluator(Rows(base), vocabulary, "base"), vocabulary, chunks.tokens)
    return compare(Evaluator(Rows(model), vocabulary, "model"), other, chunks)


def by_formula(chunks: Chunks, model: np.ndarray[Any, Any], base: np.ndarray[Any, Any]) -> dict[str, float]:
    """Everything that the published tool prints, position by position, in the way it adds up."""
    targets = np.concatenate([chunks.targets(index) for index in range(len(chunks))])
    surprises, base_surprises, divergences, changes, same = [], [], [], [], 0
    for row, base_row, token in zip(model.astype(np.float32), base.astype(np.float32), targets, strict=True):
        ln_p = [float(x) - math.log(sum(math.exp(float(y)) for y in row)) for x in row]
        ln_base = [float(x) - math.log(sum(math.exp(float(y)) for y in base_row)) for x in base_row]
        surprises.append(-ln_p[token])
        base_surprises.append(-ln_base[token])
        divergences.append(sum(math.exp(b) * (b - p) for b, p in zip(ln_base, ln_p, strict=True)))
        changes.append(math.exp(ln_p[token]) - math.exp(ln_base[token]))
        same += int(np.argmax(ln_p)) == int(np.argmax(ln_base))
    count = len(targets)

    def error(values: list[float]) -> float:
        return math.sqrt((sum(v * v for v in values) / count - (sum(values) / count) ** 2) / (count - 1))

    mean, base_mean = statistics.fmean(surprises), statistics.fmean(base_surprises)
    together = sum(a * b for a, b in zip(surprises, base_surprises, strict=True)) / count
    covariance = (together - mean * base_mean) / (count - 1)
    squares = [change * change for change in changes]
    rms = math.sqrt(statistics.fmean(squares))
    ordered = sorted(divergences)
    place = 0.99 * (count - 1)
    below = int(place)
    above = min(below + 1, count - 1)
    ppl, base_ppl = math.exp(mean), math.exp(base_mean)
    ppl_error, base_error = ppl * error(surprises), base_ppl * error(base_surprises)
    return {
        "ppl": ppl,
        "ppl error": ppl_error,
        "base ppl": base_ppl,
        "ln ratio": mean - base_mean,
        "ln ratio error": math.sqrt(error(surprises) ** 2 + error(base_surprises) ** 2 - 2 * covariance),
        "difference error": math.sqrt(ppl_error**2 + base_error**2 - 2 * ppl * base_ppl * covariance),
        "correlation": covariance / (error(surprises) * error(base_surprises)),
        "kld": statistics.fmean(divergences),
        "kld error": error(divergences),
        "kld max": ordered[-1],
        "kld 99": (1 - (place - below)) * ordered[below] + (place - below) * ordered[above],
        "kld median": statistics.median(divergences),
        "dp": statistics.fmean(changes),
        "dp error": error(changes),
        "dp rms": rms,
        "dp rms error": 0.5 / rms * error(squares),
        "same top": same / count,
        "same top error": math.sqrt(same / count * (1 - same / count) / (count - 1)),
    }


def test_every_statistic_is_what_its_formula_says() -> None:
    chunks = made_up()
    model, base = table_of(chunks, 6, 1), table_of(chunks, 6, 2)
    found, expected = compared(chunks, model, base), by_formula(chunks, model, base)
    assert found.positions == len(chunks) * 5
    assert {
        "ppl": found.ppl.value,
        "ppl error": found.ppl.error,
        "base ppl": found.base_ppl.value,
        "ln ratio": found.ln_ratio.value,
        "ln ratio error": found.ln_ratio.error,
        "difference error": found.ppl_difference.error,
        "correlation": found.correlation,
        "kld": found.kld.mean.value,
        "kld error": found.kld.mean.error,
        "kld max": found.kld.max,
        "kld 99": found.kld.percentiles["99"],
        "kld median": found.kld.percentiles["50"],
        "dp": found.dp.mean.value,
        "dp error": found.dp.mean.error,
        "dp rms": found.dp_rms.value,
        "dp rms error": found.dp_rms.error,
        "same top": found.same_top.value,
        "same top error": found.same_top.error,
    } == pytest.approx(expected, rel=1e-6)
    assert found.ppl_difference.value == pytest.approx(expected["ppl"] - expected["base ppl"])


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(0.01, 20))
def test_divergence_is_never_negative_and_zero_only_from_itself(one: int, two: int, spread: float) -> None:
    chunks = made_up(2)
    model, base = table_of(chunks, 6, one, spread), table_of(chunks, 6, two, spread)
    found = compared(chunks, model, base)
    assert found.kld.min >= -1e-12
    assert 0 <= found.same_top.value <= 1
    if one == two:
        assert found.kld.max == 0
        assert (found.same_top.value, found.ln_ratio.value, found.ln_ratio.error, found.dp.max) == (1, 0, 0, 0)
        assert found.correlation == pytest.approx(1)
    else:
        assert found.kld.mean.value > 0


@given(st.integers(0, 100), st.floats(-50, 50))
def test_adding_a_number_to_all_logits_changes_nothing(seed: int, shift: float) -> None:
    chunks = made_up(2)
    model, base = table_of(chunks, 6, seed), table_of(chunks, 6, seed + 1)
    found, moved = compared(chunks, model, base), compared(chunks, model + shift, base - shift)
    assert moved.kld.mean.value == pytest.approx(found.kld.mean.value, rel=1e-3, abs=1e-5)
    assert moved.ppl.value == pytest.approx(found.ppl.value, rel=1e-4)


def test_swapping_model_and_base_turns_the_ratio_around() -> None:
    chunks = made_up()
    model, base = table_of(chunks, 6, 1), table_of(chunks, 6, 2)
    there, back = compared(chunks, model, base), compared(chunks, base, model)
    assert there.ln_ratio.value == -back.ln_ratio.value
    assert there.ln_ratio.error == pytest.approx(back.ln_ratio.error)
    assert there.dp.mean.value == -back.dp.mean.value
    assert there.same_top == back.same_top


def test_vocabularies_of_another_size_are_refused() -> None:
    chunks = made_up()
    other = BaseModel(Evaluator(Rows(table_of(chunks, 7, 1)), 7, "base"), 7, chunks.tokens)
    with pytest.raises(UsageError, match="6 tokens in its vocabulary and the base 7"):
        compare(Evaluator(Rows(table_of(chunks, 6, 1)), 6, "model"), other, chunks)


@contextmanager
def opened(path: Path, base_path: Path) -> Iterator[tuple[Evaluator, Base, Chunks]]:
    with (
        open_measured(path, N_CTX, 1) as measured,
        open_base(base_path, TEXT, N_CTX, None, Definition.CURRENT, 1) as base,
    ):
        vocabulary = measured.model.config.vocabulary
        chunks = cut(TEXT, measured.tokenizer, N_CTX)
        require_same_text(base, chunks, path.name, base_path.name)
        yield Evaluator(measured.model.new_session(), vocabulary, str(path)), base, chunks


def saved(path: Path, target: Path) -> Path:
    with open_measured(path, N_CTX, 1) as measured:
        chunks = cut(TEXT, measured.tokenizer, N_CTX)
        vocabulary = measured.model.config.vocabulary
        with writing(target, chunks, vocabulary) as file:
            perplexity(Evaluator(measured.model.new_session(), vocabulary, "m"), chunks, None, file.add)
    return target


def test_a_saved_base_says_what_the_model_itself_says(tmp_path: Path) -> None:
    exact = make_tiny(tmp_path / "f32.gguf")
    coarse = make_tiny(tmp_path / "q4.gguf", type=QuantType.Q4_0)
    with opened(coarse, exact) as (evaluator, base, chunks):
        alongside = compare(evaluator, base, chunks)
    with opened(coarse, saved(exact, tmp_path / "base.logits")) as (evaluator, base, chunks):
        from_file = compare(evaluator, base, chunks)
    assert alongside.kld.mean.value > 0
    assert from_file.kld.mean.value == pytest.approx(alongside.kld.mean.value, rel=1e-2)
    assert from_file.base_ppl.value == pytest.approx(alongside.base_ppl.value, rel=1e-4)
    assert from_file.ppl == alongside.ppl
    assert from_file.same_top.value == pytest.approx(alongside.same_top.value, abs=0.01)


def test_a_perplexity_alone_is_that_of_the_comparison(tmp_path: Path) -> None:
    exact = make_tiny(tmp_path / "f32.gguf")
    coarse = make_tiny(tmp_path / "q4.gguf", type=QuantType.Q4_0)
    with opened(coarse, exact) as (evaluator, base, chunks):
        found = compare(evaluator, base, chunks)
    for path, expected in ((coarse, found.ppl), (exact, found.base_ppl)):
        with opened(path, path) as (evaluator, _, chunks):
            assert perplexity(evaluator, chunks) == expected


def test_portions_of_any_size_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = make_tiny(tmp_path / "f32.gguf")
    coarse = make_tiny(tmp_path / "q4.gguf", type=QuantType.Q4_0)
    base_file = saved(exact, tmp_path / "base.logits")
    results = []
    for rows, block in ((128, 1 << 16), (5, 1 << 16), (128, 1), (3, 900)):
        monkeypatch.setattr(perplexity_module, "_MOST_ROWS", rows)
        monkeypatch.setattr(perplexity_module, "_BLOCK", block)
        found = []
        for base_path in (exact, base_file):
            with opened(coarse, base_path) as (evaluator, base, chunks):
                found.append(compare(evaluator, base, chunks))
        results.append(found)
    assert all(found == results[0] for found in results)
    assert module.compare is compare


def test_another_text_or_vocabulary_is_told_apart_from_the_bases(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf")
    base_file = saved(path, tmp_path / "base.logits")
    other = Text("other.txt", prose(300, seed=1), "")
    with (
        open_measured(path, N_CTX, 1) as measured,
        open_base(base_file, other, N_CTX, None, Definition.CURRENT, 1) as base,
        pytest.raises(UsageError, match=r"base\.logits: the base has other tokens for this text than m\.gguf"),
    ):
        require_same_text(base, cut(other, measured.tokenizer, N_CTX), "m.gguf", "base.logits")


def test_a_base_saved_with_other_chunks_is_refused(tmp_path: Path) -> None:
    base_file = saved(make_tiny(tmp_path / "m.gguf"), tmp_path / "base.logits")
    with (
        pytest.raises(UsageError, match="chunks of 32 tokens.*use -c 32"),  # noqa: RUF043
        open_base(base_file, TEXT, 64, None, Definition.CURRENT, 1),
    ):
        pass
