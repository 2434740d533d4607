"""Rows of a file of JSON objects: JSON lines or one array, plain or gzipped."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError
from selfee.jsonl import parse_line

_GZIP = b"\x1f\x8b"
_LARGEST = 1 << 30  # bytes, after unpacking

Row = dict[str, Any]


def read_rows(path: str | Path) -> Iterator[tuple[str, int, Row]]:
    """Yield (where it stands, number from 1, object) for every row. Raises BadFileError naming file and line."""
    path = Path(path)
    data = _read(path)
    if data.lstrip()[:1] == b"[":
        yield from _array(data, path)
        return
    number = 0
    for line, raw in enumerate(data.split(b"\n"), start=1):
        if raw.strip():
            number += 1
            yield f"{path}:{line}", number, parse_line(raw, f"{path}:{line}")


def _array(data: bytes, path: Path) -> Iterator[tuple[str, int, Row]]:
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{path}: not valid JSON ({error}); expected JSON lines or one array of objects") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise BadFileError(f"{path}: entry {number} is a {type(row).__name__}; expected an object")
        yield f"{path}: entry {number}", number, row


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if data.startswith(_GZIP):
            with gzip.open(path) as packed:
                data = packed.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadFileError(f"{path}: cannot be read ({reason}); expected a file of JSON lines") from error
    if len(data) > _LARGEST:
        raise BadFileError(f"{path}: has more than {_LARGEST >> 20} MB; expected a smaller file; split it")
    return data
