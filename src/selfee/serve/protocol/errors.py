"""Errors as OpenAI's clients expect them: message, type, param, code; and which of ours is which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from selfee.errors import ContextOverflowError, EngineError, MissingExtraError, ResourceError, SelfeeError, UsageError

_KINDS = frozenset(("str", "int", "float", "bool", "none", "list", "dict"))
"""What a validator calls the members of a union, in the place of a field."""

_MOST_SHOWN = 80  # characters of a wrong value that a message quotes


@dataclass
class ApiError(Exception):
    """An answer that is an error."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @classmethod
    def busy(cls, found: str, seconds: int) -> ApiError:
        """Too much at a time: come again."""
        return cls(
            429,
            f"server: {found}; try again in {seconds} s",
            "rate_limit_error",
            code="rate_limit_exceeded",
            headers={"retry-after": str(seconds)},
        )

    @classmethod
    def stopping(cls) -> ApiError:
        """The server is about to end."""
        return cls(
            503,
            "server: is shutting down; expected another one to take over; try again",
            "server_error",
            code="shutting_down",
            headers={"retry-after": "5"},
        )

    @classmethod
    def unavailable(cls, found: str, seconds: int = 2) -> ApiError:
        """Nobody computes at the moment."""
        return cls(
            503,
            f"server: {found}; try again in {seconds} s",
            "server_error",
            code="model_unavailable",
            headers={"retry-after": str(seconds)},
        )

    @classmethod
    def refused(cls, param: str, found: str) -> ApiError:
        """A field that cannot be honoured."""
        return cls(400, f"{param}: {found}", param=param, code="unsupported_value")


class BackendLostError(EngineError):
    """The process that computes has died in the middle of a job."""


def from_selfee(error: SelfeeError) -> ApiError:
    """What a client is told of an error of ours."""
    if isinstance(error, ContextOverflowError):
        return ApiError(400, str(error), param="messages", code="context_length_exceeded")
    if isinstance(error, UsageError | MissingExtraError):
        field_name = str(error).partition(":")[0]
        return ApiError(400, str(error), param=field_name if field_name.isidentifier() else None, code="invalid_value")
    if isinstance(error, BackendLostError):
        return ApiError(502, str(error), "server_error", code="worker_lost", headers={"retry-after": "1"})
    if isinstance(error, ResourceError):
        return ApiError(503, str(error), "server_error", code="out_of_memory", headers={"retry-after": "10"})
    if isinstance(error, EngineError):
        status = 503 if error.retryable else 502
        headers = {"retry-after": "2"} if error.retryable else {}
        return ApiError(status, str(error), "server_error", code="engine_failed", headers=headers)
    return ApiError(500, str(error), "server_error", code="internal_error")


def from_validation(error: ValidationError) -> ApiError:
    """The first field that is wrong, what was found there and what was expected."""
    details = error.errors(include_url=False, include_context=False)
    first = details[0]
    param = _path(first["loc"]) or None
    missing = first["type"] == "missing"
    found = "is missing" if missing else f"{_shown(first['input'])} does not fit"
    wanted = first["msg"][:1].lower() + first["msg"][1:]
    code = "missing_required_parameter" if missing else "invalid_value"
    return ApiError(400, f"{param or 'body'}: {found}; {wanted}", param=param, code=code)


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier() and part not in _KINDS:
            text += f".{part}" if text else part
    return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"
