"""A cache of 8 bits: equal to its NumPy twin, near the cache of float16, and under the same laws to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llama.craft_session import craft_blocks
from tests.tiny import make_tiny

from selfee.errors import UnsupportedFileError, UsageError
from selfee.llama.cells import CacheType
from selfee.llama.config import LlamaConfig
from selfee.llama.memory import cache_bytes, memory_needed
from selfee.llama.model import Model, Session
from selfee.llama.reference import ReferenceSession
from selfee.llama.session_file import load_session, save_session, session_bytes
from selfee.weights.open import open_checkpoint
from selfee.weights.quantize import dequantize
from selfee.weights.quants import QuantType

CONTEXT = 700
SHAPES: list[dict[str, Any]] = [
    {"type": QuantType.Q4_1, "n_head_kv": 2, "head_dim": 32},
    {"n_head": 8, "n_head_kv": 1, "head_dim": 64},
    {"architecture": "qwen3", "n_head_kv": 4, "head_dim": 96, "n_layer": 3},
]
SIZES = st.one_of(st.just(1), st.integers(1, 17), st.sampled_from([31, 100, 256, 257, 300]))
BORDERS = st.sampled_from([1, 2, 15, 16, 17, 255, 256, 257, 273, 511, 512, 513, 600])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Model]]:
    """Every shape with one, two and three threads."""
    folder, models = tmp_path_factory.mktemp("tiny"), []
    for number, shape in enumerate(SHAPES):
        path = make_tiny(folder / f"{number}.gguf", n_ctx=CONTEXT, **shape)
        models += [Model.load(path, threads=threads, cache_type="q8_0") for threads in (1, 2, 3)]
    yield models
    for model in models:
        model.close()


def some_tokens(count: int, seed: int = 0) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, 300, count).tolist()
    return tokens


def holding(model: Model, tokens: Sequence[int]) -> Session:
    session = model.new_session()
    if len(tokens):
        session.forward(tokens, "none")
    return session


def logits_of(path: Path, cache_type: CacheType, count: int = 600) -> npt.NDArray[np.float32]:
    with Model.load(path, threads=2, cache_type=cache_type) as model:
        return model.new_session().forward(some_tokens(count), "all")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_native_equals_its_twin_which_stores_in_8_bits_too(shape: dict[str, Any], tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_ctx=CONTEXT, **(shape | {"type": QuantType.F32}))
    native = logits_of(path, "q8_0")
    with open_checkpoint(path) as checkpoint:
        twin = ReferenceSession(checkpoint, "q8_0").forward(some_tokens(600), "all")
    delta = native - twin  # a value halfway between two codes may go either way
    assert np.abs(delta).max() < 0.02
    assert np.sqrt(np.mean(np.square(delta))) < 1e-3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_8_bits_are_near_float16_and_not_the_same(shape: dict[str, Any], tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_ctx=CONTEXT, **(shape | {"type": QuantType.F32}))
    delta = logits_of(path, "q8_0") - logits_of(path, "f16")
    assert 1e-4 < np.sqrt(np.mean(np.square(delta))) < 0.01


def test_a_cached_value_is_the_float_rounded_to_its_code(tmp_path: Path) -> None:
    """The first layer's cells do not depend on the cache, so both caches are given the same floats."""
    path = make_tiny(tmp_path / "tiny.gguf", n_ctx=CONTEXT, head_dim=64, n_layer=1)
    cells: dict[str, npt.NDArray[np.uint16]] = {}
    for cache_type in ("f16", "q8_0"):
        with Model.load(path, threads=1, cache_type=cache_type) as model:
            cells[cache_type] = np.concatenate([*holding(model, some_tokens(300)).read_cells(300)], axis=2)
    halves = cells["f16"].view(np.float16).astype(np.float32)
    codes = cells["q8_0"].reshape(-1).view(np.uint8)
    stored = dequantize(QuantType.Q8_0, codes).reshape(halves.shape)
    largest = np.abs(halves.reshape(*halves.shape[:-1], 2, 32)).max(axis=-1, keepdims=True)
    error = np.abs((stored - halves).reshape(*halves.shape[:-1], 2, 32)) / largest
    assert error.max() < 0.5 / 127 + 2e-3  # half a code; the scale and the halves themselves are rounded to 11 bits
    assert np.abs(codes.reshape(-1, 34)[:, 2:].view(np.int8)).max(axis=1).min() == 127


