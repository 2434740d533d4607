"""Writing: the old file or the new one, never half of one, whatever happens on the way."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from selfee.errors import ResourceError, SelfeeError, UsageError
from selfee.weights.gguf_writer import gguf_size, write_gguf
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType
from selfee.weights.writing import Bytes, TensorData, TensorStream, replacing

SLOW_WRITER = """
import sys, time
import numpy as np
from selfee.weights.gguf_writer import write_gguf
from selfee.weights.quants import QuantType
from selfee.weights.writing import TensorStream

def parts():
    for number in range(40):
        print(number, flush=True)
        yield np.full(4096, number, dtype=np.uint8)
        time.sleep(0.02)

write_gguf(sys.argv[1], {"new": True}, [TensorStream("x", (40 * 4096,), QuantType.I8, parts)])
"""


def stream(*parts: Bytes) -> TensorStream:
    return TensorStream("x", (sum(part.size for part in parts),), QuantType.I8, lambda: list(parts))


@pytest.mark.parametrize("moment", [0, 7, 25, 39])
def test_a_killed_writer_leaves_the_old_file_and_the_next_one_finishes(tmp_path: Path, moment: int) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, {"old": True}, [])
    before = path.read_bytes()
    process = subprocess.Popen([sys.executable, "-c", SLOW_WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= moment:
            break
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    assert path.read_bytes() == before
    write_gguf(path, {"new": True}, [stream(np.zeros(10, dtype=np.uint8))])
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata["new"] is True
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with replacing(path) as file:
        file.write(b"first")
        with pytest.raises(ResourceError, match="another process is writing it"):
            write_gguf(path, {}, [])
    assert path.read_bytes() == b"first"


def test_what_an_earlier_run_left_is_used_again_and_not_kept(tmp_path: Path) -> None:
    (tmp_path / ".m.gguf.part").write_bytes(b"x" * 100_000)
    write_gguf(tmp_path / "m.gguf", {}, [stream(np.arange(32, dtype=np.uint8))])
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.gguf"]
    assert (tmp_path / "m.gguf").stat().st_size < 1000


def test_a_stream_of_the_wrong_length_is_noticed_and_leaves_nothing(tmp_path: Path) -> None:
    short = TensorStream("x", (64,), QuantType.I8, lambda: [np.zeros(63, dtype=np.uint8)])
    with pytest.raises(SelfeeError, match="'x': 63 bytes were made; its shape and type need 64"):
        write_gguf(tmp_path / "m.gguf", {}, [short])
    assert list(tmp_path.iterdir()) == []


def test_a_stream_is_asked_for_when_its_turn_comes_and_parts_are_reported(tmp_path: Path) -> None:
    asked: list[str] = []
    heard: list[int] = []

    def make(name: str) -> Iterator[Bytes]:
        asked.append(f"{name} after {sum(heard)}")
        yield np.zeros(3, dtype=np.uint8)
        yield np.zeros(5, dtype=np.uint8)

    tensors = [TensorStream(name, (8,), QuantType.I8, lambda name=name: make(name)) for name in "ab"]  # type: ignore[misc]
    write_gguf(tmp_path / "m.gguf", {}, tensors, on_bytes=heard.append)
    assert asked == ["a after 0", "b after 8"]
    assert heard == [3, 5, 3, 5]
    assert (tmp_path / "m.gguf").stat().st_size == gguf_size({}, tensors)


def test_streams_and_arrays_give_the_same_file(tmp_path: Path) -> None:
    values = np.arange(96, dtype=np.uint8)
    write_gguf(tmp_path / "a", {"k": 1}, [TensorData("x", (96,), QuantType.I8, values)])
    write_gguf(tmp_path / "b", {"k": 1}, [stream(values[:40], values[40:])])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="disk space cannot be reserved here")
def test_no_room_on_the_disk_is_said_before_any_work(tmp_path: Path) -> None:
    def never() -> Iterator[Bytes]:
        pytest.fail("work was begun")

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, old[1]))
    try:
        with pytest.raises(ResourceError, match=r"no room for 4\.2 MB"):
            write_gguf(tmp_path / "m.gguf", {}, [TensorStream("x", (1 << 22,), QuantType.I8, never)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_or_a_device_is_not_written_over(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(UsageError, match="folder or a device"):
            write_gguf(path, {}, [])


def test_a_folder_that_is_not_there_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"none/m\.gguf: cannot be written \(No such file"):
        write_gguf(tmp_path / "none" / "m.gguf", {}, [])
