"""Importance matrices: both forms of file say the same, and none that is damaged gets through."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import make_tiny

from selfee.errors import BadFileError, UsageError
from selfee.weights.gguf_writer import TensorData, write_gguf
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.imatrix import Form, Importance, InputSums, read_imatrix, write_imatrix
from selfee.weights.quants import QuantType

FORMS: tuple[Form, ...] = ("gguf", "dat")
CHUNK = 512


def importance_of(values: dict[str, list[float]], chunks: int = 3) -> Importance:
    counts = np.array([chunks * CHUNK], dtype=np.float32)
    sums = {name: InputSums(np.array([row], dtype=np.float32), counts) for name, row in values.items()}
    return Importance(sums, datasets=["prose.txt"], chunks=chunks, chunk_size=CHUNK)


def dat(entries: list[tuple[bytes, int, list[float]]], tail: bytes = b"", count: int | None = None) -> bytes:
    """A file of the older form, written by hand."""
    parts = [struct.pack("<i", len(entries) if count is None else count)]
    for name, calls, values in entries:
        parts += [struct.pack("<i", len(name)), name, struct.pack("<ii", calls, len(values))]
        parts += [struct.pack(f"<{len(values)}f", *values)]
    return b"".join(parts) + tail


@pytest.mark.parametrize("form", FORMS)
@given(
    values=st.dictionaries(
        st.text("abc.ü", min_size=1, max_size=20),
        st.lists(st.floats(0, 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=9),
        min_size=1,
        max_size=4,
    ),
    chunks=st.integers(1, 1000),
)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, form: Form, values: dict[str, list[float]], chunks: int
) -> None:
    path = tmp_path_factory.mktemp("im") / "i"
    values = {name: [0.0 if value < 1e-30 else value for value in row] for name, row in values.items()}
    written = importance_of(values, chunks)
    write_imatrix(path, written, form)
    found = read_imatrix(path)
    assert list(found) == sorted(values)
    for name in values:
        np.testing.assert_array_equal(found.sums[name].squares, written.sums[name].squares)
        np.testing.assert_array_equal(found[name], written[name])
    assert (found.datasets, found.chunks, found.chunk_size) == (("prose.txt",), chunks, CHUNK)


def test_importance_is_the_mean_square_of_what_a_column_saw() -> None:
    found = importance_of({"a": [3.0 * CHUNK, 0.0, 1.5]})["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([1.0, 0.0, 1.5 / (3 * CHUNK)], dtype=np.float32))


def test_an_expert_that_saw_no_token_counts_evenly() -> None:
    sums = InputSums(np.array([[4.0, 2.0], [0.0, 0.0]], dtype=np.float32), np.array([2.0, 0.0], dtype=np.float32))
    assert Importance({"e": sums}, chunks=1, chunk_size=2)["e"].tolist() == [2.0, 1.0, 1.0, 1.0]


def test_the_older_form_is_read_as_llama_cpp_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "old.dat"
    name = b"blk.0.attn_q.weight"
    body = dat([(name, 4, [2.0, 8.0, 0.0])], struct.pack("<ii", 4, 5) + b"a.txt")
    path.write_bytes(body)
    found = read_imatrix(path)
    assert found["blk.0.attn_q.weight"].tolist() == [0.5, 2.0, 0.0]
    assert (found.chunks, found.datasets) == (4, ("a.txt",))
    write_imatrix(tmp_path / "again.dat", found, "dat")
    assert (tmp_path / "again.dat").read_bytes() == body


@pytest.mark.parametrize("tail", [b"", struct.pack("<i", 7)])
def test_the_oldest_files_end_without_chunks_or_text(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "old.dat"
    path.write_bytes(dat([(b"a", 1, [1.0])], tail))
    assert read_imatrix(path)["a"].tolist() == [1.0]


def test_the_new_form_is_what_the_gguf_package_reads(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "i.gguf"
    write_imatrix(path, importance_of({"blk.0.ffn_up.weight": [1.0, 2.0]}))
    reader = gguf.GGUFReader(path)
    found = {tensor.name: (tensor.data.tolist(), tensor.shape.tolist()) for tensor in reader.tensors}
    assert found == {
        "blk.0.ffn_up.weight.in_sum2": ([[1.0, 2.0]], [2, 1]),
        "blk.0.ffn_up.weight.counts": ([[1536.0]], [1, 1]),
    }
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["prose.txt"]
    assert reader.fields["imatrix.chunk_count"].contents() == 3
    assert reader.fields["imatrix.chunk_size"].contents() == CHUNK


def test_notes_of_selfee_come_back_and_other_metadata_does_not(tmp_path: Path) -> None:
    written = importance_of({"a": [1.0]})
    written.notes = {"selfee.text_sha256": "ab", "other": "x"}
    write_imatrix(tmp_path / "i.gguf", written)
    assert read_imatrix(tmp_path / "i.gguf").notes == {"selfee.text_sha256": "ab"}


def test_plain_sums_of_later_versions_are_passed_over(tmp_path: Path) -> None:
    path = write_parts(tmp_path, {"a.in_sum2": [1.0, 4.0], "a.counts": [2.0], "a.in_sum": [1.0, -2.0]})
    assert read_imatrix(path)["a"].tolist() == [0.5, 2.0]


def write_parts(
    folder: Path, tensors: dict[str, list[float]], keys: dict[str, Any] | None = None, type: QuantType = QuantType.F32
) -> Path:
    def data(values: list[float]) -> npt.NDArray[np.uint8]:
        return np.array(values, dtype=np.float16 if type is QuantType.F16 else np.float32).view(np.uint8)

    path = folder / "i.gguf"
    metadata = {"general.type": "imatrix"} | (keys or {})
    write_gguf(path, metadata, [TensorData(name, (len(row),), type, data(row)) for name, row in tensors.items()])
    return path


SOUND = {"a.in_sum2": [1.0, 2.0], "a.counts": [1.0]}


@pytest.mark.parametrize(
    ("tensors", "keys", "message"),
    [
        (SOUND, {"general.type": "model"}, "general.type is 'model'"),
        ({}, {}, "holds no importance matrix"),
        ({"a.in_sum2": [1.0]}, {}, "'a': has sums or counts but not both"),
        ({"a.counts": [1.0]}, {}, "'a': has sums or counts but not both"),
        (SOUND | {"b.weight": [1.0]}, {}, "'b.weight': is no part"),
        ({"a.in_sum2": [1.0, 2.0, 3.0], "a.counts": [1.0, 1.0]}, {}, "3 sums for 2 counts"),
        ({"a.in_sum2": [1.0, np.nan], "a.counts": [1.0]}, {}, "'a': sum 1 is nan"),
        ({"a.in_sum2": [np.inf, 1.0], "a.counts": [1.0]}, {}, "'a': sum 0 is inf"),
        ({"a.in_sum2": [1.0, -1.0], "a.counts": [1.0]}, {}, "'a': sum 1 is -1.0"),
        ({"a.in_sum2": [1.0], "a.counts": [-1.0]}, {}, "'a': count 0 is -1.0"),
        ({"a.in_sum2": [1.0], "a.counts": [1e-39]}, {}, "'a': count 0 is "),
        (SOUND, {"imatrix.chunk_count": "x"}, "imatrix.chunk_count is 'x'"),
        (SOUND, {"imatrix.chunk_size": -1}, "imatrix.chunk_size is -1"),
        (SOUND, {"imatrix.datasets": "x"}, "imatrix.datasets is a str"),
    ],
)
def test_a_wrong_gguf_file_is_refused_by_name(
    tmp_path: Path, tensors: dict[str, list[float]], keys: dict[str, Any], message: str
) -> None:
    path = write_parts(tmp_path, tensors, keys)
    with pytest.raises(BadFileError) as caught:
        read_imatrix(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_sums_in_another_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="stored as F16; expected F32"):
        read_imatrix(write_parts(tmp_path, SOUND, type=QuantType.F16))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (dat([], count=0), "0 entries"),
        (dat([(b"a", 1, [1.0])], count=-1), "-1 entries"),
        (dat([(b"a", 1, [1.0])], count=1 << 30), "1073741824 entries"),
        (dat([(b"", 1, [1.0, 1.0])]), "the name of entry 0 is empty"),
        (dat([(b"\xff", 1, [1.0])]), "not UTF-8"),
        (dat([(b"a", 0, [1.0])]), "0 calls and 1 columns"),
        (dat([(b"a", 1, []), (b"b", 1, [1.0, 1.0, 1.0])]), "1 calls and 0 columns"),
        (dat([(b"a", 1, [1.0]), (b"a", 1, [1.0])]), "'a' stands there twice"),
        (dat([(b"a", 1, [float("nan")])]), "sum 0 is nan"),
        (dat([(b"a", 1, [-1.0])]), "sum 0 is -"),
        (dat([(b"a", 1, [3e38])]), "sum 0 is inf"),
        (dat([(b"a", 1, [1.0])], struct.pack("<ii", 1, -1)), "the name of the text has -1 bytes"),
        (dat([(b"a", 1, [1.0])], struct.pack("<ii", 1, 9) + b"a"), "the name of the text has 9 bytes"),
        (dat([(b"a", 1, [1.0])], struct.pack("<ii", 1, 1) + b"ab"), "1 bytes follow the last entry"),
        (dat([(b"a", 1, [1.0])], struct.pack("<ii", -5, 0)), "-5 chunks"),
    ],
)
def test_a_wrong_file_of_the_older_form_is_refused_by_byte(tmp_path: Path, body: bytes, message: str) -> None:
    path = tmp_path / "i.dat"
    path.write_bytes(body)
    with pytest.raises(BadFileError) as caught:
        read_imatrix(path)
    assert message in str(caught.value)


@given(st.data())
def test_no_cut_of_a_file_is_read_as_a_whole_one(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("cut")
    form = data.draw(st.sampled_from(FORMS))
    write_imatrix(folder / "i", importance_of({"a": [1.0, 2.0], "b": [3.0]}), form)
    whole = (folder / "i").read_bytes()
    # Padding at the end of a GGUF file may be missing. The older form may end after its entries, or after the number of
    # chunks: that is how its first writers ended it.
    harmless = range(len(whole) - 28, len(whole)) if form == "gguf" else (len(whole) - 13, len(whole) - 17)
    cut = data.draw(st.integers(1, len(whole) - 1).filter(lambda end: end not in harmless))
    (folder / "cut").write_bytes(whole[:cut])
    with pytest.raises(BadFileError):
        read_imatrix(folder / "cut")


@given(st.data())
def test_whatever_bytes_are_changed_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flip") / "i"
    write_imatrix(path, importance_of({"a": [1.0, 2.0], "b": [3.0]}), data.draw(st.sampled_from(FORMS)))
    content = bytearray(path.read_bytes())
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)):
        content[at] = value
    path.write_bytes(content)
    with suppress(BadFileError):
        found = read_imatrix(path)
        assert all(np.isfinite(found[name]).all() and (found[name] >= 0).all() for name in found)


def test_an_importance_matrix_of_another_model_is_told_apart(tmp_path: Path) -> None:
    with open_checkpoint(make_tiny(tmp_path / "m.gguf")) as model:
        importance_of({"blk.0.attn_q.weight": [1.0] * 64}).check(model)
        with pytest.raises(BadFileError, match=r"32 columns.*has 64"):
            importance_of({"blk.0.attn_q.weight": [1.0] * 32}).check(model)
        with pytest.raises(BadFileError, match="none of its tensors"):
            importance_of({"other": [1.0]}).check(model)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_to_write_is_an_error_and_leaves_no_file(tmp_path: Path, form: Form) -> None:
    with pytest.raises(UsageError, match="without a tensor"):
        write_imatrix(tmp_path / "i", importance_of({}), form)
    assert list(tmp_path.iterdir()) == []


def test_texts_without_a_name_are_possible(tmp_path: Path) -> None:
    nameless = Importance(importance_of({"a": [1.0]}).sums, chunks=3, chunk_size=CHUNK)
    for form in FORMS:
        write_imatrix(tmp_path / form, nameless, form)
        assert read_imatrix(tmp_path / form)["a"].size == 1
