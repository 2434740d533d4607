"""The AVX-512 kernels on any x86 machine, compiled against SIMDe: slow, but the same integers and the same bits.

Needs SIMDe's headers (Debian: libsimde-dev) and a build of its own, beside which this test runs::

    cmake -S . -B build/avx512 -G Ninja -DSELFEE_EMULATE_AVX512=ON && cmake --build build/avx512

On a machine with AVX-512 test_matmul.py runs the same kernels compiled for it.
"""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from tests.native.emulated import BUILDS, load
from tests.native.nasty import collection
from tests.native.oracle import COMPUTED, random_blocks, same_bits
from tests.native.test_quantize import RULES, WRITTEN
from tests.native.test_quantize import native as native_blocks

from selfee.weights import quantize
from selfee.weights.quants import QuantType


@pytest.fixture(scope="module")
def emulated() -> ModuleType:
    return load("avx512")


def test_an_emulated_instruction_set_is_never_chosen(emulated: ModuleType) -> None:
    assert "avx512" in emulated.supported_isas()
    assert emulated.supported_isas()[-1] != "avx512"


@pytest.mark.parametrize("packed", [False, True], ids=["as_in_the_file", "packed"])
@pytest.mark.parametrize("wild", [False, True], ids=["tame", "wild"])
@pytest.mark.parametrize("type", COMPUTED, ids=lambda type: type.name)
def test_the_kernels_give_the_bits_of_the_scalar_ones(
    emulated: ModuleType, type: QuantType, wild: bool, packed: bool
) -> None:
    rng = np.random.default_rng(int(type))
    for rows in (1, 7, 8, 9, 16, 17, 40):
        for tokens in (1, 2, 3, 4, 8, 11):
            cols = 512 if type.block_values > 1 else 517
            weights = random_blocks(type, rows, cols, rows * tokens, wild=wild).reshape(-1)
            x = rng.normal(size=(tokens, cols)).astype(np.float32)
            expected = quantize.matmul(type, weights, rows, cols, x, instruction_set="scalar")
            y = emulated.matmul(int(type), weights, rows, cols, x, "avx512", packed=packed)
            assert same_bits(y, expected), (rows, tokens)


@pytest.mark.parametrize("type", COMPUTED, ids=lambda type: type.name)
def test_extreme_codes_do_not_overflow(emulated: ModuleType, type: QuantType) -> None:
    for fill in (0x00, 0x80, 0xFF):
        weights = np.full_like(random_blocks(type, 16, 512, 0), fill).reshape(-1)
        for x in (np.ones((8, 512), np.float32), -np.ones((8, 512), np.float32)):
            expected = quantize.matmul(type, weights, 16, 512, x, instruction_set="scalar")
            for packed in (False, True):
                assert same_bits(emulated.matmul(int(type), weights, 16, 512, x, "avx512", packed=packed), expected)


# Classes of one name live once in a process, so the emulated quantisers are asked in a process of their own.
QUANTISE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("selfee._native", sys.argv[1])
sys.modules["selfee._native"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["selfee._native"])
from tests.native.test_quantize import RULES, WRITTEN, native
from tests.native.emulated import BUILDS, load
from tests.native.nasty import collection
for type in WRITTEN:
    for rules in RULES:
        print(type.name, rules, native(type, collection(2), rules, "avx512").tobytes().hex())
"""


def test_the_quantisers_give_the_bytes_of_the_scalar_ones(emulated: ModuleType) -> None:
    command = [sys.executable, "-c", QUANTISE, str(emulated.__file__)]
    done = subprocess.run(command, cwd=BUILDS.parent, capture_output=True, text=True, check=True)
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == len(WRITTEN) * len(RULES)
    for line in lines:
        name, rules, blocks = line.split(" ")
        assert blocks == native_blocks(QuantType[name], collection(2), rules).tobytes().hex(), (name, rules)
