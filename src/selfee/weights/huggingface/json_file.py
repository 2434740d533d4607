"""The small files beside a model's weights: read within bounds, and every value of their JSON asked for by its kind."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError
from selfee.weights.printable import printable

_LARGEST_FILE = 1 << 27  # bytes; tokenizer files of 300,000 pieces have 30 MB
_AGAIN = "the file is damaged; fetch it again"


class JsonFile:
    """The object of one JSON file. Values are asked for by kind; errors name the file and the key."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def bad(self, key: str, expected: str) -> BadFileError:
        """The error for a value that is not what it should be."""
        found = printable(repr(self.values.get(key)), 60)
        return BadFileError(f"{self.path}: '{printable(key, 60)}' is {found}; expected {expected}; {_AGAIN}")

    def get(self, key: str) -> Any:
        """The value as it stands there; None where there is none."""
        return self.values.get(key)

    def whole(self, key: str, *, least: int = 0, largest: int = (1 << 31) - 1) -> int | None:
        """A whole number within bounds, or None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) is not int or not least <= value <= largest:
            raise self.bad(key, f"a whole number from {least} to {largest}")
        return value

    def number(self, key: str) -> float | None:
        """A finite number, or None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self.bad(key, "a finite number")
        return float(value)

    def text(self, key: str) -> str | None:
        """A text, or None where there is none."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self.bad(key, "a text")
        return value

    def flag(self, key: str) -> bool | None:
        """True or false, or None where there is neither."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.bad(key, "true or false")
        return value

    def part(self, key: str) -> JsonFile | None:
        """An object within the object, or None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.bad(key, "an object")
        return JsonFile(self.path, value)

    def list(self, key: str) -> list[Any]:
        """A list; empty where there is none."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.bad(key, "a list")
        return value


def read_small(path: Path, limit: int, expected: str) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; ``expected`` names it in errors (BadFileError)."""
    try:
        # Opening a FIFO would wait for a writer that may never come.
        if not path.is_file() or path.stat().st_size > limit:
            raise BadFileError(f"{path}: is no file of at most {limit} bytes; expected {expected}; check the folder")
        return path.read_bytes()
    except OSError as error:
        raise BadFileError(
            f"{path}: cannot be read ({error.strerror}); expected {expected}; check the folder"
        ) from error


def read_json(path: Path) -> JsonFile:
    """Read one JSON object. Raises BadFileError for what cannot be read, is too large, or is no JSON object."""
    raw = read_small(path, _LARGEST_FILE, "JSON text")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, a number of 5000 digits
        reason = (
            f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else type(error).__name__
        )
        raise BadFileError(f"{path}: not valid JSON ({reason}); expected one object; {_AGAIN}") from error
    if not isinstance(value, dict):
        raise BadFileError(f"{path}: holds a {type(value).__name__}; expected one JSON object; {_AGAIN}")
    return JsonFile(path, value)


def read_json_if_there(path: Path) -> JsonFile:
    """``read_json``, or an empty object where there is no such file."""
    return read_json(path) if path.exists() else JsonFile(path, {})


def refuse_surrogates(path: Path, text: str, what: str) -> str:
    """``text`` again, or BadFileError where a lone surrogate makes it impossible to store as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadFileError(f"{path}: {what} '{printable(text, 60)}' is not Unicode text; {_AGAIN}") from None
    return text
