"""Quantisers: the same bytes as llama.cpp's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from selfee.errors import UsageError
from selfee.weights.kquants import Floats
from selfee.weights.quantizers import quantize
from selfee.weights.quants import QuantType, dequantize

LEGACY = [QuantType.Q4_0, QuantType.Q4_1, QuantType.Q5_0, QuantType.Q5_1, QuantType.Q8_0]
K_TYPES = [QuantType.Q2_K, QuantType.Q3_K, QuantType.Q4_K, QuantType.Q5_K, QuantType.Q6_K]
# Relative root mean square errors that the reference was measured to make on Gaussian weights.
GAUSSIAN_ERRORS = [0.290, 0.151, 0.0744, 0.0369, 0.0183]
MOST_CODES_OFF = {"Q4_0": 1 / 8, "Q4_1": 1 / 15, "Q5_0": 1 / 16, "Q5_1": 1 / 31, "Q8_0": 1 / 127}

blocks_of_floats = arrays(np.float32, (2, 32), elements=st.floats(-1e4, 1e4, width=32))


@pytest.mark.corpus
@pytest.mark.parametrize("type", LEGACY + K_TYPES, ids=lambda type: type.name)
def test_the_same_bytes_as_llama_cpp_of_2023(corpus: Path, type: QuantType) -> None:
    values = np.fromfile(corpus / "golden/input.f32.bin", dtype="<f4")
    name = type.name.lower().replace("_k", "_K")
    assert quantize(type, values).tobytes() == (corpus / f"golden/q2023/{name}.bin").read_bytes()


@pytest.mark.parametrize(("type", "error"), list(zip(K_TYPES, GAUSSIAN_ERRORS)))
def test_gaussian_weights_lose_as_much_as_the_reference_loses(type: QuantType, error: float) -> None:
    values = np.random.default_rng(1).normal(0, 0.02, 256 * 500).astype(np.float16).astype(np.float32)
    back = dequantize(type, quantize(type, values))
    assert np.sqrt(np.mean((back - values) ** 2) / np.mean(values**2)) == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize("type", K_TYPES, ids=lambda type: type.name)
def test_zeros_stay_zeros(type: QuantType) -> None:
    assert not dequantize(type, quantize(type, np.zeros(512, dtype=np.float32))).any()


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


def test_half_a_block_of_values_is_refused() -> None:
    with pytest.raises(UsageError, match="33 values are not a whole number of Q8_0 blocks of 32"):
        quantize(QuantType.Q8_0, np.zeros(33, dtype=np.float32))


def test_a_type_without_a_quantiser_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="IQ4_NL is not written"):
        quantize(QuantType.IQ4_NL, np.zeros(32, dtype=np.float32))
