"""What an attempt failed with, in one word, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from selfee.engines.connection import Exchange
from selfee.engines.retry import RETRYABLE_STATUSES, parse_retry_after
from selfee.errors import ContextOverflowError, EngineError, SelfeeError

_PASSING = ("server", "connection", "timeout", "cut", "malformed", "endless", "model")
_UNCERTAIN = ("connection", "timeout", "cut", "malformed")
_OVERLOAD = ("rate", "timeout")
_OVERLOADED = (503, 529)
_UNCOUNTED = ("rate", "key", "quota", "context")
_LONGEST_MESSAGE = 500


@dataclass(frozen=True)
class Fault:
    """Why an attempt brought no reply."""

    kind: str  # "rate", "server", "timeout" …: see EngineError; "context": the prompt was too long
    message: str
    may_pass: bool  # another attempt may succeed
    is_overload: bool = False  # fewer requests at a time may help
    is_uncertain: bool = False  # the server may have made, and charged, a reply that never arrived
    counts: bool = True  # for the circuit breaker
    spoils_key: bool = False  # the key is of no more use
    retry_after: float | None = None  # seconds the server asks to wait


def read_fault(error: SelfeeError, exchange: Exchange) -> Fault:
    """The fault behind an engine's error."""
    message = str(error)[:_LONGEST_MESSAGE]
    if isinstance(error, ContextOverflowError):
        return Fault("context", message, may_pass=False, counts=False)
    kind = error.kind if isinstance(error, EngineError) else "engine"
    passes = kind == "rate" or kind in _PASSING or exchange.status in RETRYABLE_STATUSES
    if kind == "server" and exchange.status in (501, 505):
        passes = False
    return Fault(
        kind,
        message,
        may_pass=passes and kind != "quota",
        is_overload=kind in _OVERLOAD or exchange.status in _OVERLOADED,
        is_uncertain=kind in _UNCERTAIN,
        counts=kind not in _UNCOUNTED,
        spoils_key=kind in ("key", "quota"),
        retry_after=parse_retry_after(exchange.received),
    )
