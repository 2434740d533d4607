"""The native quantisers against their NumPy twins: the same bytes on any instruction set and number of threads."""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.native.nasty import KINDS, Floats, collection, importance, super_block
from tests.native.oracle import COMPUTED

from selfee.errors import UsageError
from selfee.weights.quantization import quantizers
from selfee.weights.quantization.quantizers import Generation, NotFinite
from selfee.weights.quantize import Quantizer, dequantize, instruction_sets
from selfee.weights.quants import QuantType

Bytes = npt.NDArray[np.uint8]

PLAIN = [QuantType.F32, QuantType.F16, QuantType.BF16]
LEGACY = [QuantType.Q4_0, QuantType.Q4_1, QuantType.Q5_0, QuantType.Q5_1, QuantType.Q8_0]
K_TYPES = [QuantType.Q2_K, QuantType.Q3_K, QuantType.Q4_K, QuantType.Q5_K, QuantType.Q6_K]
WRITTEN = PLAIN + LEGACY + K_TYPES
REMEMBERING = [QuantType.Q2_K, QuantType.Q4_K, QuantType.Q5_K]
RULES = ["june-2023", "current", "importance"]

every_type = pytest.mark.parametrize("type", WRITTEN, ids=lambda type: type.name)
every_isa = pytest.mark.parametrize("isa", instruction_sets())


@functools.cache
def quantizer(threads: int, isa: str) -> Quantizer:
    return Quantizer(threads, instruction_set=isa)


def native(type: QuantType, values: Floats, rules: str, isa: str = "scalar", threads: int = 1) -> Bytes:
    """Quantise (rows, columns) float32 by a rule; the importance is that of ``nasty.importance``."""
    rows, cols = values.shape
    weights = importance(cols, 1) if rules == "importance" else None
    generation = Generation.CURRENT if rules == "importance" else Generation(rules)
    raw = np.ascontiguousarray(values).view(np.uint8)
    return quantizer(threads, isa).run(type, QuantType.F32, raw, rows, cols, generation=generation, importance=weights)


def twin(type: QuantType, values: Floats, rules: str) -> Bytes:
    if rules == "importance":
        blocks = quantizers.quantize(type, values, importance=importance(values.shape[1], 1))
    else:
        blocks = quantizers.quantize(type, values, generation=Generation(rules))
    return blocks.reshape(-1)


def differing(type: QuantType, one: Bytes, other: Bytes) -> list[int]:
    """Numbers of the blocks that differ."""
    assert one.shape == other.shape
    unequal = (one != other).reshape(-1, type.block_bytes).any(axis=1)
    return np.flatnonzero(unequal).tolist()


@functools.cache
def nasty_values() -> Floats:
    return collection(6)[:172].reshape(-1, 512)


@functools.cache
def nasty_blocks(type: QuantType, rules: str) -> Bytes:
    return twin(type, nasty_values(), rules)


@functools.cache
def long_values() -> Floats:
    """Several parts and a bit: long enough for threads, with stretches that repeat across the parts' borders."""
    rng = np.random.default_rng(4)
    values = rng.normal(0, 0.02, (37, 4096)).astype(np.float16).astype(np.float32)
    values.reshape(-1, 256)[100:400] = rng.normal(0, 0.02, 256)
    return values


# ---- the twins define the bytes --------------------------------------------------------------------------------------


@every_isa
@pytest.mark.parametrize("rules", RULES)
@every_type
def test_the_bytes_are_those_of_the_twin_for_values_of_every_kind(type: QuantType, rules: str, isa: str) -> None:
    values = nasty_values()
    assert differing(type, native(type, values, rules, isa), nasty_blocks(type, rules)) == []


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("type", LEGACY + K_TYPES, ids=lambda type: type.name)
@given(kinds=st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, 2**32)), min_size=2, max_size=12))
@settings(max_examples=4)
def test_the_bytes_are_those_of_the_twin_for_any_mixture(
    type: QuantType, rules: str, kinds: list[tuple[str, int]]
) -> None:
    values = np.stack([super_block(kind, seed) for kind, seed in kinds])
    expected, refused_at = outcome(functools.partial(twin, type, values, rules))
    for isa in instruction_sets():
        blocks, index = outcome(functools.partial(native, type, values, rules, isa))
        assert index == refused_at, isa
        if blocks is not None and expected is not None:
            assert differing(type, blocks, expected) == [], isa


