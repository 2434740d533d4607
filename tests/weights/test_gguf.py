"""GGUF written here reads back here and in the gguf package, value by value."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf as package
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import make_tiny

from selfee.errors import ResourceError, UsageError
from selfee.weights.gguf_writer import TensorData, write_gguf
from selfee.weights.mapped import StringArray
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType

keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda key: key != "general.alignment")
float32 = st.floats(allow_nan=False, width=32)
values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    float32,
    st.text(st.characters(codec="utf-8")),
    st.lists(st.text(st.characters(codec="utf-8")), min_size=1),
    st.lists(float32).map(lambda items: np.array(items, dtype=np.float32)),
    st.lists(st.integers(-(2**63), 2**63 - 1)).map(lambda items: np.array(items, dtype=np.int64)),
    st.lists(st.booleans()).map(lambda items: np.array(items, dtype=np.bool_)),
)


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, StringArray) else value


@given(metadata=st.dictionaries(keys, values, max_size=6), version=st.sampled_from([1, 2, 3]))
def test_metadata_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any], version: int
) -> None:
    metadata = {key: value for key, value in metadata.items() if not key.startswith("tokenizer.")}
    path = tmp_path_factory.getbasetemp() / "law.gguf"
    write_gguf(path, metadata, [], version=version)
    with open_checkpoint(path) as checkpoint:
        assert {key: plain(value) for key, value in checkpoint.metadata.items()} == {
            key: plain(value) for key, value in metadata.items()
        }


@given(
    shapes=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), max_size=5),
    alignment=st.sampled_from([1, 8, 32, 64, 4096]),
)
def test_tensors_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], alignment: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "tensors.gguf"
    rng = np.random.default_rng(0)
    tensors = [
        TensorData(
            f"t{index}", tuple(shape), QuantType.F16, rng.integers(0, 256, 2 * int(np.prod(shape)), dtype=np.uint8)
        )
        for index, shape in enumerate(shapes)
    ]
    write_gguf(path, {"general.alignment": alignment}, tensors)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == [tensor.name for tensor in tensors]
        for tensor in tensors:
            assert checkpoint.tensors[tensor.name].shape == tensor.shape
            assert checkpoint.tensors[tensor.name].offset % alignment == 0
            assert checkpoint.read(tensor.name).tobytes() == tensor.blocks.tobytes()


@pytest.mark.parametrize("type", [QuantType.F32, QuantType.Q5_1, QuantType.Q6_K], ids=lambda type: type.name)
def test_the_gguf_package_reads_the_same_file_as_we_do(tmp_path: Path, type: QuantType) -> None:
    path = make_tiny(tmp_path / "m.gguf", type=type, architecture="qwen2")
    theirs = package.GGUFReader(path)
    with open_checkpoint(path) as checkpoint:
        assert len(theirs.tensors) == len(checkpoint.tensors)
        for tensor in theirs.tensors:
            ours = checkpoint.tensors[tensor.name]
            assert ours.shape == tuple(int(size) for size in reversed(tensor.shape))
            assert (int(ours.type), ours.offset) == (int(tensor.tensor_type), tensor.data_offset)
            assert checkpoint.read(tensor.name).tobytes() == tensor.data.tobytes()
        for key, value in checkpoint.metadata.items():
            assert plain(value) == theirs.fields[key].contents()


def test_we_read_what_the_gguf_package_writes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = package.GGUFWriter(path, "llama")
    writer.add_uint64("a.big", 2**63)
    writer.add_int8("a.small", -5)
    writer.add_array("a.words", ["eins", "zwei"])
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_tensor("t", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata["a.big"] == 2**63
        assert checkpoint.metadata["a.small"] == -5
        assert list(checkpoint.metadata["a.words"]) == ["eins", "zwei"]
        assert checkpoint.metadata["a.numbers"].tolist() == [1, -2, 3]
        assert checkpoint.read("t").view("<f4").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_numbers_are_stored_in_the_type_that_readers_expect(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(
        path, {"u32": 7, "i32": -7, "u64": 2**40, "i64": -(2**40), "f32": 0.1, "bool": True, "u8": np.uint8(3)}, []
    )
    types = {name: field.types[0].name for name, field in package.GGUFReader(path).fields.items()}
    expected = {"u32": "UINT32", "i32": "INT32", "u64": "UINT64", "i64": "INT64", "f32": "FLOAT32", "bool": "BOOL"}
    assert {name: types[name] for name in expected} == expected
    assert types["u8"] == "UINT8"
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata["f32"] == struct.unpack("<f", struct.pack("<f", 0.1))[0]


@pytest.mark.parametrize("value", [2**64, None, {"a": 1}, [], [1, 2], np.zeros(2, dtype=np.complex64)])
def test_what_has_no_place_in_a_file_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(UsageError, match=r"has no place in a GGUF file|more than 64 bits"):
        write_gguf(tmp_path / "m.gguf", {"key": value}, [])
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, {"old": 1}, [])
    before = path.read_bytes()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_gguf(path, {"new": 1}, [])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match=r"the disk is full; free some space .* nothing was written"):
        write_gguf(tmp_path / "m.gguf", {}, [])
    assert list(tmp_path.iterdir()) == []


def test_text_arrays_behave_as_sequences() -> None:
    words = StringArray([b"eins", b"zwei", b"\xff"])
    assert list(words) == ["eins", "zwei", "\ufffd"]
    assert words[1] == "zwei"
    assert list(words[1:]) == ["zwei", "\ufffd"]
    assert words == StringArray([b"eins", b"zwei", b"\xff"])
    assert len(words) == 3
