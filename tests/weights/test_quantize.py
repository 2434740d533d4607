"""The door to the kernels: the twins' bits at native speed, and no argument that reaches them unchecked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfee import _native
from selfee.errors import SelfeeError, UnsupportedFileError
from selfee.weights import quantize, quants
from selfee.weights.quants import QuantType

COMPUTED = [type for type in QuantType if type.readable]
by_name = pytest.mark.parametrize("type", COMPUTED, ids=lambda type: type.name)


@by_name
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 300))
def test_any_bytes_decode_to_the_bits_of_the_twin(type: QuantType, seed: int, count: int) -> None:
    blocks = np.random.default_rng(seed).integers(0, 256, (count, type.block_bytes), dtype=np.uint8)
    mine, twin = quantize.dequantize(type, blocks), quants.dequantize(type, blocks)
    nan = np.isnan(mine) & np.isnan(twin)
    assert mine.shape == twin.shape
    assert ((mine.view(np.uint32) == twin.view(np.uint32)) | nan).all()


def test_every_half_is_widened_exactly() -> None:
    halves = np.arange(2**16, dtype=np.uint16)
    values = quantize.dequantize(QuantType.F16, halves.view(np.uint8))
    expected = halves.view(np.float16).astype(np.float32)
    assert np.array_equal(values, expected, equal_nan=True)
    assert np.array_equal(np.signbit(values), np.signbit(expected))


def test_activations_for_f16_weights_are_rounded_to_the_nearest_half() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, (64, 1024), dtype=np.uint32).view(np.float32)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = halves[np.isfinite(halves)]
    middles = ((finite[:-1] + finite[1:]) / 2).reshape(1, -1)  # ties, also between the subnormal halves
    for values in (x, middles):
        with np.errstate(over="ignore", invalid="ignore"):
            expected = values.astype(np.float16).astype(np.float32)
        assert np.array_equal(quantize.quantize_activations(QuantType.F16, values), expected, equal_nan=True)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K"])
def test_blocks_of_the_2023_release_decode_to_the_floats_it_decoded(corpus: Path, name: str) -> None:
    expected = json.loads((corpus / "golden/manifest.json").read_text())["types"][name]
    blocks = np.fromfile(corpus / f"golden/q2023/{name}.bin", dtype=np.uint8)
    values = quantize.dequantize(QuantType[name.upper()], blocks)
    assert hashlib.sha256(values.tobytes()).hexdigest() == expected["sha256_dequantised_f32"]


def test_count_cuts_the_last_block() -> None:
    blocks = np.arange(36, dtype=np.uint8)
    assert np.array_equal(
        quantize.dequantize(QuantType.Q4_0, blocks, 40), quants.dequantize(QuantType.Q4_0, blocks, 40)
    )
    with pytest.raises(ValueError, match="65 values asked of Q4_0 blocks that hold 64"):
        quantize.dequantize(QuantType.Q4_0, blocks, 65)


def test_a_type_that_can_only_be_listed_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFileError, match="IQ2_XXS"):
        quantize.dequantize(QuantType.IQ2_XXS, np.zeros(66, np.uint8))
    with pytest.raises(UnsupportedFileError, match="Q8_K"):
        quantize.quantize_activations(QuantType.Q8_K, np.zeros((1, 256), np.float32))


W = np.zeros(4 * 18, np.uint8)
X = np.zeros((1, 32), np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, W, 4, 32, X), "type 4"),
        ((9, W, 4, 32, X), "type 9"),
        ((-1, W, 4, 32, X), "type -1"),
        ((2**40 + 2, W, 4, 32, X), "not a type"),
        ((2, W[:-1], 4, 32, X), "71 bytes; expected 72"),
        ((2, W, 5, 32, X), "72 bytes; expected 90"),
        ((2, W, -4, 32, X), "matrix of -4 x 32"),
        ((2, W, 4, 0, X), "matrix of 4 x 0"),
        ((2, W, 4, 33, X), "multiple of 32"),
        ((2, W, 2**62, 2**40, X), "beyond any address space"),
        ((0, W, 1, 2**62, X), "beyond any address space"),
        ((2, W, 4, 32, np.zeros((1, 64), np.float32)), "64 values; the matrix has 32"),
        ((2, W, 4, 32, X, "neon"), "instruction set 'neon'"),
        ((2, W, 4, 32, X, None, -16), "rows -16 to 4"),
        ((2, W, 4, 32, X, None, 0, 5), "rows 0 to 5"),
        ((2, W, 4, 32, X, None, 4, 0), "rows 4 to 0"),
        ((2, W, 4, 32, X, "scalar", 2, 2**60), "rows 2 to"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _native.matmul(*arguments)


def test_arrays_of_another_kind_are_refused() -> None:
    others: list[Any] = [X.astype(np.float64), X[0], np.asfortranarray(np.zeros((2, 32), np.float32))]
    for x in others:
        with pytest.raises(TypeError):
            _native.matmul(2, W, 4, 32, x)
    with pytest.raises(ValueError, match="multiple of 32"):
        _native.dequantize(2, W, 33)
    with pytest.raises(ValueError, match="expected 18"):
        _native.dequantize(2, W, 32)
    with pytest.raises(ValueError, match="count -32"):
        _native.dequantize(2, W, -32)
    with pytest.raises(ValueError, match="multiple of 256"):
        _native.quantize_activations(12, X)


def test_nothing_times_something_is_empty() -> None:
    assert quantize.matmul(QuantType.Q4_0, W, 4, 32, np.zeros((0, 32), np.float32)).shape == (0, 4)
    assert quantize.matmul(QuantType.Q4_0, W[:0], 0, 32, X).shape == (1, 0)


ASK = "from selfee.weights import quantize; print(quantize.isa())"


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {name: value for name, value in os.environ.items() if name != "SELFEE_ISA"} | environment
    settings["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, timeout=60)


def test_the_fastest_instruction_set_is_chosen_unless_the_environment_says_otherwise() -> None:
    assert run(ASK).stdout.strip() == quantize.instruction_sets()[-1]
    for name in quantize.instruction_sets():
        assert run(ASK, SELFEE_ISA=name).stdout.strip() == name


def test_an_unknown_instruction_set_is_one_clear_error() -> None:
    failed = run(ASK, SELFEE_ISA="sse9")
    assert failed.returncode == 1
    assert "UsageError: SELFEE_ISA: instruction set 'sse9'; this machine and build run scalar" in failed.stderr


def test_an_instruction_set_that_the_machine_lacks_says_what_it_needs() -> None:
    missing = {"avx2": "AVX2", "avxvnni": "AVX-VNNI", "avx512": "AVX-512"}
    for name, needs in missing.items():
        if name in quantize.instruction_sets():
            continue
        failed = run(ASK, SELFEE_ISA=name)
        assert failed.returncode == 1
        assert f"UsageError: SELFEE_ISA: instruction set '{name}' needs {needs}" in failed.stderr
        assert f"this machine and build run {', '.join(quantize.instruction_sets())}" in failed.stderr


@pytest.mark.parametrize(
    ("name", "flag"), [("avx2", "avx2"), ("avxvnni", "avx_vnni"), ("avx512", "avx512_vnni")], ids=str
)
def test_an_instruction_set_is_found_where_the_system_finds_it(name: str, flag: str) -> None:
    described = Path("/proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", described.read_text(), re.MULTILINE) if described.exists() else None
    if flags is None:
        pytest.skip("the system does not list what the processor has; expected Linux on x86")
    assert (name in quantize.instruction_sets()) == (flag in flags[1].split())


def test_missing_kernels_name_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "selfee._native", None)
    monkeypatch.delattr("selfee._native", raising=False)
    with pytest.raises(SelfeeError, match="make setup"):
        quantize.isa()
