"""Event files for TensorBoard: read by TensorBoard where it is installed, and by hand."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_hf import make_tiny_hf
from tests.train.chains import some_chains, write_chains

from selfee.train.config import preset
from selfee.train.events import EventFile, crc32c


def test_the_check_sum_is_that_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E


def records(path: Path) -> list[bytes]:
    """The messages of an event file; their frames are checked."""
    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        for part, at in ((data[:8], 8), (data[12 : 12 + size], 12 + size)):
            crc = crc32c(part)
            masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack("<I", data[at : at + 4]) == (masked,)
        found.append(data[12 : 12 + size])
        data = data[16 + size :]
    return found


def test_a_file_begins_with_its_version_and_holds_each_number(tmp_path: Path) -> None:
    events = EventFile(tmp_path, 1000.0)
    events.scalars({"loss": 0.5}, 300, 1001.0)
    events.close()
    (path,) = tmp_path.iterdir()
    assert path.name == "events.out.tfevents.1000.selfee"
    first, second = records(path)
    assert first == b"\x09" + struct.pack("<d", 1000.0) + b"\x1a\x0dbrain.Event:2"
    value = b"\x0a\x04loss\x15" + struct.pack("<f", 0.5)
    assert second == b"\x09" + struct.pack("<d", 1001.0) + b"\x10\xac\x02\x2a\x0d\x0a\x0b" + value


def test_a_run_that_goes_on_shows_each_step_once_also_in_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed; pip install 'selfee[train]'")
    from selfee.train.run import plan, train

    make_tiny_hf(tmp_path / "model")
    data = write_chains(tmp_path / "data.jsonl", some_chains(4))
    config = preset("tiny", max_steps=5, global_batch=2, batch_size=2, save_every=2, tensorboard=True)

    def stop(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(plan(tmp_path / "model", data, tmp_path / "out", config), stop)
    train(plan(tmp_path / "model", data, tmp_path / "out", replace(config, save_minutes=60)))
    (path,) = (tmp_path / "out" / "tensorboard").iterdir()
    assert len(records(path)) == 6
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard, the oracle, is not installed"
    )
    accumulator = reader.EventAccumulator(str(path))
    accumulator.Reload()
    assert {"train/loss", "train/mfu", "train/loss of verdict"} <= set(accumulator.Tags()["scalars"])
    assert [event.step for event in accumulator.Scalars("train/loss")] == [1, 2, 3, 4, 5]
