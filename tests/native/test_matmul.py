"""The kernels: one meaning, whatever the instruction set, the layout, the batch, or the rows computed together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.native import oracle
from tests.native.oracle import COMPUTED, QUANTISED, Floats, random_blocks, same_bits

from selfee import _native
from selfee.weights.quantize import instruction_sets, matmul, quantize_activations
from selfee.weights.quants import QuantType, dequantize

FAST = [name for name in instruction_sets() if name != "scalar"]
ROW_TILE = 16
"""A multiple of every instruction set's row tile."""

by_name = pytest.mark.parametrize("type", COMPUTED, ids=lambda type: type.name)
seeds = st.integers(0, 2**32 - 1)


def activations(tokens: int, cols: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(tokens, cols)).astype(np.float32)


@pytest.mark.parametrize("type", QUANTISED, ids=lambda type: type.name)
@settings(max_examples=10)
@given(seed=seeds, blocks=st.integers(1, 4), wild=st.booleans())
def test_the_scalar_kernel_gives_the_bits_of_the_definition(
    type: QuantType, seed: int, blocks: int, wild: bool
) -> None:
    rows, cols = 5, blocks * type.block_values
    weights, x = random_blocks(type, rows, cols, seed, wild=wild), activations(3, cols, seed)
    expected = oracle.matmul(type, weights, rows, cols, x)
    assert same_bits(matmul(type, weights, rows, cols, x, instruction_set="scalar"), expected)


@by_name
def test_the_scalar_kernel_is_near_a_float64_product(type: QuantType) -> None:
    rows, cols = 9, 1024
    weights, x = random_blocks(type, rows, cols, 1), activations(4, cols, 2)
    seen = quantize_activations(type, x, instruction_set="scalar").astype(np.float64)
    w = dequantize(type, weights).reshape(rows, cols).astype(np.float64)
    # s of Q8_1 is a half: half an ulp of 2^-11 on what the minimum contributes.
    tolerance = 1e-6 + (2**-11 if type in (QuantType.Q4_1, QuantType.Q5_1) else 0)
    error = np.abs(matmul(type, weights, rows, cols, x, instruction_set="scalar") - seen @ w.T)
    assert (error <= tolerance * (np.abs(seen) @ np.abs(w.T))).all()


@pytest.mark.parametrize("isa", FAST)
@by_name
@settings(max_examples=8)
@given(seed=seeds, rows=st.integers(1, 40), tokens=st.integers(1, 12), blocks=st.integers(1, 5), wild=st.booleans())
def test_every_instruction_set_gives_the_bits_of_the_scalar_kernel(
    isa: str, type: QuantType, seed: int, rows: int, tokens: int, blocks: int, wild: bool
) -> None:
    cols = blocks * type.block_values if type.block_values > 1 else blocks * 37
    weights, x = random_blocks(type, rows, cols, seed, wild=wild), activations(tokens, cols, seed)
    expected = matmul(type, weights, rows, cols, x, instruction_set="scalar")
    assert same_bits(matmul(type, weights, rows, cols, x, instruction_set=isa), expected)
    assert same_bits(matmul(type, weights, rows, cols, x, instruction_set=isa, packed=True), expected)


@pytest.mark.parametrize("isa", instruction_sets())
@by_name
def test_extreme_codes_do_not_overflow(isa: str, type: QuantType) -> None:
    rows, cols = 16, 512
    for fill in (0x00, 0x80, 0xFF):
        weights = np.full_like(random_blocks(type, rows, cols, 0), fill)
        for at in oracle.SCALE_AT.get(type, ()):
            oracle.set_f16(weights, at, 1.0)
        for x in (np.ones((8, cols), np.float32), -np.ones((8, cols), np.float32)):
            expected = matmul(type, weights, rows, cols, x, instruction_set="scalar")
            for packed in (False, True):
                assert same_bits(matmul(type, weights, rows, cols, x, instruction_set=isa, packed=packed), expected)


@pytest.mark.parametrize("packed", [False, True], ids=["as_in_the_file", "packed"])
@pytest.mark.parametrize("isa", instruction_sets())
@by_name
def test_a_token_alone_and_in_any_batch_gives_the_same_bits(isa: str, type: QuantType, packed: bool) -> None:
    rows, cols = 24, 512
    weights, x = random_blocks(type, rows, cols, 3), activations(33, cols, 4)
    alone = np.concatenate(
        [matmul(type, weights, rows, cols, x[t : t + 1], instruction_set=isa, packed=packed) for t in range(33)]
    )
    for n in range(2, 34):
        batch = matmul(type, weights, rows, cols, x[:n], instruction_set=isa, packed=packed)
        assert same_bits(batch, alone[:n]), n


