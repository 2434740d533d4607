"""Writing a folder of files so that a crash or a full disk leaves the old folder or none, never half of one."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selfee.errors import ResourceError, UsageError
from selfee.weights.disk import human_size


@dataclass(frozen=True)
class FolderKind:
    """What a folder holds, and the endings of file names of which one must be there for it to be such a folder."""

    name: str
    files: str
    endings: tuple[str, ...]


MODEL = FolderKind("a model", "model files", (".safetensors", ".bin", ".pth", ".gguf"))
_SPARE = 16 << 20  # bytes of disk that stay free


def require_new_folder(folder: Path, *, force: bool, kind: FolderKind = MODEL) -> None:
    """Raise UsageError unless ``folder`` may be made: absent, empty, or of this kind and ``force`` is set."""
    if not folder.name:
        raise UsageError(f"{folder}: expected the name of a folder to make; choose one")
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise UsageError(f"{folder}: is there and no folder; expected the name of a folder to make; choose another")
    entries = list(folder.iterdir())
    if not entries:
        return
    if not force:
        raise UsageError(f"{folder}: is there and not empty; expected a new folder; choose another or add --force")
    # --force must never take somebody's home with it.
    if any(entry.is_dir() for entry in entries) or not any(entry.name.endswith(kind.endings) for entry in entries):
        raise UsageError(
            f"{folder}: holds something else than {kind.name}; --force replaces only folders of {kind.files}; "
            "choose another"
        )


def part_of(folder: Path) -> Path:
    """The hidden folder that takes the place of ``folder`` when it is whole: for processes that fill it together."""
    return folder.with_name(f".{folder.name}.part")


@contextmanager
def replacing_folder(folder: Path, *, needed: int = 0, force: bool = False, kind: FolderKind = MODEL) -> Iterator[Path]:
    """A hidden folder beside ``folder`` that takes its place when the block ends well, and vanishes otherwise.

    What a killed process left there is removed first. ``needed`` is the number of bytes that will be written, 0 =
    unknown: the disk must have them free. Raises UsageError if ``folder`` may not be replaced, ResourceError if the
    disk is full or another process makes the same folder.
    """
    require_new_folder(folder, force=force, kind=kind)
    part = part_of(folder)
    old = folder.with_name(f".{folder.name}.old")
    try:
        lock = _open_alone(part, folder)
        try:
            _require_space(folder, needed)
            yield part
            _sync(part)
            _put_in_place(part, folder, old, force, kind)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        finally:
            os.close(lock)
    except OSError as error:
        raise failed(folder, error) from error


def _open_alone(part: Path, folder: Path) -> int:
    """The empty hidden folder, locked against other writers; the kernel lets go when a process dies."""
    while True:
        part.mkdir(exist_ok=True)
        lock = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(part)):
                for entry in part.iterdir():  # left by a process that was killed
                    entry.unlink()
                return lock
        except BlockingIOError:
            os.close(lock)
            raise ResourceError(
                f"{folder}: another process is writing it; expected to be alone; wait for it or choose another name"
            ) from None
        except FileNotFoundError:
            pass  # the one that held it has just put it in place or removed it
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if needed and needed + _SPARE > free:
        raise ResourceError(
            f"{folder.parent}: the disk has {human_size(free)} free; expected room for {human_size(needed)}; free some "
            "space or choose another folder; nothing was written"
        )


def _sync(part: Path) -> None:
    for path in (*part.iterdir(), part):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put_in_place(part: Path, folder: Path, old: Path, force: bool, kind: FolderKind) -> None:
    require_new_folder(folder, force=force, kind=kind)  # somebody may have made it meanwhile
    if folder.is_dir() and any(folder.iterdir()):
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    os.rename(part, folder)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    shutil.rmtree(old, ignore_errors=True)


def failed(path: Path, error: OSError) -> ResourceError:
    """What went wrong on this machine's disk, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(f"{path}: the disk is full; free some space or choose another folder; nothing was written")
    return ResourceError(
        f"{path}: cannot be written ({error.strerror or error}); expected a folder of yours with room; nothing was "
        "changed there"
    )
