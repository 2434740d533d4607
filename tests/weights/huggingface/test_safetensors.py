"""safetensors files: what we write is what the format says, and damaged ones end in one clear line."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.weights.huggingface.craft_tensors import F32, refused, safetensors

from selfee.errors import BadFileError, ResourceError, SelfeeError, UnsupportedFileError
from selfee.weights.huggingface.safetensors import TensorSource, lay_out, open_safetensors, write_safetensors
from selfee.weights.huggingface.stored import DType

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def source(name: str, dtype: DType, array: npt.NDArray[Any]) -> TensorSource:
    return TensorSource(name, array.shape, dtype, lambda: [array.reshape(-1).view(np.uint8)])


@given(
    st.dictionaries(NAMES, st.tuples(st.sampled_from(DType), SHAPES), max_size=5),
    st.dictionaries(NAMES, st.text('ab"\\é{')),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, tuple[DType, tuple[int, ...]]], pairs: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("law") / "m.safetensors"
    rng = np.random.default_rng(0)
    data = {name: rng.integers(0, 256, (*shape, dtype.nbytes), np.uint8) for name, (dtype, shape) in tensors.items()}
    sources = [
        TensorSource(name, shape, dtype, lambda name=name: np.array_split(data[name].reshape(-1), 3))  # type: ignore[misc]
        for name, (dtype, shape) in tensors.items()
    ]
    write_safetensors(path, sources, pairs)
    with open_safetensors(path) as opened:
        assert opened.metadata == pairs
        assert set(opened.tensors) == set(tensors)
        for name, (dtype, shape) in tensors.items():
            found = opened.tensors[name]
            assert (found.dtype, found.shape, found.offset % dtype.nbytes) == (dtype, shape, 0)
            assert opened.read(name).tobytes() == data[name].tobytes()
            assert (
                opened.read_rows(name, 0, found.rows // 2).tobytes() == data[name][: found.rows // 2].tobytes()
                or not shape
            )


def test_the_bytes_are_those_of_the_reference_library(tmp_path: Path) -> None:
    # Seen from safetensors 0.8.0: save_file({"a": zeros(2, f16), "b": ones(1, f32)}, metadata={"format": "pt"}).
    path = tmp_path / "m.safetensors"
    half, single = np.zeros(2, "<f2"), np.ones(1, "<f4")
    write_safetensors(path, [source("a", DType.F16, half), source("b", DType.F32, single)], {"format": "pt"})
    header = (
        b'{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}}'
    )
    header += b" " * (-len(header) % 8)
    assert path.read_bytes() == struct.pack("<Q", len(header)) + header + b"\0\0\x80?" + bytes(4)


def test_the_reference_library_agrees_in_both_directions(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    rng = np.random.default_rng(1)
    arrays = {f"t{index}": rng.normal(size=(index, 3)).astype(kind) for index, kind in enumerate(("f2", "f4", "f8"))}
    library.save_file(arrays, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    kinds = {"float16": DType.F16, "float32": DType.F32, "float64": DType.F64}
    sources = [source(name, kinds[array.dtype.name], array) for name, array in arrays.items()]
    write_safetensors(tmp_path / "ours.safetensors", sources, {"format": "pt"})
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_a_released_tensor_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    array = np.arange(100_000, dtype="<u4")
    write_safetensors(path, [source("w", DType.U32, array), source("z", DType.U8, np.empty(0, np.uint8))], {})
    with open_safetensors(path) as opened:
        for _ in range(2):
            assert opened.read("w").tobytes() == array.tobytes()
            opened.release("w")
            opened.release("z")


def test_too_few_bytes_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(SelfeeError, match="tensor 'w': 4 bytes were made; its shape and type need 8"):
        write_safetensors(tmp_path / "m", [TensorSource("w", (2,), DType.F32, lambda: [np.zeros(4, np.uint8)])], {})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"old")

    def fail() -> list[npt.NDArray[Any]]:
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match="the disk is full"):
        write_safetensors(path, [TensorSource("w", (2,), DType.F32, fail)], {})
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(SelfeeError, match="tensor 'w' comes twice"):
        lay_out([source("w", DType.U8, np.zeros(1, np.uint8))] * 2, {})


def entry(**changes: object) -> bytes:
    return safetensors({"w": F32 | changes})


def two(begin: int, end: int, shape: int, data: int) -> bytes:
    return safetensors({"a": F32, "b": {"dtype": "F32", "shape": [shape], "data_offsets": [begin, end]}}, bytes(data))


GOOD = json.dumps(F32)
CASES: dict[str, tuple[bytes, str]] = {
    "header of 2^63 bytes": (safetensors({"w": F32}, length=1 << 63), "the header has 9223372036854775808 bytes"),
    "header of 2^64-1 bytes": (safetensors({"w": F32}, length=2**64 - 1), "expected at most 100000000"),
    "header longer than the file": (
        safetensors({"w": F32}, length=4000),
        "the header has 4000 bytes; expected at most",
    ),
    "header cut short": (safetensors({"w": F32}, b"", length=20), "no JSON|goes on|the end of the header|expected"),
    "file of 9 bytes": (bytes([1, 0, 0, 0, 0, 0, 0, 0, 123]), "has 9 bytes; expected a safetensors header"),
    "data cut short": (safetensors({"w": F32}, bytes(7)), r"data_offsets \[0, 8\]; expected two, rising, at most 7"),
    "data goes on": (safetensors({"w": F32}, bytes(9)), "of which the last 1 belong to no tensor; expected 8"),
    "no tensor but data": (safetensors({}), "of which the last 8 belong to no tensor"),
    "begins with an array": (safetensors([]), r"expected a safetensors file, its ninth byte a brace"),
    "no UTF-8": (safetensors(b'{"\xff": 1}'), "byte 10 of the header is no UTF-8"),
    "no JSON": (safetensors(b"{w}"), "a name in the header: 'w' at character 1; expected a string"),
    "name never ends": (safetensors(b'{"w'), "no JSON string"),
    "lone surrogate in a name": (safetensors(rb'{"\ud800": {}}'), "no JSON string"),
    "control character in a name": (safetensors(b'{"\x1b": {}}'), "no JSON string"),
    "no colon": (safetensors(b'{"w" 1}'), "'1' at character 5; expected ':'"),
    "no comma": (safetensors(f'{{"w":{GOOD} "v":{GOOD}}}'.encode()), "expected ','"),
    "more after the end": (safetensors(f'{{"w":{GOOD}}} {{}}'.encode()), "goes on after its closing brace"),
    "a name twice": (safetensors(f'{{"w":{GOOD},"w":{GOOD}}}'.encode()), "the header names 'w' twice"),
    "a field twice": (
        safetensors(b'{"w":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}'),
        "has the fields dtype, dtype, shape, data_offsets",
    ),
    "no shape": (
        safetensors({"w": {"dtype": "F32", "data_offsets": [0, 8]}}),
        "has the fields dtype, data_offsets; expected",
    ),
    "a field more": (entry(more=1), "has the fields dtype, shape, data_offsets, more"),
    "tensor is a number": (safetensors({"w": 1}), "tensor 'w': '1}'; expected an object"),
    "nested a million deep": (safetensors(b'{"w":' + b"[" * 1_000_000), "expected an object"),
    "nested inside an entry": (safetensors(b'{"w":{"shape":' + b"[" * 3000 + b"]" * 500 + b"}}"), "no JSON object"),
    "entry longer than any": (safetensors(b'{"w":{"shape":[' + b"1," * 3000 + b"1]}}"), "expected an object"),
    "unknown dtype": (entry(dtype="F31"), "dtype 'F31'; expected one of BOOL U8"),
    "dtype is a list": (entry(dtype=["F32"]), "expected one of BOOL"),
    "negative size": (entry(shape=[-2]), r"shape \[-2\]; expected whole numbers from 0 on"),
    "size 2^63": (entry(shape=[1 << 63]), "expected whole numbers from 0 on"),
    "size of ten thousand digits": (safetensors(b'{"w":{"shape":[1' + b"0" * 4500 + b"]}}"), "expected an object"),
    "size is a fraction": (entry(shape=[2.0]), r"shape \[2.0\]; expected whole numbers"),
    "size is true": (entry(shape=[True, 2]), r"shape \[true, 2\]; expected whole numbers"),
    "size is NaN": (entry(shape=[float("nan")]), "expected whole numbers"),
    "sizes whose product wraps": (entry(shape=[1 << 32, 1 << 32]), r"expected at most 8 sizes and 2\^40 numbers"),
    "nine dimensions": (entry(shape=[1] * 9), "expected at most 8 sizes"),
    "offsets reversed": (entry(data_offsets=[8, 0]), r"data_offsets \[8, 0\]; expected two, rising"),
    "three offsets": (entry(data_offsets=[0, 4, 8]), "expected two, rising"),
    "offsets outside": (entry(data_offsets=[8, 16]), "at most 8, the bytes of data in the file"),
    "offset negative": (entry(data_offsets=[-8, 0]), r"data_offsets \[-8, 0\]; expected whole numbers"),
    "too few bytes for the shape": (entry(shape=[3]), r"8 bytes from 0 to 8; expected 12 for F32 \[3\]"),
    "too many bytes for the shape": (entry(shape=[1]), r"8 bytes from 0 to 8; expected 4 for F32 \[1\]"),
    "overlap": (two(4, 12, 2, 12), "tensor 'b': begins at byte 4 of the data and overlaps the one before"),
    "two tensors on the same bytes": (two(0, 8, 2, 8), "overlaps the one before; expected it at 8"),
    "hole": (two(12, 20, 2, 20), "tensor 'b': begins at byte 12 of the data and leaves a hole; expected it at 8"),
    "metadata is a number": (
        safetensors({"__metadata__": 3, "w": F32}),
        "__metadata__: '3' at character 17; expected '{'",
    ),
    "metadata of numbers": (
        safetensors({"__metadata__": {"a": 1}, "w": F32}),
        "__metadata__ 'a': '1' .* expected a string",
    ),
    "metadata key twice": (safetensors(b'{"__metadata__":{"a":"","a":""}}', b""), "__metadata__ has 'a' twice"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "is a git-lfs pointer"),
    "web page": (b"<!DOCTYPE html><html>", "is a web page"),
    "zeros": (bytes(4096), "begins with zeros"),
    "empty": (b"", "is empty"),
    "escape sequence in a name": (safetensors({"\x1b[2J": F32 | {"dtype": "\x1b[31m"}}), r"tensor '\\x1b\[2J'"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_file_is_one_clear_line(name: str, tmp_path: Path) -> None:
    content, message = CASES[name]
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    refused(path, message)


def test_a_header_of_very_many_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    names = b",".join(b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % index for index in range(70_000))
    path.write_bytes(safetensors(b"{" + names + b"}", b""))
    with pytest.raises(BadFileError, match="has more than 65536 names"):
        open_safetensors(path)


def test_numbers_of_less_than_a_byte_are_named_as_unsupported(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(entry(dtype="F4"))
    refused(path, "stored as F4, less than a byte a number", error=UnsupportedFileError)


def test_any_byte_changed_is_an_error_or_another_sound_file(tmp_path: Path) -> None:
    whole = bytearray(two(8, 16, 2, 16))
    path = tmp_path / "m.safetensors"
    for at in range(len(whole)):
        for value in (0, 0x22, 0x39, 0x7B, 0xFF):
            changed = bytearray(whole)
            changed[at] = value
            path.write_bytes(changed)
            with suppress(BadFileError), open_safetensors(path) as opened:
                for name, tensor in opened.tensors.items():
                    assert opened.read(name).nbytes == tensor.nbytes
