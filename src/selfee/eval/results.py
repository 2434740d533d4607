"""What was measured about a model file, one JSON line a file: written as files finish, read by the model card.

A line of ``results.jsonl`` holds the fields of ``Quality`` by their names. Names of files are without folders. A number
that does not exist (no base given, speed not asked for) is null, and so is one too large for JSON.
"""

from __future__ import annotations

import json
import math
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError, ResourceError
from selfee.jsonl import parse_line

SCHEMA = 1
"""The version of the line's meaning; a reader refuses others."""

Key = tuple[str, str, str, int, int, tuple[str, int | None, int | None] | None, str]
"""Hashes of file and text, definition, tokens of a chunk, chunks, the base's name, size and time, cache type."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The measurements of one model file on one text; against a base model where one was given.

    Errors are standard errors of the mean, as llama.cpp gives them. KLD is the divergence of the file's next-token
    distribution from the base's, in nats; Δp the probability of the text's own next token minus the base's.
    """

    schema: int = SCHEMA
    file: str
    size: int  # bytes
    mtime_ns: int
    sha256: str
    bits_per_weight: float
    text: str
    text_sha256: str
    definition: str  # "current" or "2023", see eval/perplexity.py
    n_ctx: int  # tokens of a chunk
    chunks: int
    positions: int  # scored
    cache_type: str = "f16"  # what keys and values were stored as
    ppl: float
    ppl_error: float
    tokens_per_second: float  # evaluated together, as a prompt is
    decode_tokens_per_second: float | None = None  # generated one after another (--speed)
    threads: int
    instruction_set: str
    base: str | None = None  # file name of the base model, or of its log-probabilities
    base_size: int | None = None
    base_mtime_ns: int | None = None
    base_ppl: float | None = None
    base_ppl_error: float | None = None
    ppl_difference: float | None = None  # ppl - base_ppl
    ppl_difference_error: float | None = None
    ln_ratio: float | None = None  # ln(ppl / base_ppl)
    ln_ratio_error: float | None = None
    correlation: float | None = None  # of the two ln(ppl), 0 to 1
    kld_mean: float | None = None
    kld_error: float | None = None
    kld_max: float | None = None
    kld_min: float | None = None
    kld_percentiles: dict[str, float] = field(default_factory=dict)  # "99.9", "99", "95", "90", "50", "10", "5", …
    dp_mean: float | None = None
    dp_error: float | None = None
    dp_rms: float | None = None
    dp_rms_error: float | None = None
    dp_max: float | None = None
    dp_min: float | None = None
    dp_percentiles: dict[str, float] = field(default_factory=dict)  # as above, also "75" and "25"
    same_top: float | None = None  # share of positions where both find the same token likeliest, 0 to 1
    same_top_error: float | None = None
    selfee: str  # version
    date: str  # ISO 8601, UTC

    def as_row(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return {name: _finite(value) for name, value in asdict(self).items()}

    @property
    def key(self) -> Key:
        """What was measured: equal keys mean that measuring again would find the same."""
        base = None if self.base is None else (self.base, self.base_size, self.base_mtime_ns)
        return self.sha256, self.text_sha256, self.definition, self.n_ctx, self.chunks, base, self.cache_type

    @classmethod
    def from_row(cls, row: Mapping[str, Any], where: str) -> Quality:
        """The measurements of a parsed line; ``where`` begins error messages. Raises BadFileError."""
        if row.get("schema") != SCHEMA:
            raise _bad(where, f"schema {row.get('schema')!r}", f"{SCHEMA}, as selfee perplexity writes")
        kinds = typing.get_type_hints(cls)
        if unknown := sorted(set(row) - set(kinds)):
            raise _bad(where, f"unknown field {unknown[0]!r}", "the fields of selfee.eval.results.Quality")
        values: dict[str, Any] = {}
        for each in fields(cls):
            if each.name in row:
                values[each.name] = _checked(row[each.name], each.name, kinds[each.name], where)
            elif each.default is MISSING and each.default_factory is MISSING:
                raise _bad(where, f"no field {each.name!r}", "a whole line of selfee perplexity")
        return cls(**values)


_NULL_IF_TOO_LARGE = ("ppl", "ppl_error")


def read_results(path: str | Path) -> list[Quality]:
    """Every finished line of a results file; none if there is no such file.

    A last line without its end is what a killed process left, and is passed over. Raises BadFileError for other lines
    that are no measurements.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read ({error.strerror}); expected a file of JSON lines") from error
    found = []
    *lines, half = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}:{number}"
            found.append(Quality.from_row(parse_line(line, where), where))
    if half and not half.startswith(b"{"):
        raise BadFileError(
            f"{path}:{len(lines) + 1}: is no line of results; expected a file that selfee perplexity wrote"
        )
    return found


def append_result(path: str | Path, quality: Quality) -> None:
    """Add one line, whole and on the disk when this returns; half a line at the end is removed first.

    Raises ResourceError where the file cannot be written.
    """
    path = Path(path)
    line = json.dumps(quality.as_row(), ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with path.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ResourceError(
            f"{path}: cannot be written ({error.strerror}); expected a folder of yours with room; free some or choose "
            "another name"
        ) from error


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _checked(value: Any, name: str, kind: Any, where: str) -> Any:
    """The value of a field, if it is of the kind the field has."""
    if value is None and name in _NULL_IF_TOO_LARGE:
        return math.inf
    allowed = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in allowed:
        return None
    if isinstance(value, dict) and typing.get_origin(kind) is dict:
        return {str(key): _number(item, f"{name}.{key}", where) for key, item in value.items()}
    if float in allowed:
        return _number(value, name, where)
    if type(value) in allowed:
        return value
    raise _bad(where, f"{name} is a {type(value).__name__}", getattr(allowed[0], "__name__", "an object of numbers"))


def _number(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _bad(where, f"{name} is {value!r:.40}", "a finite number")
    return float(value)


def _bad(where: str, found: str, expected: str) -> BadFileError:
    return BadFileError(f"{where}: {found}; expected {expected}; measure again into another file")
