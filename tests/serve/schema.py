"""Validates what the server says against OpenAI's published schema, as its own library has it, and strictly."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic import TypeAdapter


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def valid(kind: Any, row: dict[str, Any]) -> Any:
    """The object as this type: every required field is there, and every field has its very type."""
    return _adapter(kind).validate_json(json.dumps(row), strict=True)
