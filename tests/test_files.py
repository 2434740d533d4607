"""Proves src/selfee/files.py."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from selfee.files import replace_text, replacing

WRITER = """
import sys, time
from selfee.files import replacing
with replacing(sys.argv[1]) as file:
    file.write("half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def writer(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a[1].json"
    replace_text(path, "old")
    with writer(path) as process:
        process.send_signal(signal.SIGKILL)
    assert len(names(tmp_path)) == 2
    assert path.read_text() == "old"
    replace_text(path, "new")
    assert names(tmp_path) == ["a[1].json"]
    assert path.read_text() == "new"


def test_a_writer_that_lives_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with writer(path) as process:
        replace_text(path, "new")
        assert len(names(tmp_path)) == 2
        process.kill()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in (".a.json.12", ".a.json.notours1", ".b.json.0123abcd", "a.json.0123abcd"):
        (tmp_path / name).touch()
    before = names(tmp_path)
    replace_text(tmp_path / "a.json", "new")
    assert names(tmp_path) == sorted([*before, "a.json"])


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    replace_text(path, "old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as file:
        file.write("new \ud800")
    assert names(tmp_path) == ["a.json"]
    assert path.read_text() == "old"


def test_writers_at_once_all_succeed_and_leave_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    errors: list[Exception] = []

    def write(number: int) -> None:
        try:
            for _ in range(50):
                replace_text(path, f"{number}\n" * 100)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert names(tmp_path) == ["a.json"]
    assert len(set(path.read_text().split())) == 1