@settings(max_examples=40)
@given(
    st.integers(0, 8),
    st.lists(
        st.tuples(st.sampled_from([0, 1, 15, 200, 255, 256, 257, 399]), SIZES, st.integers(0, 300)),
        min_size=1,
        max_size=9,
    ),
    st.integers(0, 2**32),
)
def test_every_session_gets_the_same_bits_in_company_as_alone(
    models: list[Model], which: int, wanted: list[tuple[int, int, int]], seed: int
) -> None:
    model = models[which]
    texts = [some_tokens(held + grow, seed + index) for index, (held, grow, _) in enumerate(wanted)]
    parts = [
        (holding(model, text[:held]), text[held:], min(count, grow))
        for text, (held, grow, count) in zip(texts, wanted, strict=True)
    ]
    together = model.forward_many(parts)
    for (session, grown, count), text, logits in zip(parts, texts, together, strict=True):
        alone = holding(model, text[: len(text) - len(grown)])
        assert logits.tobytes() == alone.forward(grown, count).tobytes()
        assert session.forward([7]).tobytes() == alone.forward([7]).tobytes()


@settings(max_examples=25)
@given(st.integers(0, 2), st.lists(SIZES, min_size=1, max_size=5), st.integers(0, 2**32))
def test_logits_have_the_same_bits_however_tokens_are_divided_and_with_any_number_of_threads(
    models: list[Model], shape: int, sizes: list[int], seed: int
) -> None:
    while sum(sizes) > CONTEXT:
        sizes.pop()
    one, *others = models[3 * shape : 3 * shape + 3]
    tokens = some_tokens(sum(sizes), seed)
    whole = one.new_session().forward(tokens, "all").tobytes()
    for model in (one, *others):
        session, parts, at = model.new_session(), [], 0
        for size in sizes:
            parts.append(session.forward(tokens[at : at + size], "all"))
            at += size
        assert np.concatenate(parts).tobytes() == whole


