"""The AVX-VNNI kernels on any machine with AVX2, compiled against SIMDe: slow, but the same integers and the same bits.

Needs SIMDe's headers (Debian: libsimde-dev) and a build of its own, beside which this test runs::

    cmake -S . -B build/avxvnni -G Ninja -DSELFEE_EMULATE_AVXVNNI=ON && cmake --build build/avxvnni

On a machine with AVX-512 VNNI, ``CXXFLAGS="-mavx512vl -mavx512vnni"`` before it makes SIMDe use the machine's own
``vpdpbusd`` of 256 bits in place of its emulation. On a machine with AVX-VNNI test_matmul.py runs the same kernels
compiled for it.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.native.emulated import load
from tests.native.oracle import COMPUTED, QUANTISED, SCALE_AT, Floats, random_blocks, same_bits, set_f16

from selfee.weights import quantize
from selfee.weights.quants import QuantType

by_name = pytest.mark.parametrize("type", COMPUTED, ids=lambda type: type.name)
in_either_layout = pytest.mark.parametrize("packed", [False, True], ids=["as_in_the_file", "packed"])


@pytest.fixture(scope="module")
def emulated() -> ModuleType:
    return load("avxvnni")


def activations(tokens: int, cols: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(tokens, cols)).astype(np.float32)


def test_an_emulated_instruction_set_is_never_chosen(emulated: ModuleType) -> None:
    assert "avxvnni" in emulated.supported_isas()
    assert emulated.supported_isas()[-1] != "avxvnni"


@in_either_layout
@by_name
def test_any_number_of_tokens_gives_the_bits_of_the_scalar_kernels(
    emulated: ModuleType, type: QuantType, packed: bool
) -> None:
    rows, cols = 19, 512 if type.block_values > 1 else 517
    weights, x = random_blocks(type, rows, cols, 1).reshape(-1), activations(40, cols, 2)
    expected = quantize.matmul(type, weights, rows, cols, x, instruction_set="scalar")
    for tokens in range(1, 41):
        y = emulated.matmul(int(type), weights, rows, cols, x[:tokens], "avxvnni", packed=packed)
        assert same_bits(y, expected[:tokens]), tokens


@by_name
@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    tokens=st.integers(1, 40),
    blocks=st.integers(1, 5),
    wild=st.booleans(),
)
def test_the_kernels_give_the_bits_of_the_scalar_ones(
    emulated: ModuleType, type: QuantType, seed: int, rows: int, tokens: int, blocks: int, wild: bool
) -> None:
    cols = blocks * type.block_values if type.block_values > 1 else blocks * 37
    weights = random_blocks(type, rows, cols, seed, wild=wild).reshape(-1)
    x = activations(tokens, cols, seed)
    expected = quantize.matmul(type, weights, rows, cols, x, instruction_set="scalar")
    for packed in (False, True):
        assert same_bits(emulated.matmul(int(type), weights, rows, cols, x, "avxvnni", packed=packed), expected)


@in_either_layout
@by_name
def test_extreme_codes_do_not_overflow(emulated: ModuleType, type: QuantType, packed: bool) -> None:
    for fill in (0x00, 0x7F, 0x80, 0xFF):
        blocks = np.full_like(random_blocks(type, 16, 512, 0), fill)
        for at in SCALE_AT.get(type, ()):
            set_f16(blocks, at, 1.0)
        weights = blocks.reshape(-1)
        for x in (np.ones((8, 512), np.float32), -np.ones((8, 512), np.float32)):
            expected = quantize.matmul(type, weights, 16, 512, x, instruction_set="scalar")
            y = emulated.matmul(int(type), weights, 16, 512, x, "avxvnni", packed=packed)
            assert same_bits(y, expected), fill


@pytest.mark.parametrize("type", QUANTISED, ids=lambda type: type.name)
@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 8, 9, 21])
def test_activations_are_those_of_the_scalar_kernels(emulated: ModuleType, type: QuantType, tokens: int) -> None:
    x = activations(tokens, 1280, tokens)
    expected = quantize.quantize_activations(type, x, instruction_set="scalar")
    for packed in (False, True):
        assert same_bits(emulated.quantize_activations(int(type), x, "avxvnni", packed=packed), expected)