def outcome(quantise: Callable[[], Bytes]) -> tuple[Bytes | None, int | None]:
    """The blocks, or where they were refused: values of all sizes can ask for a scale that float16 does not have."""
    try:
        return quantise(), None
    except NotFinite as refusal:
        return None, refusal.index


@pytest.mark.corpus
@every_isa
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("type", LEGACY + K_TYPES, ids=lambda type: type.name)
def test_the_same_bytes_as_llama_cpp(corpus: Path, type: QuantType, rules: str, isa: str) -> None:
    golden = corpus / "golden"
    name = type.name.lower().replace("_k", "_K")
    folder, end = (
        ("q2023", "bin") if rules == "june-2023" else ("q2026", "imatrix.bin" if rules == "importance" else "bin")
    )
    if not (golden / folder / f"{name}.{end}").exists():
        folder, end = "q2023", "bin"  # equal in both years, or takes no notice of importance
    values = np.fromfile(golden / "input.f32.bin", dtype="<f4").view(np.uint8)
    weights = np.fromfile(golden / "imatrix_256.f32.bin", dtype="<f4") if rules == "importance" else None
    generation = Generation.JUNE_2023 if rules == "june-2023" else Generation.CURRENT
    blocks = quantizer(2, isa).run(
        type, QuantType.F32, values, values.size // 1024, 256, generation=generation, importance=weights
    )
    assert blocks.tobytes() == (golden / folder / f"{name}.{end}").read_bytes()


# ---- division of the work --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", RULES)
@every_type
def test_the_bytes_do_not_depend_on_threads_or_instruction_set(type: QuantType, rules: str) -> None:
    values = long_values()
    expected = native(type, values, rules, instruction_sets()[-1], 1)
    for threads in (2, 3, 7):
        assert differing(type, native(type, values, rules, instruction_sets()[-1], threads), expected) == []
    for isa in instruction_sets()[:-1]:
        assert differing(type, native(type, values, rules, isa, 2), expected) == []


@pytest.mark.parametrize("type", REMEMBERING, ids=lambda type: type.name)
def test_codes_left_from_the_super_block_before_end_a_search_across_parts_too(type: QuantType) -> None:
    one = np.random.default_rng(5).normal(0, 1, 256).astype(np.float32)
    values = np.tile(one, (400, 1))
    expected = twin(type, values, "june-2023")
    assert differing(type, expected, native(type, values, "current")) != []
    for threads in (1, 2, 7):
        assert differing(type, native(type, values, "june-2023", threads=threads), expected) == []


@pytest.mark.parametrize("type", REMEMBERING, ids=lambda type: type.name)
@given(seed=st.integers(0, 2**32), cuts=st.sets(st.integers(1, 39), max_size=4))
@settings(max_examples=8)
def test_a_tensor_in_parts_is_the_tensor_in_one_if_each_part_knows_the_block_before(
    type: QuantType, seed: int, cuts: set[int]
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (20, 1, 256)).astype(np.float32).repeat(2, axis=1).reshape(40, 256)
    whole = native(type, values, "june-2023")
    parts: list[Bytes] = []
    previous: Bytes | None = None
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 40], strict=True):
        part = values[start:end]
        raw = part.view(np.uint8)
        parts.append(quantizer(2, "scalar").run(type, QuantType.F32, raw, len(part), 256, previous=previous))
        assert (quantizers.quantize(type, part, previous=previous).reshape(-1) == parts[-1]).all()
        previous = parts[-1][-type.block_bytes :]
    assert (np.concatenate(parts) == whole).all()


@pytest.mark.parametrize("source", PLAIN[1:] + LEGACY + K_TYPES, ids=lambda type: type.name)
def test_a_quantised_source_is_read_as_its_values(source: QuantType) -> None:
    values = np.random.default_rng(6).normal(0, 0.02, (40, 1024)).astype(np.float32)
    stored = native(source, values, "current")
    seen = dequantize(source, stored).reshape(values.shape)
    for type in (QuantType.F16, QuantType.Q4_0, QuantType.Q5_1, QuantType.Q4_K, QuantType.Q6_K):
        for weights in (None, importance(1024, 2)):
            made = quantizer(2, instruction_sets()[-1]).run(
                type, source, stored, 40, 1024, generation=Generation.CURRENT, importance=weights
            )
            expected = quantizer(1, "scalar").run(
                type, QuantType.F32, seen.view(np.uint8), 40, 1024, generation=Generation.CURRENT, importance=weights
            )
            assert differing(type, made, expected) == []


