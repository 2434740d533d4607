"""Read and write JSON lines; an error names file, line and column."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError
from selfee.files import replacing


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(line number, object)`` for every non-empty line.

    Raises BadFileError for a line that is not UTF-8, not JSON, or not an object.
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read ({error.strerror}); expected a file of JSON lines") from error
    with file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                yield number, parse_line(raw, f"{path}:{number}")


def parse_line(raw: bytes | str, where: str) -> dict[str, Any]:
    """Parse one line into an object; ``where`` is what an error message starts with."""
    try:
        value = json.loads(raw)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = f"column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise BadFileError(f"{where}: not valid JSON ({reason}); expected one JSON object a line") from error
    if not isinstance(value, dict):
        raise BadFileError(f"{where}: found a {type(value).__name__}; expected one JSON object a line")
    return value


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write ``rows`` whole or not at all: a temporary file beside ``path``, synced, then renamed over it."""
    with writing_jsonl(path) as write:
        for row in rows:
            write(row)


@contextmanager
def writing_jsonl(path: str | Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes one row; the file gets its name when the block ends, and is forgotten if it fails."""
    with replacing(path) as file:

        def write(row: dict[str, Any]) -> None:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

        yield write
