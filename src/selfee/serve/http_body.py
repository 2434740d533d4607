"""Reads a request's body: so much and no more, in time, as strict JSON into a model."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from selfee.serve.protocol.errors import ApiError, from_validation

M = TypeVar("M", bound=BaseModel)

_LARGE = 256 << 10  # bytes; others should not wait while so much is read
_LONGEST_NUMBER = 400  # characters


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The body, not compressed and at most ``most`` bytes. Raises ApiError (408, 413, 415)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"content-type: {kind or 'missing'}; expected application/json", param="content-type")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(415, "content-encoding: the body is compressed; expected it as it is", param="content-encoding")
    too_large = ApiError(413, f"body: more than {most} bytes; expected less; shorten it", code="body_too_large")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 18 or int(length) > most:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise ApiError(
            408, f"body: not complete within {seconds:g} s; send it faster", headers={"connection": "close"}
        ) from None
    except ClientDisconnect:
        raise ApiError(499, "body: the client went away") from None
    return b"".join(parts)


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises ApiError (400) for whatever is not exactly one, with unambiguous values."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(f"byte {error.start} is not UTF-8")
    if text.startswith("\ufeff"):
        _refuse("begins with a byte order mark")
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        _refuse(f"is no JSON ({error.msg} at character {error.pos})")
    except RecursionError:
        _refuse("is nested too deeply")
    except ValueError as error:
        _refuse(str(error))
    if not isinstance(value, dict):
        _refuse(f"is a JSON {_kind(value)}")
    if "\\ud" in text.lower():
        _check_surrogates(value)
    return value


async def read_model(request: Request, kind: type[M], most: int, seconds: float) -> M:
    """The body as this model. Raises ApiError naming the first field that is wrong."""
    body = await read_body(request, most, seconds)
    row = parse_json(body) if len(body) < _LARGE else await asyncio.to_thread(parse_json, body)
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        raise from_validation(error) from None


def _refuse(found: str) -> NoReturn:
    raise ApiError(400, f"body: {found}; expected a JSON object", param="body", code="invalid_json")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"has the field {name[:60]!r} twice")
            seen.add(name)
    return row


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"holds the number {text[:20]}, which is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"holds a number of {len(text)} digits")
    return int(text)


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError):
        _refuse("holds half a surrogate pair, which is no character")


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), "value")
