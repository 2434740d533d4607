"""Quantisers: the same bytes as llama.cpp's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from selfee.errors import UsageError
from selfee.weights.kquants import Floats
from selfee.weights.quantization.quantizers import Generation, NotFinite, quantize
from selfee.weights.quants import QuantType, dequantize

LEGACY = [QuantType.Q4_0, QuantType.Q4_1, QuantType.Q5_0, QuantType.Q5_1, QuantType.Q8_0]
K_TYPES = [QuantType.Q2_K, QuantType.Q3_K, QuantType.Q4_K, QuantType.Q5_K, QuantType.Q6_K]
# Relative root mean square errors that the reference was measured to make on Gaussian weights.
GAUSSIAN_ERRORS = {
    Generation.JUNE_2023: [0.290, 0.151, 0.0744, 0.0369, 0.0183],
    Generation.CURRENT: [0.295, 0.151, 0.0712, 0.0360, 0.0177],
}
MOST_CODES_OFF = {"Q4_0": 1 / 8, "Q4_1": 1 / 15, "Q5_0": 1 / 16, "Q5_1": 1 / 31, "Q8_0": 1 / 127}

blocks_of_floats = arrays(np.float32, (2, 32), elements=st.floats(-1e4, 1e4, width=32))


@pytest.mark.corpus
@pytest.mark.parametrize("type", LEGACY + K_TYPES, ids=lambda type: type.name)
def test_the_same_bytes_as_llama_cpp_of_2023(corpus: Path, type: QuantType) -> None:
    values = np.fromfile(corpus / "golden/input.f32.bin", dtype="<f4")
    name = type.name.lower().replace("_k", "_K")
    assert quantize(type, values).tobytes() == (corpus / f"golden/q2023/{name}.bin").read_bytes()


@pytest.mark.corpus
@pytest.mark.parametrize("type", LEGACY + K_TYPES, ids=lambda type: type.name)
def test_the_same_bytes_as_ggml_of_today(corpus: Path, type: QuantType) -> None:
    values = np.fromfile(corpus / "golden/input.f32.bin", dtype="<f4")
    name = type.name.lower().replace("_k", "_K")
    # Types whose bytes are those of 2023 have no file of their own.
    changed = type in K_TYPES and type is not QuantType.Q3_K
    expected = corpus / f"golden/{'q2026' if changed else 'q2023'}/{name}.bin"
    assert quantize(type, values, generation=Generation.CURRENT).tobytes() == expected.read_bytes()


@pytest.mark.corpus
@pytest.mark.parametrize("type", LEGACY[:-1] + K_TYPES, ids=lambda type: type.name)
def test_the_same_bytes_as_ggml_with_an_importance_matrix(corpus: Path, type: QuantType) -> None:
    values = np.fromfile(corpus / "golden/input.f32.bin", dtype="<f4").reshape(-1, 256)
    importance = np.fromfile(corpus / "golden/imatrix_256.f32.bin", dtype="<f4")
    expected = corpus / f"golden/q2026/{type.name.lower().replace('_k', '_K')}.imatrix.bin"
    assert quantize(type, values, importance=importance).tobytes() == expected.read_bytes()


@pytest.mark.parametrize(
    ("generation", "type", "error"),
    [(year, type, error) for year, errors in GAUSSIAN_ERRORS.items() for type, error in zip(K_TYPES, errors)],
)
def test_gaussian_weights_lose_as_much_as_the_reference_loses(
    generation: Generation, type: QuantType, error: float
) -> None:
    values = np.random.default_rng(1).normal(0, 0.02, 256 * 500).astype(np.float16).astype(np.float32)
    back = dequantize(type, quantize(type, values, generation=generation))
    assert np.sqrt(np.mean((back - values) ** 2) / np.mean(values**2)) == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize("type", LEGACY[:-1] + K_TYPES, ids=lambda type: type.name)
def test_important_columns_lose_less(type: QuantType) -> None:
    values = np.random.default_rng(2).normal(0, 0.02, (64, 512)).astype(np.float32)
    importance = np.where(np.arange(512) % 8 == 0, np.float32(100), np.float32(1))

    def lost(blocks: npt.NDArray[np.uint8]) -> float:
        return float(((dequantize(type, blocks).reshape(values.shape) - values) ** 2 * importance).sum())

    weighted = lost(quantize(type, values, importance=importance))
    assert weighted < lost(quantize(type, values, generation=Generation.CURRENT)) * 0.99


@pytest.mark.parametrize("generation", Generation)
@pytest.mark.parametrize("type", K_TYPES, ids=lambda type: type.name)
def test_zeros_stay_zeros(type: QuantType, generation: Generation) -> None:
    assert not dequantize(type, quantize(type, np.zeros(512, dtype=np.float32), generation=generation)).any()


@pytest.mark.parametrize("type", [QuantType.Q2_K, QuantType.Q4_K, QuantType.Q5_K], ids=lambda type: type.name)
def test_constant_blocks_vanished_in_2023_and_stay_today(type: QuantType) -> None:
    for value in (0.5, -0.5):
        values = np.full(256, value, dtype=np.float32)
        assert not dequantize(type, quantize(type, values)).any()
        today = dequantize(type, quantize(type, values, generation=Generation.CURRENT))
        assert today == pytest.approx(values, rel=1e-3)


@pytest.mark.parametrize("type", [QuantType.Q2_K, QuantType.Q4_K, QuantType.Q5_K], ids=lambda type: type.name)
def test_codes_left_from_the_super_block_before_can_end_a_search(type: QuantType) -> None:
    three = np.random.default_rng(5).normal(0, 1, (50, 1, 256)).repeat(3, axis=1)
    blocks = quantize(type, three).reshape(50, 3, -1)
    assert (blocks[:, 0] != blocks[:, 1]).any()
    # Each super-block sees the one before it alone: removing the last changes nothing in front.
    assert (quantize(type, three.reshape(-1, 256)[:-1]) == blocks.reshape(150, -1)[:-1]).all()


@pytest.mark.parametrize("type", LEGACY, ids=lambda type: type.name)
@given(values=blocks_of_floats)
def test_a_value_comes_back_within_one_step_of_its_block(type: QuantType, values: Floats) -> None:
    back = dequantize(type, quantize(type, values)).reshape(values.shape)
    spread = np.ptp(values, axis=1) if type.name.endswith("_1") else np.abs(values).max(axis=1)
    # f16 scales and minimums round by 2**-11 of their size, subnormal ones by 2**-24 times the largest code.
    allowed = spread * MOST_CODES_OFF[type.name] * 1.01 + np.abs(values).max(axis=1) * 2e-3 + 127 * 2.0**-24
    assert (np.abs(back - values) <= allowed[:, None]).all()


@given(values=blocks_of_floats)
def test_f32_is_stored_as_it_is(values: Floats) -> None:
    assert dequantize(QuantType.F32, quantize(QuantType.F32, values)).tobytes() == values.tobytes()


@pytest.mark.parametrize("type", [QuantType.F16, QuantType.BF16], ids=lambda type: type.name)
@given(values=blocks_of_floats)
def test_rounding_to_half_precision_twice_changes_nothing_more(type: QuantType, values: Floats) -> None:
    once = quantize(type, values)
    assert quantize(type, dequantize(type, once)).tobytes() == once.tobytes()


def test_bf16_rounds_ties_to_even() -> None:
    values = np.array([0x3F808000, 0x3F818000, 0x3F808001], dtype=np.uint32).view(np.float32)
    assert quantize(QuantType.BF16, values).view("<u2").reshape(-1).tolist() == [0x3F80, 0x3F82, 0x3F81]


def test_nan_and_infinity_are_refused() -> None:
    values = np.zeros(32, dtype=np.float32)
    values[3], values[4] = np.nan, np.inf
    with pytest.raises(UsageError, match="value 3 is NaN or infinite; Q4_0 cannot hold it"):
        quantize(QuantType.Q4_0, values)


@pytest.mark.parametrize("generation", Generation)
def test_a_scale_beyond_float16_is_refused_where_it_is(generation: Generation) -> None:
    values = np.ones(96, dtype=np.float32)
    values[40] = 65504 * 8
    assert np.isfinite(dequantize(QuantType.Q4_0, quantize(QuantType.Q4_0, values, generation=generation))).all()
    values[40] *= 1.001
    with pytest.raises(
        NotFinite, match="the Q4_0 block from value 32 needs a scale that float16 cannot hold"
    ) as caught:
        quantize(QuantType.Q4_0, values, generation=generation)
    assert caught.value.index == 32


def test_float16_and_bfloat16_refuse_what_they_would_round_to_infinity() -> None:
    for type, most in ((QuantType.F16, 65519.0), (QuantType.BF16, 3.39e38)):
        quantize(type, np.array([most], dtype=np.float32))
        with pytest.raises(NotFinite, match=f"too large for {type.name}"):
            quantize(type, np.array([1.0, -most * 1.003], dtype=np.float32))


def test_an_importance_of_other_columns_is_refused() -> None:
    with pytest.raises(UsageError, match=r"importance of shape \(255,\) for rows of 256 values"):
        quantize(QuantType.Q4_K, np.ones((2, 256), np.float32), importance=np.ones(255, np.float32))
    with pytest.raises(UsageError, match="rows of whole Q4_K blocks"):
        quantize(QuantType.Q4_K, np.ones((8, 32), np.float32), importance=np.ones(32, np.float32))


def test_half_a_block_of_values_is_refused() -> None:
    with pytest.raises(UsageError, match="33 values are not a whole number of Q8_0 blocks of 32"):
        quantize(QuantType.Q8_0, np.zeros(33, dtype=np.float32))


def test_a_type_without_a_quantiser_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="IQ4_NL is not written"):
        quantize(QuantType.IQ4_NL, np.zeros(32, dtype=np.float32))