def test_blocks_run_across_the_ends_of_rows() -> None:
    values = np.random.default_rng(7).normal(0, 0.02, (16, 80)).astype(np.float32)
    made = quantizer(1, "scalar").run(QuantType.Q4_K, QuantType.F32, values.view(np.uint8), 16, 80)
    assert made.tobytes() == quantizers.quantize(QuantType.Q4_K, values).tobytes()


def test_a_quantizer_says_how_many_threads_it_has() -> None:
    assert quantizer(3, "scalar").threads == 3


@every_type
def test_no_values_are_no_blocks(type: QuantType) -> None:
    assert quantizer(2, "scalar").run(type, QuantType.F16, np.empty(0, np.uint8), 0, 256).size == 0


# ---- what cannot be stored -------------------------------------------------------------------------------------------


@every_isa
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@every_type
def test_the_first_value_that_is_not_finite_is_named(type: QuantType, bad: float, isa: str) -> None:
    values = np.ones((40, 4096), dtype=np.float32)
    values.reshape(-1)[[70_001, 70_002, 150_000]] = bad
    with pytest.raises(NotFinite, match="value 70001 is NaN or infinite") as caught:
        native(type, values, "current", isa, 2)
    assert caught.value.index == 70_001
    with pytest.raises(NotFinite) as of_twin:
        quantizers.quantize(type, values)
    assert str(of_twin.value) == str(caught.value)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("value", [70_000.0, 4e6, 1e9, 1e13, 1e20, 3e38])
@pytest.mark.parametrize("type", WRITTEN[1:], ids=lambda type: type.name)
def test_a_value_too_large_for_float16_scales_is_refused_where_it_is(type: QuantType, value: float, rules: str) -> None:
    values = np.ones((4, 512), dtype=np.float32)
    values[2, 300] = -value
    refused = refusal(lambda: twin(type, values, rules))
    assert str(refusal(lambda: native(type, values, rules, instruction_sets()[-1]))) == str(refused)
    if refused is not None:
        assert 1324 - type.block_values < refused.index <= 1324
    else:
        assert value < 1e9 or type is QuantType.BF16
        made = native(type, values, rules, instruction_sets()[-1])
        assert np.isfinite(dequantize(type, made)).all()
        assert differing(type, made, twin(type, values, rules)) == []


def refusal(quantize: Callable[[], Bytes]) -> NotFinite | None:
    try:
        quantize()
    except NotFinite as error:
        return error
    return None


