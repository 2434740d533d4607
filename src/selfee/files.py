"""Replace a file whole or not at all, and leave nothing behind, also after a kill."""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def replace_text(path: str | Path, text: str) -> None:
    """Write ``text`` (UTF-8) over ``path`` whole or not at all."""
    with replacing(path) as file:
        file.write(text)


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[str]]:
    """A text file (UTF-8) that gets the name ``path``, synced, when the block ends, and is forgotten if it fails.

    Until then it lies beside ``path`` under a name of its own, locked; what a killed writer left there is swept first:
    a part that nobody holds a lock on has no writer any more.
    """
    path = Path(path)
    _sweep(path)
    file, part = _open_part(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(part, path)  # before the lock goes with the file: a sweeper would take the part for a leftover
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _open_part(path: Path) -> tuple[IO[str], Path]:
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # not mkstemp: others may read what we write
        file = part.open("x", encoding="utf-8")
        with suppress(OSError):  # a file system without locks: then nothing is swept there either
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(file, part):
            return file, part
        file.close()  # swept between its creation and its lock


def _is_at(file: IO[str], part: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), part.stat())
    except FileNotFoundError:
        return False


def _sweep(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}"):
        with suppress(OSError), left.open("rb") as file:  # OSError: its writer lives, or has just finished
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
