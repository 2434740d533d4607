"""Activations in 8 bits: the same bytes as llama.cpp's, and what the native kernels compute with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfee.weights.quantization.activations import quantize_q8_1, quantize_q8_k
from selfee.weights.quantize import instruction_sets, quantize_activations
from selfee.weights.quants import QuantType


@pytest.mark.corpus
def test_q8_1_is_the_same_bytes_as_llama_cpp_of_2023(corpus: Path) -> None:
    values = np.fromfile(corpus / "golden/input.f32.bin", dtype="<f4").reshape(-1, 32)
    assert quantize_q8_1(values).tobytes() == (corpus / "golden/q2023/q8_1.bin").read_bytes()


@pytest.mark.corpus
def test_q8_k_is_the_same_bytes_as_llama_cpp_of_2023(corpus: Path) -> None:
    values = np.fromfile(corpus / "golden/input.f32.bin", dtype="<f4").reshape(-1, 256)
    made = quantize_q8_k(values)
    expected = np.fromfile(corpus / "golden/q2023/q8_K.bin", dtype=np.uint8).reshape(made.shape)
    # The reference leaves the sums of a block of zeros as they were in memory.
    is_zero = (values == 0).all(axis=1)
    assert (made[~is_zero] == expected[~is_zero]).all()
    assert (made[:, :260] == expected[:, :260]).all()


@pytest.mark.parametrize("isa", instruction_sets())
def test_the_kernels_of_k_quants_see_q8_k(isa: str) -> None:
    values = np.random.default_rng(1).normal(size=(6, 512)).astype(np.float32)
    blocks = quantize_q8_k(values.reshape(-1, 256))
    d, codes = blocks[:, :4].copy().view("<f4"), blocks[:, 4:260].copy().view(np.int8)
    seen = quantize_activations(QuantType.Q4_K, values, instruction_set=isa)
    assert (seen == (d * codes.astype(np.float32)).reshape(values.shape)).all()


@pytest.mark.parametrize("isa", instruction_sets())
def test_the_kernels_of_q4_1_see_the_codes_of_q8_1(isa: str) -> None:
    values = np.random.default_rng(2).normal(size=(6, 512)).astype(np.float32)
    blocks = quantize_q8_1(values.reshape(-1, 32))
    d, codes = blocks[:, :4].copy().view("<f4"), blocks[:, 8:].copy().view(np.int8)
    seen = quantize_activations(QuantType.Q4_1, values, instruction_set=isa).reshape(-1, 32)
    # The kernels keep the scale in float16, as blocks of today do.
    assert (seen == d.astype(np.float16).astype(np.float32) * codes.astype(np.float32)).all()
