"""safetensors and PyTorch files built byte by byte, sound or damaged, and the one way in which a damaged one fails."""

from __future__ import annotations

import json
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from selfee.errors import BadFileError
from selfee.weights.huggingface.shards import open_tensors
from selfee.weights.huggingface.stored import DType

Array = npt.NDArray[Any]
Shards = Mapping[str, Mapping[str, tuple[DType, Array]]]
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def refused(path: Path, message: str, *, error: type[Exception] = BadFileError) -> str:
    """Opening fails with one clear line that names the file, at once and with little memory. Returns the line."""
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(error, match=message) as caught, open_tensors(path):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    line = str(caught.value)
    size = sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
    assert line.startswith(str(path))
    assert line.isprintable(), "control characters of the file must not reach a terminal"
    assert len(line) < 900
    # A pickle's emptiest tuple takes 64 bytes for one; the number of instructions is bounded beside.
    assert peak < 2**20 + 100 * size
    assert time.perf_counter() - started < 5
    return line


def safetensors(header: object, data: bytes = bytes(8), *, length: int | None = None) -> bytes:
    """A file with any header (a value, or its raw bytes); ``length`` lies about its size."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def write_folder(
    folder: Path,
    shards: Mapping[str, Mapping[str, tuple[DType, np.ndarray]]],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A model folder: file -> tensor -> (type, array whose bits are taken). Several files get an index."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in shards.items():
        header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
        data = b""
        for key, (dtype, array) in tensors.items():
            raw = np.ascontiguousarray(array).tobytes()
            header[key] = {
                "dtype": dtype.value,
                "shape": list(array.shape),
                "data_offsets": [len(data), len(data) + len(raw)],
            }
            data += raw
        (folder / name).write_bytes(safetensors(header, data))
    if len(shards) > 1:
        listed = {key: name for name, tensors in shards.items() for key in tensors}
        index = {"metadata": {"total_size": 0}, "weight_map": listed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


# Pickle, instruction by instruction.

PROTO = b"\x80\x02"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if 0 <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return pickle.dumps(value, 2)[2:-1]


def numbers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def storage(kind: str, key: str, count: int) -> bytes:
    """The reference to a storage."""
    return b"(" + text("storage") + named("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(
    shape: Sequence[int],
    strides: Sequence[int],
    *,
    kind: str = "FloatStorage",
    key: str = "0",
    count: int | None = None,
    offset: int = 0,
) -> bytes:
    """A call of torch._utils._rebuild_tensor_v2."""
    size = int(np.prod(shape)) if count is None else count
    arguments = storage(kind, key, size) + number(offset) + numbers(shape) + numbers(strides)
    hooks = named("collections", "OrderedDict") + b")R"
    return named("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"\x89" + hooks + b"tR"


def state_dict(tensors: Mapping[str, bytes]) -> bytes:
    """The pickle of a dictionary; values are instructions that leave one value."""
    return PROTO + b"}(" + b"".join(text(name) + value for name, value in tensors.items()) + b"u."


def program(instructions: bytes) -> bytes:
    """A state dict whose only value is made by these instructions."""
    return state_dict({"w": instructions})


def write_pth(
    path: Path, data: bytes, storages: Mapping[str, bytes] | None = None, *, prefix: str = "archive", **more: bytes
) -> Path:
    """A PyTorch file; ``more`` are further members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{prefix}/data.pkl", data)
        for name, content in more.items():
            archive.writestr(f"{prefix}/{name}", content)
        for key, content in (storages or {"0": bytes(8)}).items():
            archive.writestr(f"{prefix}/data/{key}", content)
    return path


def write_state(path: Path, tensors: Mapping[str, Array]) -> Path:
    """A sound PyTorch file of float32 and float16 arrays."""
    kinds = {"float32": "FloatStorage", "float16": "HalfStorage"}
    values, storages = {}, {}
    for index, (name, array) in enumerate(tensors.items()):
        strides = [int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim)]
        values[name] = tensor(array.shape, strides, kind=kinds[array.dtype.name], key=str(index))
        storages[str(index)] = array.tobytes()
    return write_pth(path, state_dict(values), storages)
