"""A conversation's cache on disk, so that a long text is read once: ``save_session``, ``load_session``.

Layout, little-endian (docs/reference/session-file.md): a header of 200 bytes, the BLAKE2b-256 of the tokens in it; the
header's own BLAKE2b-256; the tokens as u32; then the cells, of the type that the header says, piece by piece as
``Session.read_cells`` gives them, each followed by a checksum of 16 bytes: BLAKE2b-128 with the header's hash as its
key and the number of the piece as its salt. So a piece out of its place, or of another text, is as wrong as a damaged
one. BLAKE2b and not CRC-32, which is faster: old blocks of a disk are no random errors, and both are faster by far than
reading with a model.

A checksum finds damage, not malice: whoever writes a file can make a model believe anything about what it has read.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from io import FileIO
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError, ContextOverflowError, UnsupportedFileError, UsageError
from selfee.llama.cells import CHUNK, CacheType, Cells, cache_type_of, pieces_of
from selfee.llama.config import LlamaConfig
from selfee.llama.model import Model, Session
from selfee.weights.printable import printable
from selfee.weights.writing import replacing

MAGIC = b"selfeeKV"
VERSION = 1

_NAME = 96  # bytes of the model's name
_HASH, _CHECKSUM = 32, 16  # bytes
_HEADER = struct.Struct(f"<8s8I{_HASH}s{_HASH}s{_NAME}s")
_AGAIN = "the file is cut short or damaged; delete it, and the text is read anew"


@dataclass(frozen=True)
class _Header:
    """What is fixed before the first token; fields in the order of the file."""

    magic: bytes
    version: int
    cell_type: int
    layers: int
    kv_heads: int
    head_dim: int
    chunk: int
    vocabulary: int
    tokens: int
    tokens_hash: bytes
    fingerprint: bytes
    name: bytes  # of the model's file, for messages only

    @classmethod
    def of(cls, model: Model, tokens: int, tokens_hash: bytes, fingerprint: bytes) -> _Header:
        config = model.config
        shape = (config.layers, config.kv_heads, config.head_dim, CHUNK, config.vocabulary)
        name = model.checkpoint.path.name.encode("utf-8", errors="replace")[:_NAME]
        return cls(MAGIC, VERSION, int(model.cell_type), *shape, tokens, tokens_hash, fingerprint, name)

    @property
    def shape(self) -> tuple[int, ...]:
        """What the model must agree with."""
        return (self.layers, self.kv_heads, self.head_dim, self.chunk, self.vocabulary)

    def described(self) -> str:
        """The model, for a message."""
        return f"{printable(self.name.rstrip(bytes(1)), 60)} ({self.fingerprint[:6].hex()})"


class _Checksums:
    """The checksums of a file's pieces of cells, in turn."""

    def __init__(self, header_hash: bytes) -> None:
        self._key = header_hash
        self._number = 0

    def next(self, piece: memoryview) -> bytes:
        salt = struct.pack("<Q", self._number)
        self._number += 1
        return hashlib.blake2b(piece, digest_size=_CHECKSUM, key=self._key, salt=salt).digest()


def session_bytes(config: LlamaConfig, count: int, cache_type: CacheType = "f16") -> int:
    """Size of the file that holds ``count`` tokens."""
    cells = sum(2 * prod(shape) + _CHECKSUM for _, _, shape in pieces_of(config, count, cache_type))
    return _HEADER.size + _HASH + 4 * count + cells


def is_session_file(path: str | Path) -> bool:
    """Whether a regular file begins as a session's does, of any version. Raises BadFileError if it cannot be read."""
    with _opened(Path(path)) as (file, _):
        try:
            return file.read(len(MAGIC)) == MAGIC
        except OSError as error:
            raise _unreadable(Path(path), error) from error


def save_session(path: str | Path, session: Session, tokens: Sequence[int], *, remembered: Path | None = None) -> None:
    """Write ``tokens``, the first ``len(tokens)`` that a session holds, and what its cache holds of them.

    The file appears whole or not at all, in place of an older one, readable by its owner only: it holds the
    conversation. Memory for one piece is needed. ``remembered``: see ``fingerprint_of``. Raises ResourceError where it
    cannot be written, UsageError where there is nothing to write.
    """
    path, config = Path(path), session.model.config
    if not 1 <= len(tokens) <= session.length:
        raise UsageError(f"{path}: {len(tokens)} tokens to be saved; expected 1 to {session.length}, which are held")
    ids = np.asarray(tokens, dtype=np.int64)
    if ids.min() < 0 or ids.max() >= config.vocabulary:
        raise UsageError(f"{path}: a token to be saved does not exist; expected 0 to {config.vocabulary - 1}")
    packed_tokens = _bytes(ids.astype("<u4"))
    fingerprint = session.model.fingerprint(remembered)
    header = _HEADER.pack(*astuple(_Header.of(session.model, len(tokens), _hash(packed_tokens), fingerprint)))
    checksums = _Checksums(_hash(header))
    with replacing(path, needed=session_bytes(config, len(tokens), session.model.cache_type), is_private=True) as file:
        file.write(header + _hash(header))
        file.write(packed_tokens)
        for cells in session.read_cells(len(tokens)):
            _write_piece(file, _bytes(cells.astype("<u2", copy=False)), checksums)


def _hash(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_HASH).digest()


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _write_piece(file: IO[bytes], piece: memoryview, checksums: _Checksums) -> None:
    file.write(piece)
    file.write(checksums.next(piece))


