"""FastChat's wire protocol, as of 0.2.36: JSON objects ended by a zero byte, each with the whole text so far.

Learned from the protocol as it is spoken; see ``docs/guides/cluster.md``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2

from selfee.engines.base import Chunk, FinishReason, Request, Usage
from selfee.engines.connection import trusted_certificates
from selfee.engines.stops import StopFilter
from selfee.errors import ContextOverflowError, EngineError, EngineTimeoutError
from selfee.serve.fleet.settings import Patience

END = b"\0"

OK = 0
INVALID_MODEL = 40301
OUT_OF_RANGE = 40302
CONTEXT_OVERFLOW = 40303
OVERLOADED = 42903
INTERNAL_ERROR = 50001
NO_WORKER = 50005
WORKER_TIMEOUT = 50006

_LARGEST_LINE = 1 << 24
_DEFAULT_TOKENS = 256


def line(text: str, code: int = OK, **more: Any) -> bytes:
    """One object of a stream."""
    return json.dumps({"text": text, "error_code": code, **more}).encode() + END


def read_lines(pieces: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """The objects of a stream, however its bytes are cut. Raises EngineError for anything else."""
    held = b""
    for piece in pieces:
        held += piece
        if len(held) > _LARGEST_LINE:
            raise EngineError("FastChat worker: one object is too long; expected less")
        *whole, held = held.split(END)
        for row in whole:
            if row.strip():
                yield _object(row)
    if held.strip():
        yield _object(held)


def _object(row: bytes) -> dict[str, Any]:
    try:
        value = json.loads(row)
    except ValueError as error:
        raise EngineError("FastChat worker: sent what is no JSON; expected objects ended by zero bytes") from error
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise EngineError("FastChat worker: sent an object without a text; expected text and error_code")
    return value


class FastChatEngine:
    """Implements Engine over a worker that speaks FastChat's protocol.

    Its streams tell no reason for a stop string, so stop strings are looked for here. ``frequency_penalty``, ``seed``
    and ``min_p`` are sent, and have an effect where the worker knows them.
    """

    context_length: int | None = None

    def __init__(self, address: str, model: str, *, patience: Patience | None = None) -> None:
        self.name = f"{address}#{model}"
        self._address = address
        self._model = model
        patience = patience or Patience()
        timeout = httpx2.Timeout(max(100.0, patience.stall), connect=patience.connect)
        trusted = trusted_certificates()
        self._client = httpx2.Client(timeout=timeout, follow_redirects=False, trust_env=False, verify=trusted)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every socket."""
        self._client.close()

    def stream(self, request: Request) -> Iterator[Chunk]:
        """See ``Engine.stream``."""
        filter_, told, usage, reason = StopFilter(request.stop), "", None, FinishReason.END
        try:
            with self._client.stream(
                "POST", f"{self._address}/worker_generate_stream", json=self._body(request)
            ) as answer:
                if answer.status_code != 200:
                    raise EngineError(f"{self.name}: answers with status {answer.status_code}", retryable=True)
                for row in read_lines(answer.iter_bytes()):
                    text = self._text(row, told)
                    usage, reason = row.get("usage") or usage, _reason(row, reason)
                    if safe := filter_.feed(text[len(told) :]):
                        yield Chunk(safe)
                    told = text
                    if filter_.matched is not None:
                        break
        except httpx2.TimeoutException as error:
            raise EngineTimeoutError(f"{self.name}: no word for a long time; is the worker alive?") from error
        except httpx2.HTTPError as error:
            raise EngineError(f"{self.name}: the stream broke off ({error})", retryable=True) from error
        rest = filter_.finish()
        if filter_.matched is not None:
            reason = FinishReason.STOP
        yield Chunk(rest, reason, _usage(usage, request), filter_.matched)

    def _text(self, row: Mapping[str, Any], told: str) -> str:
        text: str = row["text"]
        code = row.get("error_code", OK)
        if code == CONTEXT_OVERFLOW:
            raise ContextOverflowError(f"{self.name}: {text[:200]}")
        if code != OK:
            raise EngineError(f"{self.name}: error {code}: {text[:200]}", retryable=code != INVALID_MODEL)
        if not text.startswith(told):
            # A character was incomplete, or blanks at the end were taken back: wait until it goes on.
            return told if told.startswith(text.rstrip("\ufffd")) else _changed(self.name)
        return text.rstrip("\ufffd")

    def _body(self, request: Request) -> dict[str, Any]:
        params = request.params
        return {
            "model": self._model,
            "prompt": request.prompt,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k or -1,
            "repetition_penalty": params.repeat_penalty,
            "presence_penalty": params.presence_penalty,
            "frequency_penalty": params.frequency_penalty,
            "min_p": params.min_p,
            "seed": params.seed,
            "max_new_tokens": request.max_tokens or _DEFAULT_TOKENS,
            "stop": list(request.stop),
            "stop_token_ids": [],
            "echo": False,
        }


def _changed(name: str) -> str:
    raise EngineError(f"{name}: took back text that it had sent; expected text that only grows")


def _reason(row: Mapping[str, Any], before: FinishReason) -> FinishReason:
    return {"stop": FinishReason.END, "length": FinishReason.LENGTH}.get(str(row.get("finish_reason")), before)


def _usage(told: Any, request: Request) -> Usage | None:
    if not isinstance(told, Mapping):
        return None
    prompt, completion = told.get("prompt_tokens"), told.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    return Usage(prompt, 0, completion, 0.0, 0.0, request.params.seed)
