"""Plain values as JSON and back: what may pass between the process of a program and the process of its tests.

A value is taken apart by the methods of the built-in types themselves, so that a class of the program's own that is
equal to everything arrives as what it holds, or not at all.
"""

from __future__ import annotations

import datetime
import struct
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import IO, Any

MOST_BYTES = 16 << 20
"""The longest message."""

_DEEPEST = 60
_MOST_VALUES = 1_000_000


class NotPlainError(Exception):
    """A value that is not made of built-in types, is too deep or too large."""


def encode(value: Any) -> Any:
    """A value as plain JSON. Raises NotPlainError."""
    return _Encoder().encode(value, 0)


class _Encoder:
    def __init__(self) -> None:
        self._count = 0

    def encode(self, value: Any, depth: int) -> Any:
        self._count += 1
        if depth > _DEEPEST or self._count > _MOST_VALUES:
            raise NotPlainError("is nested too deep or too large")
        if value is None or value is True or value is False:
            return value
        if isinstance(value, int):
            return {"i": format(int.__index__(value), "x")}  # of any size: decimal digits are limited
        if isinstance(value, float):
            return {"f": float.hex(value)}
        if isinstance(value, str):
            return {"u": str.encode(value, "utf-8", "surrogatepass").hex()} if not _is_text(value) else value[:]
        return self._collection(value, depth + 1)

    def _collection(self, value: Any, depth: int) -> Any:
        kind: Any
        for kind, name in ((list, "l"), (tuple, "t"), (set, "s"), (frozenset, "z"), (deque, "q")):
            if isinstance(value, kind):
                items = [self.encode(item, depth) for item in kind.__iter__(value)]
                return {name: sorted(items, key=repr) if kind in (set, frozenset) else items}
        if isinstance(value, dict):
            name = "c" if isinstance(value, Counter) else "o" if isinstance(value, OrderedDict) else "d"
            pairs = [[self.encode(key, depth), self.encode(item, depth)] for key, item in dict.items(value)]
            return {name: pairs}
        return self._other(value)

    def _other(self, value: Any) -> Any:
        if isinstance(value, bytes | bytearray):
            return {"b" if isinstance(value, bytes) else "a": bytes(memoryview(value)).hex()}
        if isinstance(value, complex):
            return {"x": [float.hex(complex.real.__get__(value)), float.hex(complex.imag.__get__(value))]}
        if type(value) is range:
            return {"r": [value.start, value.stop, value.step]}
        if type(value) is Decimal or type(value) is Fraction:
            return {"n" if type(value) is Decimal else "v": str(value)}
        for kind, name in ((datetime.datetime, "dt"), (datetime.date, "da"), (datetime.time, "ti")):
            if type(value) is kind:
                return {name: kind.isoformat(value)}
        if type(value) is datetime.timedelta:
            return {"td": [value.days, value.seconds, value.microseconds]}
        raise NotPlainError(f"is a {type(value).__name__}")


def _is_text(value: str) -> bool:
    return str.isascii(value) or not any("\ud800" <= character <= "\udfff" for character in str.__iter__(value))


def decode(value: Any) -> Any:
    """The value in JSON made by ``encode``. Raises ValueError for anything else."""
    if value is None or isinstance(value, bool | str):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("no value")
    ((name, inner),) = value.items()
    if name not in _DECODERS:
        raise ValueError(f"no kind {name!r}")
    return _DECODERS[name](inner)


def _items(inner: Any) -> list[Any]:
    return [decode(item) for item in inner]


def _pairs(inner: Any) -> dict[Any, Any]:
    return {decode(key): decode(item) for key, item in inner}


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "i": lambda inner: int(inner, 16),
    "f": float.fromhex,
    "u": lambda inner: bytes.fromhex(inner).decode("utf-8", "surrogatepass"),
    "l": _items,
    "t": lambda inner: tuple(_items(inner)),
    "s": lambda inner: set(_items(inner)),
    "z": lambda inner: frozenset(_items(inner)),
    "q": lambda inner: deque(_items(inner)),
    "d": _pairs,
    "c": lambda inner: Counter(_pairs(inner)),
    "o": lambda inner: OrderedDict(_pairs(inner)),
    "b": bytes.fromhex,
    "a": bytearray.fromhex,
    "x": lambda inner: complex(float.fromhex(inner[0]), float.fromhex(inner[1])),
    "r": lambda inner: range(*inner),
    "n": Decimal,
    "v": Fraction,
    "dt": datetime.datetime.fromisoformat,
    "da": datetime.date.fromisoformat,
    "ti": datetime.time.fromisoformat,
    "td": lambda inner: datetime.timedelta(*inner),
}


def send(file: IO[bytes], data: bytes) -> None:
    """Write one message."""
    file.write(struct.pack(">I", len(data)) + data)
    file.flush()


def receive(file: IO[bytes]) -> bytes | None:
    """Read one message; None = the other side has gone. Raises ValueError for one that is too long."""
    head = file.read(4)
    if len(head) < 4:
        return None
    (size,) = struct.unpack(">I", head)
    if size > MOST_BYTES:
        raise ValueError(f"a message of {size} bytes")
    data = file.read(size)
    return data if len(data) == size else None