def load_session(path: str | Path, session: Session, *, remembered: Path | None = None) -> list[int]:
    """Fill an empty session from a file; returns the tokens it then holds.

    Whatever is raised, the session stays empty: every piece is checked before it is used. Raises BadFileError for a
    damaged file, UnsupportedFileError for one of another model, cache type or version, ContextOverflowError for more
    tokens than the session can hold, UsageError for a session that holds tokens already.
    """
    path = Path(path)
    if session.length:
        raise UsageError(f"{path}: the session holds {session.length} tokens; expected an empty one to restore into")
    with _opened(path) as (file, size):
        reader = _Reader(path, file)
        header = reader.header()
        _check_model(path, header, session.model, remembered)
        if header.tokens > session.context_length:
            raise ContextOverflowError(
                f"{path}: {header.tokens} tokens; the session has room for {session.context_length}; open the model "
                f"with a context_length above {header.tokens}"
            )
        expected = session_bytes(session.model.config, header.tokens, session.model.cache_type)
        if header.tokens == 0 or size != expected:
            raise BadFileError(f"{path}: {size} bytes for {header.tokens} tokens; expected {expected}; {_AGAIN}")
        ids = reader.tokens(header)
        if int(ids.max()) >= header.vocabulary:
            raise BadFileError(f"{path}: token {ids.max()} in a vocabulary of {header.vocabulary}; {_AGAIN}")
        session.write_cells(header.tokens, reader.fill_cells)
    tokens: list[int] = ids.tolist()
    return tokens


def _check_model(path: Path, header: _Header, model: Model, remembered: Path | None) -> None:
    own = _Header.of(model, header.tokens, header.tokens_hash, model.fingerprint(remembered))
    if header.fingerprint != own.fingerprint:
        raise UnsupportedFileError(
            f"{path}: a session of the model {header.described()}; this model is {own.described()}; use it with the "
            "model it was made with, or another file for this one"
        )
    if header.cell_type != own.cell_type:
        found = cache_type_of(header.cell_type)
        raise UnsupportedFileError(
            f"{path}: keys and values stored as {found}; this model stores {model.cache_type}; open the model with "
            f"cache_type {found}, or use another file"
        )
    if header.shape != own.shape:
        raise BadFileError(
            f"{path}: layers, heads, values of a head, tokens of a piece and vocabulary are {list(header.shape)}; the "
            f"model has {list(own.shape)}; {_AGAIN}"
        )


class _Reader:
    """Reads a file from front to back into memory that the caller has measured, never more."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self._path = path
        self._file = file
        self._offset = 0

    def header(self) -> _Header:
        """Everything before the tokens. What the numbers mean is not checked yet, but they are what was written."""
        raw = bytearray(_HEADER.size + _HASH)
        self._read(memoryview(raw)[: len(MAGIC) + 4], "the header")
        if raw[: len(MAGIC)] != MAGIC:
            raise BadFileError(f"{self._path}: no {MAGIC.decode()} at its start; expected a session that selfee saved")
        (version,) = struct.unpack_from("<I", raw, len(MAGIC))
        if version != VERSION:
            raise UnsupportedFileError(
                f"{self._path}: a session in version {version} of the format; this selfee reads {VERSION}; delete the "
                "file, and the text is read anew"
            )
        self._read(memoryview(raw)[len(MAGIC) + 4 :], "the header")
        packed, header_hash = bytes(raw[: _HEADER.size]), bytes(raw[_HEADER.size :])
        if _hash(packed) != header_hash:
            raise BadFileError(f"{self._path}: byte 0: the header does not match its checksum; {_AGAIN}")
        header = _Header(*_HEADER.unpack(packed))
        if cache_type_of(header.cell_type) is None:
            raise UnsupportedFileError(
                f"{self._path}: cells of type {header.cell_type}; this selfee knows 1 (f16) and 8 (q8_0); delete the "
                "file, and the text is read anew"
            )
        self._checksums = _Checksums(header_hash)
        return header

    def tokens(self, header: _Header) -> npt.NDArray[np.uint32]:
        """The tokens, as many as the header says: the caller has compared that with the size of the file."""
        start, ids = self._offset, np.zeros(header.tokens, "<u4")
        self._read(_bytes(ids), "the list of tokens")
        if _hash(_bytes(ids)) != header.tokens_hash:
            raise BadFileError(f"{self._path}: byte {start}: the tokens do not match their checksum; {_AGAIN}")
        return ids

    def fill_cells(self, cells: Cells) -> None:
        """The next piece, as numbers of this machine. Raises BadFileError unless it is what was written."""
        start, found = self._offset, bytearray(_CHECKSUM)
        self._read(_bytes(cells), "a piece")
        self._read(memoryview(found), "a checksum")
        if self._checksums.next(_bytes(cells)) != found:
            raise BadFileError(f"{self._path}: byte {start}: a piece does not match its checksum; {_AGAIN}")
        cells[...] = cells.view("<u2")

    def _read(self, into: memoryview, what: str) -> None:
        done = 0
        while done < len(into):
            try:
                count = self._file.readinto(into[done:])
            except OSError as error:
                raise _unreadable(self._path, error) from error
            if not count:
                raise BadFileError(f"{self._path}: byte {self._offset + done}: {what} is cut short; {_AGAIN}")
            done += count
        self._offset += done


@contextmanager
def _opened(path: Path) -> Iterator[tuple[FileIO, int]]:
    """A regular file and its size. Not mapped: a mapped file that is cut short meanwhile would end the process."""
    try:
        # Without O_NONBLOCK opening a FIFO waits for a writer that may never come.
        file = FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _unreadable(path, error) from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BadFileError(f"{path}: is a pipe or device; expected a file that selfee saved")
        yield file, status.st_size


def _unreadable(path: Path, error: Exception) -> BadFileError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return BadFileError(f"{printable(str(path), 4096)}: cannot be read ({reason}); expected a file that selfee saved")
