"""Chains of a training file: our own lines and SelFee's records, as JSON lines or as one JSON array."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfee.chain.record import from_dataset, from_json
from selfee.chain.types import Chain
from selfee.errors import BadFileError
from selfee.jsonl import read_jsonl


@dataclass(frozen=True)
class Sourced:
    """A chain and where it stands, for messages."""

    where: str
    chain: Chain


def data_files(data: Path) -> tuple[Path, Path | None]:
    """Training and validation file of a training set's folder; a file is training data alone."""
    if not data.is_dir():
        return data, None
    for ending in ("jsonl", "json"):
        if (path := data / f"train.{ending}").is_file():
            validation = data / f"validation.{ending}"
            return path, validation if validation.is_file() and validation.stat().st_size > 2 else None
    raise BadFileError(f"{data}: holds no train.jsonl; expected a file of chains, or a folder of `selfee data merge`")


def read_chains(path: Path, refused: Counter[str]) -> Iterator[Sourced]:
    """Every chain of a file, whichever of the two forms and schemas; rows that are no chain are counted in ``refused``.

    Raises BadFileError if the file cannot be read at all.
    """
    for where, row in _rows(path):
        try:
            yield Sourced(where, from_json(row, where) if "steps" in row else from_dataset(row, where))
        except BadFileError:
            refused["not a chain"] += 1


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    if not _begins_with_bracket(path):
        yield from ((f"{path}:{number}", row) for number, row in read_jsonl(path))
        return
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{path}: not valid JSON ({error}); expected an array of chains") from error
    for number, row in enumerate(rows):
        yield f"{path}[{number}]", row if isinstance(row, dict) else {}


def _begins_with_bracket(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read ({error.strerror}); expected a file of chains") from error
