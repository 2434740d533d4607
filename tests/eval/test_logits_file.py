"""llama.cpp's file of log-probabilities: written as it writes, read as it reads, refused where it is damaged."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from selfee.errors import BadFileError, ResourceError, UsageError
from selfee.eval.chunks import Chunks
from selfee.eval.logits_file import LogitsFile, encode_rows, row_codes, writing
from selfee.eval.perplexity import log_softmax

Floats = np.ndarray[Any, np.dtype[np.float32]]
VOCABULARY, N_CTX = 7, 8
CHUNKS = Chunks(np.arange(2 * N_CTX, dtype=np.int32).reshape(2, N_CTX) % VOCABULARY, None, 4)
"""Two chunks of eight tokens, three positions scored in each."""


def logits_of(rows: int, vocabulary: int = VOCABULARY, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 6, (rows, vocabulary)).astype(np.float32)


def written(folder: Path, vocabulary: int = VOCABULARY) -> Path:
    path = folder / "l"
    with writing(path, CHUNKS, vocabulary) as file:
        for seed in range(6):
            file.add(logits_of(1, vocabulary, seed))
    return path


def encoded_one_by_one(row: Floats) -> bytes:
    """One row by the published steps, a number at a time, in single precision where llama.cpp has it."""
    single = np.float32
    top, least = max(row), min(row)
    bottom = max(least, single(top - single(16)))
    total = math.fsum(float(np.exp(single(value - top))) for value in row)
    log_total = single(math.log(total))
    minimum = single(single(bottom - top) - log_total)
    scale = single(single(top - bottom) / single(65535))
    codes = []
    for value in row:
        is_coded = scale and value > bottom
        codes.append(round(float(single(single(single(1) / scale) * single(value - bottom)))) if is_coded else 0)
    if len(codes) % 2:
        codes.append(0)
    return struct.pack("<2f", scale, minimum) + struct.pack(f"<{len(codes)}H", *codes)


@pytest.mark.parametrize("vocabulary", [1, 2, 7, 100])
def test_rows_are_coded_by_the_published_steps(vocabulary: int) -> None:
    rows = np.concatenate([logits_of(4, vocabulary), np.zeros((1, vocabulary), dtype=np.float32)])
    codes = encode_rows(rows)
    assert codes.shape == (5, row_codes(vocabulary))
    for row, found in zip(rows, codes, strict=True):
        assert found.tobytes() == encoded_one_by_one(row)


@given(arrays(np.float32, (2, 5), elements=st.floats(-(2.0**127), 2.0**127, width=32)))
def test_any_logits_have_codes(logits: Floats) -> None:
    codes = encode_rows(logits)
    numbers = np.ascontiguousarray(codes[:, :4]).view("<f4")
    assert np.isfinite(numbers).all()
    decoded = numbers[:, :1] * codes[:, 4:9] + numbers[:, 1:]
    exact = log_softmax(logits)
    near = exact > exact.max(axis=1, keepdims=True) - 15.99
    np.testing.assert_allclose(decoded[near], exact[near], atol=2e-4)


@pytest.mark.parametrize("vocabulary", [VOCABULARY, VOCABULARY + 1])
def test_what_is_read_is_what_was_written(tmp_path: Path, vocabulary: int) -> None:
    file = LogitsFile(written(tmp_path, vocabulary))
    assert file.vocabulary == vocabulary
    np.testing.assert_array_equal(file.tokens, CHUNKS.tokens)
    for index in range(2):
        found = file.log_probabilities(index, 0, 3)
        logits = np.concatenate([logits_of(1, vocabulary, 3 * index + position) for position in range(3)])
        exact = log_softmax(logits)
        is_near = exact > exact.max(axis=1, keepdims=True) - 15.99
        np.testing.assert_allclose(found[is_near], exact[is_near], atol=2e-4)
        np.testing.assert_array_equal(found[1:2], file.log_probabilities(index, 1, 2))
        assert (found[~is_near] < -15.9).all()
    file.close()


def test_the_layout_is_llama_cpps(tmp_path: Path) -> None:
    data = written(tmp_path).read_bytes()
    assert data[:20] == b"_logits_" + struct.pack("<Iii", N_CTX, VOCABULARY, 2)
    assert data[20 : 20 + 64] == CHUNKS.tokens.tobytes()
    assert data[84:] == b"".join(encoded_one_by_one(logits_of(1, VOCABULARY, seed)[0]) for seed in range(6))


def damaged(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"GGUF", "no _logits_ there"),
        (8, struct.pack("<I", 0), "0 tokens of a chunk"),
        (8, struct.pack("<I", 2**32 - 1), "4294967295 tokens of a chunk"),
        (8, struct.pack("<I", 9), "bytes; expected"),
        (12, struct.pack("<i", 0), "0 tokens of the vocabulary"),
        (12, struct.pack("<i", -7), "-7 tokens of the vocabulary"),
        (12, struct.pack("<i", 9), "bytes; expected"),
        (16, struct.pack("<i", 0), "0 chunks"),
        (16, struct.pack("<i", 2**31 - 1), "2147483647 chunks"),
        (16, struct.pack("<i", 3), "bytes; expected"),
        (20, struct.pack("<i", VOCABULARY), f"token {VOCABULARY} in a vocabulary of {VOCABULARY}"),
        (20, struct.pack("<i", -1), "token -1 in a vocabulary"),
    ],
)
def test_a_damaged_head_is_refused(tmp_path: Path, at: int, value: bytes, message: str) -> None:
    path = written(tmp_path)
    path.write_bytes(damaged(path.read_bytes(), at, value))
    with pytest.raises(BadFileError) as caught:
        LogitsFile(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "numbers",
    [(math.nan, -1.0), (-0.1, -1.0), (0.1, math.inf), (0.1, 1.0), (math.inf, -1.0), (0.01, -1.0), (0.0001, -1000.0)],
)
def test_an_impossible_scale_or_minimum_is_refused_where_it_is_read(
    tmp_path: Path, numbers: tuple[float, float]
) -> None:
    path = written(tmp_path)
    path.write_bytes(damaged(path.read_bytes(), 84, struct.pack("<2f", *numbers)))
    file = LogitsFile(path)
    with pytest.raises(BadFileError, match="a scale or minimum in chunk 1 is impossible"):
        file.log_probabilities(0, 0, 3)
    file.log_probabilities(1, 0, 3)


@given(st.data())
def test_no_cut_of_a_file_is_read_as_a_whole_one(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = written(tmp_path_factory.mktemp("cut"))
    whole = path.read_bytes()
    end = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:end])
    with pytest.raises(BadFileError):
        LogitsFile(path)


@given(st.data())
def test_whatever_bytes_are_changed_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = written(tmp_path_factory.mktemp("flip"))
    content = bytearray(path.read_bytes())
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)):
        content[at] = value
    path.write_bytes(content)
    rows = [np.zeros((1, VOCABULARY), dtype=np.float32)]
    with suppress(BadFileError):
        file = LogitsFile(path)
        rows = [file.log_probabilities(index, 0, 3) for index in range(2)]
    assert np.isfinite(np.concatenate(rows)).all()


def test_a_byte_too_many_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BadFileError, match="bytes; expected"):
        LogitsFile(path)


def test_a_file_that_was_not_finished_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        with writing(tmp_path / "l", CHUNKS, VOCABULARY) as file:
            file.add(logits_of(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_chunks_scored_as_in_2023_cannot_be_saved(tmp_path: Path) -> None:
    old = Chunks(np.zeros((1, 2048), dtype=np.int32), None, 512)
    with pytest.raises(UsageError, match="current definition only"), writing(tmp_path / "l", old, VOCABULARY):
        pass


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be written"), writing(tmp_path / "no" / "l", CHUNKS, VOCABULARY):
        pass
