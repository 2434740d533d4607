"""Rows of the files that data sets are published as, one after another: JSON, JSON lines, Parquet, TSV, CSV, gzip.

The kind is told by the content, for text tables by the suffix. A row that cannot be read is a ``BadRow`` and does not
end the reading, nor does a file that is damaged further down, or one of a folder. A file that gives no row at all is a
BadFileError.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from selfee.errors import BadFileError, MissingExtraError, SelfeeError, UsageError

_SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".tsv", ".csv", ".gz")
_PIECE = 1 << 20  # characters read at a time
_LONGEST_ROW = 1 << 28  # characters; what has not ended by then is damaged
_LONGEST_WORD = 16  # characters: "Infinity", "\\ud83d\\ude00" and the like can be cut by the end of a piece
_BETWEEN = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class Row:
    """One row and where it stands; a text table's row maps its heading, or "0", "1" … where it has none."""

    where: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read, and why."""

    where: str
    reason: str


def files_of(path: Path) -> list[Path]:
    """The file, or all data files in a folder and its folders, by name."""
    if not path.is_dir():
        return [path]
    found = [file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in _SUFFIXES]
    if not found:
        raise BadFileError(f"{path}: a folder without data files; expected {', '.join(_SUFFIXES)}")
    return sorted(found, key=lambda file: _by_number(file.relative_to(path).as_posix()))


def read_rows(
    path: Path, columns: tuple[str, ...] = (), on_bytes: Callable[[int], None] = lambda count: None
) -> Iterator[Row | BadRow]:
    """Every row of a file or of a folder's files. ``columns`` names those of a text table without a heading line.

    ``on_bytes`` is told of bytes as they are read from the disk.
    """
    for file in files_of(path):
        count = 0
        try:
            for row in _read_file(file, columns, on_bytes):
                count += 1
                yield row
        except BadFileError as error:
            if not count and file == path:
                raise
            where, _, reason = str(error).partition(": ")
            yield BadRow(where, f"the {'rest of the ' if count else ''}file is lost: {reason}")


def read_hub(name: str) -> Iterator[Row | BadRow]:
    """Every row of a data set of the `datasets` library: ``NAME[@CONFIGURATION][#SPLIT]``; a folder's path will do."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(
            f"hf:{name}: needs the package 'datasets'; install it with: pip install 'selfee[data]'"
        ) from error
    rest, _, split = name.partition("#")
    dataset, _, configuration = rest.partition("@")
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(dataset, configuration or None, split=split or None, streaming=True)
    except Exception as error:
        raise BadFileError(f"hf:{name}: the library 'datasets' cannot load it ({_one_line(error)})") from error
    if not split:
        splits = ", ".join(rows)
        raise UsageError(
            f"hf:{name}: expected one of its splits, for example hf:{name}#{next(iter(rows))}; has {splits}"
        )
    for number, row in enumerate(rows, start=1):
        yield Row(f"hf:{name}:{number}", row)


def _read_file(path: Path, columns: tuple[str, ...], on_bytes: Callable[[int], None]) -> Iterator[Row | BadRow]:
    name = path.name.lower().removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            yield from _parquet(path)
            on_bytes(path.stat().st_size)
            return
        with _open_text(path, on_bytes) as file:
            if name.endswith((".tsv", ".csv")):
                yield from _table(path, file, "\t" if name.endswith(".tsv") else ",", columns)
            else:
                yield from _json(path, file)
    except SelfeeError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _one_line(error)
        raise BadFileError(f"{path}: cannot be read ({reason}); expected a data file") from error


class _Told(io.FileIO):
    """A file that tells how many bytes were read."""

    on_bytes: Callable[[int], None]

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self.on_bytes(count or 0)
        return count


def _open_text(path: Path, on_bytes: Callable[[int], None]) -> IO[str]:
    """Bytes that are not UTF-8 become lone surrogates: the row is refused, not the file."""
    file = _Told(path)
    file.on_bytes = on_bytes
    raw: Any = io.BufferedReader(file)
    if raw.peek(2)[:2] == b"\x1f\x8b":
        raw = gzip.GzipFile(fileobj=raw)
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _json(path: Path, file: IO[str]) -> Iterator[Row | BadRow]:
    """A JSON array, JSON lines, or one object: whatever the text begins with."""
    head = file.read(_PIECE)
    if not head.strip():
        raise BadFileError(f"{path}: empty; expected rows")
    if head.lstrip().startswith("["):
        yield from _array(path, file, head)
        return
    first, _, rest = head.partition("\n")
    if _is_object(first) or rest.lstrip()[:1] in ("", "{"):
        yield from _lines(path, file, head)
    else:
        yield from _single(path, head + file.read())


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _single(path: Path, text: str) -> Iterator[Row | BadRow]:
    """One object in several lines, as MATH's problems come."""
    yield _checked(str(path), text)


