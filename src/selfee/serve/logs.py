"""Log lines for people or for programs: what was asked for, how it went, how long it took, and never what was said."""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Literal, TextIO

LogForm = Literal["text", "json"]


class _Formatter(logging.Formatter):
    def __init__(self, form: LogForm) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        facts: dict[str, Any] = getattr(record, "facts", {})
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created))
        if self._form == "json":
            head = {"time": round(record.created, 3), "level": record.levelname.lower(), "event": record.getMessage()}
            return json.dumps(head | facts, ensure_ascii=True)
        told = " ".join(f"{name}={_plain(value)}" for name, value in facts.items() if value not in ("", None))
        return f"{moment} {record.getMessage()} {told}".rstrip()


def _plain(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return "".join(character if character.isprintable() and character != " " else "?" for character in text)


def log_to(stream: TextIO, form: LogForm, *, requests: bool) -> None:
    """Write log lines to a stream; without ``requests``, only what went wrong."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter(form))
    logger = logging.getLogger("selfee.serve")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if requests else logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        other = logging.getLogger(name)
        other.handlers, other.propagate = [handler], False
        other.setLevel(logging.CRITICAL)
