"""A file mapped into memory, a cursor that cannot leave it, and the checkpoint both containers fill.

Nothing here trusts the file: every length is compared with the bytes that are really there before it is used.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.checkpoint import TensorInfo, Vocab
from selfee.weights.printable import printable

AGAIN = "the file is cut short or damaged; fetch it again"

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class MappedFile:
    """A regular file, mapped read-only. ``data`` is its bytes, ``size`` their number.

    ``identity`` is (device, inode, size, modification time in ns) of what was mapped, whatever lies there now.
    """

    def __init__(self, path: str | Path) -> None:
        """Map the file. Raises BadFileError where there is no readable, non-empty regular file."""
        self.path = Path(path)
        descriptor = self._open()
        try:
            status = os.fstat(descriptor)
            self._require_regular(status)
            self.size = status.st_size
            self.identity = _identity(status)
            self.data = mmap.mmap(descriptor, self.size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: the file shrank since its size was asked
            raise BadFileError(f"{self.path}: cannot be mapped into memory: {error}; close what uses it") from error
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        try:
            # Without O_NONBLOCK opening a FIFO waits for a writer that may never come.
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise BadFileError(f"{self.path}: there is no such file; check the path") from error
        except PermissionError as error:
            raise BadFileError(f"{self.path}: may not be read; give yourself permission (chmod u+r)") from error
        except OSError as error:
            raise BadFileError(f"{self.path}: cannot be opened: {error.strerror}; check the path") from error
        except ValueError as error:
            raise BadFileError(f"{printable(str(self.path))}: is not a path: {error}") from error

    def _require_regular(self, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            raise BadFileError(f"{self.path}: is a folder; name the .gguf or .bin file inside it")
        if not stat.S_ISREG(status.st_mode):
            raise BadFileError(f"{self.path}: is a pipe, socket or device; a model must be a regular file")
        if status.st_size == 0:
            raise BadFileError(f"{self.path}: is empty; fetch it again")

    def verify_unchanged(self) -> None:
        """Raise BadFileError if the file was replaced in place, cut or rewritten since it was mapped."""
        try:
            identity = _identity(self.path.stat())
        except OSError:
            return  # deleted or out of reach: what is mapped stays valid
        if identity[:2] == self.identity[:2] and identity != self.identity:
            raise BadFileError(f"{self.path}: changed while it was in use; open it again")

    def bad(self, offset: int, found: str) -> BadFileError:
        """The error for something found at a byte of this file."""
        return BadFileError(f"{self.path}: byte {offset}: {found}")

    def array(self, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """Bytes of the mapping as a read-only array that shares its memory."""
        return np.frombuffer(self.data, dtype=np.uint8, count=nbytes, offset=offset)

    def release(self, offset: int, nbytes: int) -> None:
        """Let the system take back the memory of pages that were read; they are read again if they are needed.

        Mapped pages count as a process's memory: a pass over a file would end with all of it.
        """
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (offset + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start:
            with suppress(OSError, ValueError):
                self.data.madvise(mmap.MADV_DONTNEED, start, end - start)

    def close(self) -> None:
        """Unmap. Arrays handed out keep the mapping alive until they are gone too."""
        with suppress(BufferError):  # an array still looks into the mapping; the last one to go unmaps it
            self.data.close()


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class Cursor:
    """Reads little-endian values one after another and never past the end."""

    def __init__(self, file: MappedFile, offset: int = 0) -> None:
        self.file = file
        self.offset = offset

    @property
    def left(self) -> int:
        """Bytes from here to the end of the file."""
        return self.file.size - self.offset

    def need(self, nbytes: int, what: str) -> None:
        """Raise BadFileError unless ``nbytes`` more bytes exist."""
        if nbytes > self.left:
            raise self.file.bad(self.offset, f"{what} needs {nbytes} bytes but {self.left} are left; {AGAIN}")

    def unpack(self, layout: struct.Struct, what: str) -> tuple[Any, ...]:
        """The next values in the given layout."""
        self.need(layout.size, what)
        values = layout.unpack_from(self.file.data, self.offset)
        self.offset += layout.size
        return values

    def u32(self, what: str) -> int:
        """The next unsigned 32-bit integer."""
        value: int = self.unpack(_U32, what)[0]
        return value

    def u64(self, what: str) -> int:
        """The next unsigned 64-bit integer."""
        value: int = self.unpack(_U64, what)[0]
        return value

    def take(self, nbytes: int, what: str) -> bytes:
        """A copy of the next bytes."""
        self.need(nbytes, what)
        value = self.file.data[self.offset : self.offset + nbytes]
        self.offset += nbytes
        return value

    def strings(self, count: int, width: int, what: str, limit: int) -> list[bytes]:
        """The next ``count`` byte strings of at most ``limit`` bytes, each after its length of ``width`` bytes."""
        self.need(count * width, f"{what} of {count} strings")
        data, size, at = self.file.data, self.file.size, self.offset
        found: list[bytes] = []
        # Vocabularies have 150,000 pieces: this loop is the time it takes to open a file.
        for _ in range(count):
            start = at + width
            end = start + int.from_bytes(data[at:start], "little")
            if end > size:
                raise self.file.bad(at, f"{what}: string {len(found)} reaches beyond the end of the file; {AGAIN}")
            if end - start > limit:
                raise self.file.bad(
                    at, f"{what}: string {len(found)} has {end - start} bytes; expected at most {limit}"
                )
            found.append(data[start:end])
            at = end
        self.offset = at
        return found


class StringArray(Sequence[str]):
    """Texts of a file, decoded when asked for: vocabularies are long and most readers want the bytes (``raw``)."""

    def __init__(self, raw: list[bytes]) -> None:
        self.raw = raw

    def __len__(self) -> int:
        return len(self.raw)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return StringArray(self.raw[index])
        return self.raw[index].decode("utf-8", errors="replace")

    def __iter__(self) -> Iterator[str]:
        return (text.decode("utf-8", errors="replace") for text in self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StringArray) and self.raw == other.raw

    __hash__ = None  # type: ignore[assignment]  # holds a list


class MappedCheckpoint:
    """A GGUF or GGML file, opened: implements ``Checkpoint`` over a MappedFile.

    If another program shortens the file in place while it is mapped, reading the missing pages ends the process
    (SIGBUS): no reader of mapped files can prevent that. ``verify_unchanged`` notices it before the pages are touched
    when it is called before a piece of work. Programs that replace files the safe way (write beside, then rename, as
    selfee does) are harmless: the old file stays mapped.
    """

    def __init__(
        self,
        file: MappedFile,
        container: str,
        metadata: Mapping[str, Any],
        vocab: Vocab,
        tensors: Mapping[str, TensorInfo],
    ) -> None:
        self.file = file
        self.path = file.path
        self.size = file.size
        self.container = container
        self.metadata = metadata
        self.vocab = vocab
        self.tensors = tensors

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        """The raw blocks of a tensor, read-only and memory-mapped, shape (rows, bytes per row)."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise BadFileError(f"{self.path}: has no tensor '{printable(name)}'; the model is incomplete")
        if not tensor.type.readable:
            raise UnsupportedFileError(
                f"{self.path}: tensor '{printable(name)}': stored as {tensor.type.name}, which selfee can list but "
                "not compute with; use a file in q4_0 … q8_0, q2_K … q6_K, F16, BF16 or F32"
            )
        return self.file.array(tensor.offset, tensor.nbytes).reshape(prod(tensor.shape[:-1]), -1)

    def release(self, name: str, begin: int = 0, end: int | None = None) -> None:
        """Let the system take back the memory behind bytes ``begin`` to ``end`` of a tensor that was read."""
        tensor = self.tensors[name]
        self.file.release(tensor.offset + begin, (tensor.nbytes if end is None else end) - begin)

    def verify_unchanged(self) -> None:
        """Raise BadFileError if the file was changed in place since it was opened."""
        self.file.verify_unchanged()

    def close(self) -> None:
        """Let go of the mapping."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
