"""What flows into each matrix, as the native pass adds it up and as the slow twin does."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import make_tiny

from selfee.llama.importance import InputSquares
from selfee.llama.model import Model
from selfee.llama.reference import ReferenceSession
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType

TOKENS = [3 + (31 * index) % 200 for index in range(70)]


def squares_of(path: Path, parts: list[list[int]], threads: int = 1, **load: Any) -> dict[str, np.ndarray[Any, Any]]:
    with Model.load(path, threads=threads, **load) as model:
        session, squares = model.new_session(), InputSquares(model.config)
        for part in parts:
            session.forward(part, "none", squares=squares)
        return dict(squares.by_tensor())


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_sums_are_those_of_the_slow_twin(tmp_path: Path, architecture: Any) -> None:
    path = make_tiny(tmp_path / "m.gguf", architecture=architecture, n_head_kv=2, head_dim=32)
    found = squares_of(path, [TOKENS])
    with open_checkpoint(path) as checkpoint:
        twin = ReferenceSession(checkpoint)
        twin.forward(TOKENS, "all")
        matrices = {name for name, tensor in checkpoint.tensors.items() if len(tensor.shape) == 2}
    assert set(found) == set(twin.squares) == matrices - {"token_embd.weight"}
    for name, sums in found.items():
        np.testing.assert_allclose(sums, twin.squares[name], rtol=2e-4, err_msg=name)


def test_a_model_without_an_output_matrix_of_its_own_names_none(tmp_path: Path) -> None:
    found = squares_of(make_tiny(tmp_path / "m.gguf", tied=True), [TOKENS])
    assert "output.weight" not in found
    assert "token_embd.weight" not in found


@given(st.sets(st.integers(1, len(TOKENS) - 1), max_size=4), st.integers(1, 4))
def test_threads_and_calls_do_not_change_a_bit(
    tmp_path_factory: pytest.TempPathFactory, cuts: set[int], threads: int
) -> None:
    path = make_tiny(tmp_path_factory.mktemp("m") / "m.gguf", type=QuantType.Q4_0, n_layer=1)
    edges = [0, *sorted(cuts), len(TOKENS)]
    parts = [TOKENS[start:end] for start, end in pairwise(edges)]
    whole, divided = squares_of(path, [TOKENS]), squares_of(path, parts, threads)
    for name, sums in whole.items():
        np.testing.assert_array_equal(sums, divided[name])


def test_collecting_changes_no_logit_and_nothing_is_collected_unasked(tmp_path: Path) -> None:
    with Model.load(make_tiny(tmp_path / "m.gguf"), threads=2) as model:
        squares = InputSquares(model.config)
        with_sums = model.new_session().forward(TOKENS, "all", squares=squares)
        kept = squares.sums.copy()
        without = model.new_session().forward(TOKENS, "all")
        np.testing.assert_array_equal(with_sums, without)
        np.testing.assert_array_equal(kept, squares.sums)
        assert kept.all()
        assert model.new_session().forward(TOKENS, "none").shape == (0, model.config.vocabulary)
        squares.clear()
        assert not squares.sums.any()


def test_sums_of_another_model_are_refused(tmp_path: Path) -> None:
    with (
        Model.load(make_tiny(tmp_path / "a.gguf")) as one,
        Model.load(make_tiny(tmp_path / "b.gguf", n_layer=1)) as two,
        pytest.raises(ValueError, match="squares is not as long as the inputs"),
    ):
        one.new_session().forward(TOKENS, squares=InputSquares(two.config))