@settings(max_examples=30)
@given(
    st.integers(0, 8),
    BORDERS,
    st.floats(0, 1),
    st.integers(0, 600),
    st.integers(1, 90),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_cut_back_copied_and_regrown_equals_fresh_to_the_bit(
    models: list[Model], which: int, held: int, part: float, before: int, grow: int, give_back: bool, seed: int
) -> None:
    model, text, more = models[which], some_tokens(held, seed), some_tokens(grow, seed + 1)
    source, copy = holding(model, text), holding(model, some_tokens(before, seed + 2))
    length = int(part * held)
    copy.copy_from(source, length)
    source.truncate(length, give_back=give_back)
    fresh = holding(model, text[:length]).forward(more, "all").tobytes()
    assert copy.forward(more, "all").tobytes() == fresh
    assert source.forward(more, "all").tobytes() == fresh


@settings(max_examples=20)
@given(st.integers(0, 8), BORDERS, st.integers(1, 60), st.integers(0, 2**32))
def test_saved_and_restored_equals_fresh_to_the_bit(
    models: list[Model], tmp_path_factory: pytest.TempPathFactory, which: int, count: int, grow: int, seed: int
) -> None:
    model, path = models[which], tmp_path_factory.mktemp("session") / "s"
    text, more = some_tokens(count, seed), some_tokens(grow, seed + 1)
    source, session = holding(model, text), model.new_session()
    save_session(path, source, text)
    assert load_session(path, session) == text
    assert path.stat().st_size == session_bytes(model.config, count, "q8_0")
    assert session.forward(more, "all").tobytes() == source.forward(more, "all").tobytes()


@pytest.mark.parametrize("count", [1, 256, 300])
def test_the_bytes_are_those_of_the_page_that_describes_them(models: list[Model], tmp_path: Path, count: int) -> None:
    for model in models[::3]:
        tokens = some_tokens(count)
        session = holding(model, tokens)
        save_session(tmp_path / "s", session, tokens)
        name = model.checkpoint.path.name
        expected = craft_blocks(model.config, model.fingerprint(), name, tokens, [*session.read_cells(count)])
        assert (tmp_path / "s").read_bytes() == expected


def test_a_session_of_the_other_type_is_refused_with_the_word_that_opens_it(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", head_dim=32)
    both: tuple[CacheType, CacheType] = ("f16", "q8_0")
    for own, other in (both, both[::-1]):
        with Model.load(path, cache_type=own) as model, Model.load(path, cache_type=other) as wrong:
            save_session(tmp_path / "s", holding(model, [1, 2, 3]), [1, 2, 3])
            session = wrong.new_session()
            with pytest.raises(UnsupportedFileError, match=f"stored as {own}; .* stores {other}; .* cache_type {own}"):
                load_session(tmp_path / "s", session)
            assert session.length == 0


def test_heads_that_do_not_divide_are_refused_before_weights_are_read(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_head=4, head_dim=20)
    with open_checkpoint(path) as checkpoint:
        config = LlamaConfig.from_checkpoint(checkpoint)
        for attempt in (
            lambda: Model.load(checkpoint, cache_type="q8_0"),
            lambda: cache_bytes(config, 100, "q8_0"),
            lambda: ReferenceSession(checkpoint, "q8_0"),
        ):
            with pytest.raises(UsageError, match=r"q8_0 for heads of 20 values; expected a multiple of 32; use f16"):
                attempt()
        with pytest.raises(UsageError, match="cache_type: 'q4_0'; expected f16 or q8_0"):
            Model.load(checkpoint, cache_type="q4_0")  # type: ignore[arg-type]


def test_native_code_refuses_cells_that_do_not_fit_even_if_nobody_else_did(tmp_path: Path) -> None:
    from selfee import _native

    with Model.load(make_tiny(tmp_path / "a.gguf", head_dim=20), threads=1) as model:
        for number, message in ((8, "multiple of 32"), (2, "no type of cells")):
            with pytest.raises(ValueError, match=message):
                _native.Session(model._native, 100, number)
    with Model.load(make_tiny(tmp_path / "b.gguf", head_dim=32), threads=1) as model:
        halves, codes = (_native.Session(model._native, 100, number) for number in (1, 8))
        with pytest.raises(ValueError, match="cells of another type"):
            halves.copy_from(codes, 0)
        with pytest.raises(ValueError, match="words of a row"):
            codes.write_cells(0, 0, 1, np.zeros((2, model.config.kv_heads, 1, 32), np.uint16))


def test_sessions_of_both_types_in_one_pass_get_what_they_would_alone(tmp_path: Path) -> None:
    from selfee import _native

    with Model.load(make_tiny(tmp_path / "tiny.gguf", head_dim=32, n_head_kv=2), threads=2) as model:
        text = np.array(some_tokens(300), dtype=np.int32)
        pairs = [[_native.Session(model._native, 400, number) for number in (1, 8)] for _ in range(2)]
        together = _native.forward_many([(session, text, 1) for session in pairs[0]])
        alone = [session.forward(text, 1) for session in pairs[1]]
        assert together.tobytes() == b"".join(row.tobytes() for row in alone)


def test_half_the_memory_is_announced(tmp_path: Path) -> None:
    with open_checkpoint(make_tiny(tmp_path / "tiny.gguf", head_dim=64, n_head_kv=2)) as checkpoint:
        config = LlamaConfig.from_checkpoint(checkpoint)
        assert cache_bytes(config, 1000, "q8_0") == 2 * 2 * (64 + 64) * 1024 * 34 // 32
        assert cache_bytes(config, 1000) == 2 * 2 * (64 + 64) * 1024 * 2
        saved = memory_needed(checkpoint, config, 1000, 3) - memory_needed(checkpoint, config, 1000, 3, "q8_0")
        assert saved == 3 * (cache_bytes(config, 1000) - cache_bytes(config, 1000, "q8_0"))


def test_weights_that_are_no_numbers_give_no_numbers_and_no_crash(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", head_dim=32)
    with open_checkpoint(path) as checkpoint:
        tensor = checkpoint.tensors["blk.0.attn_k.weight"]
        data = bytearray(path.read_bytes())
    for bits in (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f"):  # NaN, infinity, the largest number
        data[tensor.offset : tensor.offset + tensor.nbytes] = bits * (tensor.nbytes // 4)
        path.write_bytes(data)
        with Model.load(path, threads=2, cache_type="q8_0") as model:
            assert model.new_session().forward(some_tokens(300), "all").shape[0] == 300
