"""This machine's disk: is there room, what went wrong, rename for good, one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selfee.errors import ResourceError

_SPARE = 64 << 20  # bytes of disk that stay free
_POLL = 0.1  # seconds between two looks at a lock; short, so that Ctrl-C is answered at once


def check_space(folder: Path, needed: int) -> None:
    """Raise ResourceError unless ``folder``'s disk has ``needed`` bytes to spare."""
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise ResourceError(
            f"{folder}: {human_size(needed)} more are needed and {human_size(free)} are free; expected "
            f"{human_size(needed + _SPARE)}; free some space, or set SELFEE_MODELS to a folder on another disk"
        )


def disk_error(error: OSError, path: Path, size: int | None) -> ResourceError:
    """What went wrong on this machine's disk, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        needs = f"; the file has {human_size(size)}" if size else ""
        return ResourceError(
            f"{path.parent}: the disk is full{needs}; what has arrived is kept; free some space and run it again, "
            "or set SELFEE_MODELS to a folder on another disk"
        )
    return ResourceError(
        f"{path.parent}: cannot be written ({error.strerror or error}); expected a folder of yours; "
        "set SELFEE_MODELS to another folder"
    )


def human_size(count: int) -> str:
    """Bytes as a person writes them: 98.4 MB."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def put_in_place(part: Path, target: Path) -> None:
    """Rename ``part`` (synced already) over ``target`` and make the rename last."""
    os.replace(part, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def file_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold ``path`` against other processes and threads; calls ``on_wait`` once if another holds it.

    The kernel releases it when a process dies, however it dies.
    """
    has_waited = False
    while (descriptor := _try_lock(path)) is None:
        if not has_waited:
            on_wait()
        has_waited = True
        time.sleep(_POLL)
    try:
        yield
    finally:
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    """The open, locked file; None if another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_still(descriptor, path):
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether ``path`` is still the file that was opened: who held the lock may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
