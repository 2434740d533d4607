"""``analysis.json``: an ``Analysis`` as a file, written whole or not at all, and read back with every field checked."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.eval.revising.result import FORMAT, VERSION, Analysis
from selfee.files import replace_text

FILE_NAME = "analysis.json"
_LARGEST = 256 << 20  # bytes


def write_analysis(path: str | Path, analysis: Analysis) -> None:
    """Write an analysis: a temporary file beside ``path``, synced, then renamed over it."""
    path = Path(path)
    text = json.dumps(asdict(analysis), ensure_ascii=False, indent=1, allow_nan=False)
    replace_text(path, text + "\n")


def read_analysis(path: str | Path) -> Analysis:
    """Read an analysis. Raises BadFileError naming file and field, UnsupportedFileError for another version."""
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST:
            raise BadFileError(f"{path}: has more than {_LARGEST >> 20} MB; expected an analysis of selfee revisions")
        row = json.loads(path.read_bytes())
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read ({error.strerror}); expected an analysis.json") from error
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{path}: not valid JSON ({error}); expected an analysis of selfee revisions") from error
    if not isinstance(row, dict) or row.get("format") != FORMAT:
        raise BadFileError(f"{path}: no field 'format' that says {FORMAT!r}; expected an analysis of selfee revisions")
    if row.get("version") != VERSION:
        raise UnsupportedFileError(
            f"{path}: version {row.get('version')!r} of the format; this selfee reads {VERSION}; make it anew"
        )
    analysis: Analysis = _record(Analysis, row, str(path))
    return analysis


def _record(kind: Any, row: Any, where: str) -> Any:
    """The dataclass in a JSON object."""
    if not isinstance(row, dict):
        raise BadFileError(f"{where}: is a {type(row).__name__}; expected an object")
    hints = get_type_hints(kind)
    known = {each.name: each for each in fields(kind)}
    if extra := sorted(set(row) - set(known)):
        raise BadFileError(f"{where}: unknown field {extra[0]!r}; expected {', '.join(known)}")
    values = {}
    for name, each in known.items():
        if name in row:
            values[name] = _value(hints[name], row[name], f"{where}: {name}")
        elif each.default is MISSING and each.default_factory is MISSING:
            raise BadFileError(f"{where}: no field {name!r}; expected one")
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _value(next(kind for kind in inner if kind is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise BadFileError(f"{where}: is a {type(value).__name__}; expected a list")
        return tuple(_value(inner[0], item, f"{where}[{number}]") for number, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise BadFileError(f"{where}: is a {type(value).__name__}; expected an object")
        return {key: _value(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if is_dataclass(hint):
        return _record(hint, value, where)
    return value if hint is Any else _plain(hint, value, where)


def _plain(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 1023:
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadFileError(f"{where}: is a {type(value).__name__}; expected a {kind.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadFileError(f"{where}: is {value}; expected a finite number")
    return value
