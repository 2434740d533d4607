"""Writing model files so that a crash or a full disk leaves the old file or none, never half of one.

What is written is a list of tensors whose bytes are asked for one after another, part by part: a model that does not
fit into memory can be written.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt

from selfee.errors import ResourceError, SelfeeError, UsageError
from selfee.weights.disk import human_size, put_in_place
from selfee.weights.quants import QuantType

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TensorData:
    """A tensor to be written: ``blocks`` are its raw bytes (uint8, any shape), ``shape`` is rows first."""

    name: str
    shape: tuple[int, ...]
    type: QuantType
    blocks: Bytes

    @property
    def nbytes(self) -> int:
        """Bytes in the file, without padding."""
        return self.blocks.nbytes

    def parts(self) -> Iterator[Bytes]:
        """The bytes, in order."""
        yield self.blocks


@dataclass(frozen=True)
class TensorStream:
    """A tensor to be written whose bytes are made when its turn comes: ``make()`` gives them in order, in parts."""

    name: str
    shape: tuple[int, ...]
    type: QuantType
    make: Callable[[], Iterable[Bytes]]

    @property
    def nbytes(self) -> int:
        """Bytes in the file, without padding: follows from shape and type."""
        return prod(self.shape) // self.type.block_values * self.type.block_bytes

    def parts(self) -> Iterator[Bytes]:
        """The bytes, in order; made anew at each call."""
        yield from self.make()


class Sized(Protocol):
    """What the layout of a file needs to know of a tensor."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def type(self) -> QuantType: ...

    @property
    def nbytes(self) -> int: ...


TensorToWrite = TensorData | TensorStream
OnBytes = Callable[[int], None]
"""Told how many bytes were written, after each part."""


def write_parts(file: IO[bytes], tensor: TensorToWrite, on_bytes: OnBytes | None = None) -> None:
    """Write the bytes of a tensor. Raises SelfeeError if they are not as many as its shape needs."""
    written = 0
    for part in tensor.parts():
        data = np.ascontiguousarray(part).reshape(-1)
        file.write(data.data)
        written += data.nbytes
        if on_bytes is not None:
            on_bytes(data.nbytes)
    if written != tensor.nbytes:
        raise SelfeeError(
            f"tensor '{tensor.name}': {written} bytes were made; its shape and type need {tensor.nbytes}; "
            "please report this"
        )


@contextmanager
def replacing(path: Path, *, needed: int = 0, is_private: bool = False) -> Iterator[IO[bytes]]:
    """A file beside ``path`` that takes its place when the block ends well, and vanishes otherwise.

    What a killed process left beside ``path`` is removed. ``needed`` is the size the file will have, 0 = unknown: its
    disk space is asked for first. ``is_private``: only this user may read the file. Raises ResourceError if the disk is
    full, the folder cannot be written, or another process is writing the same file; UsageError if ``path`` is there
    and no file.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        if _is_no_file(path):
            raise UsageError(f"{path}: is a folder or a device; expected a file to write; choose another name")
        file = _open_alone(beside, path, is_private)
    except OSError as error:
        raise _failed(path, error) from error
    try:
        with file:
            if needed:
                _reserve(file, path, needed)
            yield file
            file.truncate(file.tell())
            file.flush()
            os.fsync(file.fileno())
            put_in_place(beside, path)  # while the lock is held: nobody else may reuse the name before
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise _failed(path, error) from error
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _is_no_file(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _open_alone(beside: Path, path: Path, is_private: bool) -> IO[bytes]:
    """The empty part file, held against other writers until it is closed; the kernel lets go when a process dies."""
    import fcntl

    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(beside, flags, 0o600 if is_private else 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(beside)):
                if is_private:
                    _make_private(descriptor, path)
                os.ftruncate(descriptor, 0)
                return os.fdopen(descriptor, "r+b")
        except BlockingIOError:
            os.close(descriptor)
            raise ResourceError(
                f"{path}: another process is writing it; expected to be alone; wait for it or choose another name"
            ) from None
        except FileNotFoundError:
            pass  # the one that held it has just put it in place or removed it
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _make_private(descriptor: int, path: Path) -> None:
    """Whoever put the part file there, and may have it open or under another name, must be this user."""
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_nlink != 1:
        raise ResourceError(
            f"{path}: what would be written beside it belongs to somebody else; expected a folder of yours; choose "
            "another"
        )
    os.fchmod(descriptor, 0o600)


def _reserve(file: IO[bytes], path: Path, needed: int) -> None:
    """Ask for the disk space now: half a day's work should not end in a full disk."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), 0, needed)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceError(
                f"{path.parent}: the disk has no room for {human_size(needed)}; free some space or choose another "
                "folder; nothing was written"
            ) from error
        # Some file systems cannot reserve; then the disk may still become full on the way.
        with suppress(OSError):
            os.ftruncate(file.fileno(), 0)


def _failed(path: Path, error: OSError) -> ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(f"{path}: the disk is full; free some space or choose another folder; nothing was written")
    return ResourceError(
        f"{path}: cannot be written ({error.strerror or error}); expected a folder of yours with room; nothing was "
        "changed there"
    )
