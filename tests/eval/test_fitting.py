"""What fits is told by the figures that refuse a model, and agrees with files of that shape."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import make_tiny

from selfee.errors import BadFileError
from selfee.eval.fitting import LADDER, SHAPES, Shape, fit_file, fit_shape, need_of, weights_of
from selfee.llama.config import LlamaConfig
from selfee.llama.memory import memory_needed
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.recipes import FileType

BY_NAME = {shape.name: shape for shape in SHAPES}
Q4 = FileType.q4_K_M


def test_the_sizes_are_those_of_known_models() -> None:
    """Billions of weights as their cards say, from the bytes of F16 (norms are F32, a few thousand values)."""
    known = {
        "1B": 1.100,
        "3B": 3.426,
        "7B": 6.738,
        "8B": 8.030,
        "13B": 13.016,
        "30B": 32.529,
        "65B": 65.286,
        "70B": 68.977,
    }
    found = {shape.name: round(weights_of(shape, FileType.f16) / 2e9, 3) for shape in SHAPES}
    assert found == pytest.approx(known, abs=0.002)


def test_a_13b_of_the_release_needs_what_its_file_has() -> None:
    assert weights_of(BY_NAME["13B"], Q4) == pytest.approx(7_865_666_688, rel=1e-4)  # tests/weights/test_sizes.py
    assert need_of(BY_NAME["13B"], Q4, 2048) == pytest.approx(9.6e9, rel=0.01)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(SHAPES), st.sampled_from(LADDER), st.integers(1, 8192), st.integers(0, 200 * 10**9))
def test_what_is_advised_fits_and_nothing_better_does(shape: Shape, kind: FileType, context: int, have: int) -> None:
    fit = fit_shape(shape, kind, context, have)
    assert fit.fits == (need_of(shape, kind, context) <= have)
    names = [each.name for each in LADDER]
    better = LADDER if fit.best_type is None else LADDER[: names.index(fit.best_type)]
    assert all(need_of(shape, each, context) > have for each in better)
    if fit.best_type is not None:
        assert need_of(shape, FileType[fit.best_type], context) <= have
    if fit.longest_context is None:
        assert need_of(shape, kind, 512) > have
    else:
        assert fit.longest_context >= 512
        assert need_of(shape, kind, fit.longest_context) <= have < need_of(shape, kind, fit.longest_context + 256)


def test_a_file_is_judged_as_it_would_be_when_loaded(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "t.gguf")
    with open_checkpoint(path) as checkpoint:
        config = LlamaConfig.from_checkpoint(checkpoint)
        need = memory_needed(checkpoint, config, 4096)
        longer = memory_needed(checkpoint, config, 4096 + 256)
    fit = fit_file(path, 4096, need)
    assert (fit.need, fit.fits, fit.longest_context, fit.trained_context) == (need, True, 4096, 512)
    assert not fit_file(path, 4096, need - 1).fits
    assert fit_file(path, 8192, longer - 1).longest_context == 4096
    assert fit_file(path, None, need).context == 512
    assert fit_file(path, 8192, 1000).longest_context is None


def test_what_is_no_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_text("no", encoding="ascii")
    with pytest.raises(BadFileError):
        fit_file(tmp_path / "no.gguf", None, 1 << 40)
