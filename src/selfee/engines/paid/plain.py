"""Settings as plain JSON values and back: how they reach the courier's process."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_plain(settings: Any) -> dict[str, Any]:
    """A dataclass of dataclasses as JSON values."""
    return asdict(settings)


def from_plain(kind: type[T], row: Mapping[str, Any]) -> T:
    """The dataclass that ``to_plain`` described."""
    hints = get_type_hints(kind)
    return kind(**{field.name: _value(hints[field.name], row[field.name]) for field in fields(kind)})  # type: ignore[arg-type]


def _value(hint: Any, value: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next((option for option in get_args(hint) if is_dataclass(option)), hint)
    if is_dataclass(hint) and isinstance(hint, type) and value is not None:
        return from_plain(hint, value)
    return tuple(value) if isinstance(value, list) else value