@pytest.mark.parametrize("source", COMPUTED, ids=lambda type: type.name)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=6)
def test_any_bytes_are_quantised_or_refused_as_the_twin_does(source: QuantType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, 1024 // source.block_values * source.block_bytes, dtype=np.uint8)
    with np.errstate(all="ignore"):
        values = dequantize(source, raw)
    if source in PLAIN and seed % 2:  # finite numbers of all sizes
        values = values[np.abs(values) < 1e4][:512].repeat(2)
        raw = quantizers.quantize(source, values[: values.size // 256 * 256]).reshape(-1)
        values = dequantize(source, raw)
    for type, rules in ((QuantType.Q4_K, "june-2023"), (QuantType.Q2_K, "current"), (QuantType.Q6_K, "current")):
        generation = Generation(rules)
        of_twin = functools.partial(quantizers.quantize, type, values, generation=generation)
        run = functools.partial(
            quantizer(2, instruction_sets()[-1]).run, type, source, raw, values.size // 256, 256, generation=generation
        )
        refused = refusal(run)
        assert str(refused) == str(refusal(of_twin))
        if refused is None:
            assert differing(type, run(), of_twin().reshape(-1)) == []


def test_importance_of_nothing_at_all_makes_zeros_as_in_llama_cpp() -> None:
    values = np.random.default_rng(8).normal(size=(2, 256)).astype(np.float32)
    nothing = np.zeros(256, dtype=np.float32)
    for type in LEGACY[:-1] + K_TYPES:
        made = quantizer(1, "scalar").run(type, QuantType.F32, values.view(np.uint8), 2, 256, importance=nothing)
        assert made.tobytes() == quantizers.quantize(type, values, importance=nothing).tobytes()
        assert np.isfinite(dequantize(type, made)).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
def test_an_importance_that_is_none_is_refused(wrong: float) -> None:
    values, weights = np.ones((2, 256), dtype=np.float32), np.ones(256, dtype=np.float32)
    weights[7] = wrong
    with pytest.raises(UsageError, match="importance of column 7"):
        quantizer(1, "scalar").run(QuantType.Q4_K, QuantType.F32, values.view(np.uint8), 2, 256, importance=weights)
    with pytest.raises(UsageError, match="importance of column 7"):
        quantizers.quantize(QuantType.Q4_K, values, importance=weights)


def test_sizes_that_do_not_fit_are_refused() -> None:
    run = quantizer(1, "scalar").run
    ones = np.ones(1024, dtype=np.uint8)
    with pytest.raises(ValueError, match="multiple of 32"):
        run(QuantType.Q4_0, QuantType.F32, ones[:132], 1, 33)
    with pytest.raises(ValueError, match="1024 bytes; expected 1028"):
        run(QuantType.F16, QuantType.F32, ones, 1, 257)
    with pytest.raises(ValueError, match="tensor of"):
        run(QuantType.F16, QuantType.F32, ones, 2**40, 2**40)
    with pytest.raises(ValueError, match="tensor of"):
        run(QuantType.F16, QuantType.F32, ones, -1, 256)
    with pytest.raises(UsageError, match="importance of shape"):
        run(QuantType.Q4_0, QuantType.F32, ones, 1, 256, importance=np.ones(255, np.float32))
    with pytest.raises(ValueError, match="83 bytes; expected 84"):
        run(QuantType.Q2_K, QuantType.F32, ones, 1, 256, previous=ones[:83])
    with pytest.raises(ValueError, match="threads 0"):
        Quantizer(0)


def test_ctrl_c_ends_a_long_call() -> None:
    values = np.random.default_rng(10).normal(0, 0.02, 1 << 22).astype(np.float16).view(np.uint8)
    many = np.tile(values, 12)  # seconds of work
    slow = Quantizer(1, instruction_set="scalar")
    threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        slow.run(QuantType.Q5_K, QuantType.F16, many, 12, 1 << 22, generation=Generation.CURRENT)
    assert time.monotonic() - start < 1


# ---- how much is lost ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@every_type
def test_the_error_is_that_of_quantising_and_reading_back(type: QuantType, weighted: bool) -> None:
    values = np.random.default_rng(9).normal(0, 0.02, (30, 1536)).astype(np.float16).astype(np.float32)
    weights = importance(1536, 3) if weighted else None
    raw = values.view(np.uint8)
    lost = quantizer(2, instruction_sets()[-1]).error(
        type, QuantType.F32, raw, 30, 1536, generation=Generation.CURRENT, importance=weights
    )
    blocks = quantizer(1, "scalar").run(
        type, QuantType.F32, raw, 30, 1536, generation=Generation.CURRENT, importance=weights
    )
    difference = dequantize(type, blocks).reshape(values.shape).astype(np.float64) - values
    factor = 1.0 if weights is None else weights.astype(np.float64)
    assert lost.error == pytest.approx(float((factor * difference**2).sum()), rel=1e-12)
    assert lost.energy == pytest.approx(float((values.astype(np.float64) ** 2).sum()), rel=1e-12)


@pytest.mark.parametrize("type", [QuantType.Q4_0, QuantType.Q4_K, QuantType.Q6_K], ids=lambda type: type.name)
def test_the_error_is_the_same_number_however_it_is_computed(type: QuantType) -> None:
    values = long_values()
    raw, (rows, cols) = values.view(np.uint8), values.shape
    found = {
        quantizer(threads, isa).error(type, QuantType.F32, raw, rows, cols)
        for threads in (1, 3)
        for isa in instruction_sets()
    }
    assert len(found) == 1