@pytest.mark.parametrize("packed", [False, True], ids=["as_in_the_file", "packed"])
@pytest.mark.parametrize("isa", instruction_sets())
@by_name
def test_a_range_of_rows_gives_the_bits_of_the_whole(isa: str, type: QuantType, packed: bool) -> None:
    rows, cols = 3 * ROW_TILE + 5, 512
    weights, x = random_blocks(type, rows, cols, 5), activations(5, cols, 6)
    whole = matmul(type, weights, rows, cols, x, instruction_set=isa, packed=packed)
    for first, end in [(0, 16), (16, 32), (16, 48), (32, rows), (48, rows), (16, 16)]:
        part = matmul(type, weights, rows, cols, x, instruction_set=isa, packed=packed, first_row=first, end_row=end)
        assert same_bits(part[:, first:end], whole[:, first:end])
        assert not part[:, :first].any()
        assert not part[:, end:].any()


@pytest.mark.parametrize("type", [QuantType.Q4_1, QuantType.Q5_0, QuantType.Q2_K, QuantType.Q6_K], ids=str)
def test_long_prompts_pass_over_the_rows_more_than_once(type: QuantType) -> None:
    rows, cols, tokens = 16, 8192, 40  # more activations than one pass holds
    weights, x = random_blocks(type, rows, cols, 7), activations(tokens, cols, 8)
    expected = oracle.matmul(type, weights, rows, cols, x)
    for isa in instruction_sets():
        for packed in (False, True):
            assert same_bits(matmul(type, weights, rows, cols, x, instruction_set=isa, packed=packed), expected)


@pytest.mark.parametrize("isa", FAST)
@pytest.mark.parametrize("type", QUANTISED, ids=lambda type: type.name)
@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 8, 9, 21])
def test_activations_are_the_same_in_panels_and_token_after_token(isa: str, type: QuantType, tokens: int) -> None:
    x = activations(tokens, 1280, tokens)
    plain = _native.quantize_activations(int(type), x, isa)
    assert same_bits(_native.quantize_activations(int(type), x, isa, packed=True), plain)
    assert same_bits(plain, quantize_activations(type, x, instruction_set="scalar"))


@pytest.mark.parametrize("isa", instruction_sets())
@by_name
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_broken_activation_shows_in_its_own_token_only(isa: str, type: QuantType, bad: float) -> None:
    rows, cols = 8, 512
    weights, x = random_blocks(type, rows, cols, 9), activations(3, cols, 10)
    expected = matmul(type, weights, rows, cols, x, instruction_set=isa)
    x[1, 300] = bad
    y = matmul(type, weights, rows, cols, x, instruction_set=isa)
    assert not np.isfinite(y[1]).any()
    assert same_bits(y[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("type", QUANTISED, ids=lambda type: type.name)
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-30, 1e-7, 1e4, 1e30, 3e38])
def test_activations_of_any_size_become_codes_within_their_range(isa: str, type: QuantType, size: float) -> None:
    x = (activations(2, 256, 11) / 4 * np.float32(size)).astype(np.float32)
    x = np.clip(np.nan_to_num(x), -3e38, 3e38)
    seen = quantize_activations(type, x, instruction_set=isa)
    expected = quantize_activations(type, x, instruction_set="scalar")
    assert same_bits(seen, expected)
    if size <= 1e4:  # f16 scales end at 65504, and below 6e-8 they are 0
        scale = np.abs(x).reshape(2, -1, type.block_values).max(axis=2).repeat(type.block_values, axis=1)
        bound = scale / 254 + scale / 2048 + (127 * 2.0**-25 if type.block_values == 32 else 1e-36)
        assert (np.abs(seen - x) <= bound * 1.01).all()


def test_packing_leaves_types_alone_that_have_no_packed_layout() -> None:
    for type in set(COMPUTED) - set(QUANTISED):
        weights, x = random_blocks(type, 16, 256, 12), activations(1, 256, 13)
        assert same_bits(matmul(type, weights, 16, 256, x, packed=True), matmul(type, weights, 16, 256, x))