def _lines(path: Path, file: IO[str], head: str) -> Iterator[Row | BadRow]:
    # Not splitlines(): U+2028 and the like are text within a line.
    number, pending = 0, head
    while pending:
        *whole, pending = pending.split("\n")
        for line in whole:
            number += 1
            if line.strip():
                yield _checked(f"{path}:{number}", line)
        piece = file.read(_PIECE)
        if not piece:
            break
        pending += piece
        while "\n" not in piece:  # a line longer than a piece
            if len(pending) > _LONGEST_ROW:
                raise BadFileError(
                    f"{path}:{number + 1}: a line of more than {_LONGEST_ROW:,} characters; expected rows"
                )
            piece = file.read(max(_PIECE, len(pending)))
            if not piece:
                break
            pending += piece
    if pending.strip():
        yield _checked(f"{path}:{number + 1}", pending)


def _array(path: Path, file: IO[str], head: str) -> Iterator[Row | BadRow]:
    """The elements of a JSON array, without ever holding more than one of them and a piece of the file."""
    decode = json.JSONDecoder().raw_decode
    text, at = head, head.index("[") + 1
    line = 1 + text.count("\n", 0, at)
    while True:
        start = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        line += text.count("\n", at, start)
        at = start
        if at < len(text) and text[at] == "]":
            return
        try:
            value, end = decode(text, at)
        except (ValueError, RecursionError) as error:
            if _is_damage(error, text) or len(text) - at > _LONGEST_ROW:
                raise BadFileError(f"{path}:{line}: not valid JSON ({error}); expected an array of objects") from error
            end = len(text)
            value = None
        if end < len(text) or isinstance(value, dict):  # a number at the end of a piece may go on in the next
            started, line = line, line + text.count("\n", at, end)
            yield _row(f"{path}:{started}", value)
            at = end
            continue
        more = file.read(max(_PIECE, len(text) - at))
        if not more:
            raise BadFileError(f"{path}:{line}: the file ends within its array; expected ']'; fetch it again")
        text, at = text[at:] + more, 0


def _is_damage(error: Exception, text: str) -> bool:
    """Whether more text would not mend it: the decoder stopped before the end, and not for a string without an end."""
    if not isinstance(error, json.JSONDecodeError):
        return True
    return error.pos < len(text) - _LONGEST_WORD and not error.msg.startswith("Unterminated string")


def _table(path: Path, file: IO[str], delimiter: str, columns: tuple[str, ...]) -> Iterator[Row | BadRow]:
    """A comma- or tab-separated table. Tab-separated ones hold no quotes, as Flan publishes them."""
    heading = list(columns)
    for line, cells in _tab_separated(file) if delimiter == "\t" else _comma_separated(file):
        if isinstance(cells, str):
            yield BadRow(f"{path}:{line}", cells)
        elif not heading:
            heading = cells
        elif len(cells) != len(heading):
            yield BadRow(f"{path}:{line}", f"{len(cells)} columns; expected {len(heading)}")
        else:
            yield _row(f"{path}:{line}", dict(zip(heading, cells, strict=True)))


def _tab_separated(file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield number, line.rstrip("\r\n").split("\t")


def _comma_separated(file: IO[str]) -> Iterator[tuple[int, list[str] | str]]:
    """The line a row begins in, and its cells or what is wrong with it."""
    csv.field_size_limit(_LONGEST_ROW)
    rows = csv.reader(file)
    while True:
        started = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            yield started, f"not valid CSV ({error})"
            continue
        if cells is None:
            return
        if cells:
            yield started, cells


def _parquet(path: Path) -> Iterator[Row | BadRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: Parquet needs the package 'pyarrow'; install it with: pip install 'selfee[data]'"
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=256):
                for value in batch.to_pylist():
                    number += 1
                    yield _row(f"{path}:{number}", value)
    except pyarrow.ArrowException as error:
        raise BadFileError(f"{path}: not a sound Parquet file ({_one_line(error)})") from error


def _checked(where: str, text: str) -> Row | BadRow:
    try:
        return _row(where, json.loads(text))
    except (ValueError, RecursionError) as error:
        return BadRow(where, f"not valid JSON ({_one_line(error)})")


def _row(where: str, value: Any) -> Row | BadRow:
    if not isinstance(value, dict):
        return BadRow(where, f"found a {type(value).__name__}; expected an object")
    return Row(where, value)


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sorts 2.json before 10.json."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def same_file(one: Path, other: Path) -> bool:
    """Whether both paths lead to the same file."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return one.absolute() == other.absolute()
