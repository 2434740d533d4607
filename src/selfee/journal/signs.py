"""Who of several processes still lives: a locked file each, which even a kill unlocks."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from selfee.errors import ResourceError


class Sign:
    """A locked file beside the journal that shows to other processes that this one lives: a kill unlocks it."""

    def __init__(self, journal: Path, owner: str) -> None:
        self._path = _sign_path(journal, owner)
        try:
            self._file = self._lock()
        except OSError as error:
            raise ResourceError(
                f"{self._path}: cannot be made ({error.strerror}); check the folder's rights"
            ) from error

    def _lock(self) -> int:
        while True:
            file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            # Between the two, somebody who swept up may have taken it for that of a dead process.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(self._path)):
                    return file
            os.close(file)

    def remove(self) -> None:
        """Say that this process is done."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1


def _sign_path(journal: Path, owner: str) -> Path:
    return journal.with_name(f"{journal.name}-owner-{owner}")


def sweep(journal: Path) -> None:
    """Remove the signs of processes that were killed."""
    start = _sign_path(journal, "").name
    for path in journal.parent.iterdir():
        if path.name.startswith(start):
            is_alive(journal, path.name.removeprefix(start))


def is_alive(journal: Path, owner: str) -> bool:
    """Whether the process that wrote this owner's name still runs."""
    path = _sign_path(journal, owner)
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(file)
