"""Giving up a request from another thread: while its prompt is read, and between any two tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from selfee.engines.base import (
    ChatEngine,
    ChatRequest,
    Chunk,
    CountingEngine,
    Engine,
    FinishReason,
    ProbingEngine,
    Request,
    ScoringEngine,
)

R = TypeVar("R", Request, ChatRequest)


class Cancellation:
    """Set once, by anybody; whoever computes for the request hears of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._listeners: list[Callable[[], None]] = []

    @property
    def is_set(self) -> bool:
        """Whether the request is given up."""
        return self._is_set

    def set(self) -> None:
        """Give the request up."""
        with self._lock:
            self._is_set = True
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    @contextmanager
    def heard_by(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call ``listener`` when it is set, or at once if it is, for the time of a ``with`` block."""
        with self._lock:
            self._listeners.append(listener)
            is_set = self._is_set
        if is_set:
            listener()
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)


def cancellable(engine: object, cancellation: Cancellation, scope: str = "", *, logprobs: bool = False) -> Any:
    """The engine, with every stream ending as CANCELLED soon after ``cancellation`` is set.

    It can what the engine can, and nothing else. ``scope`` is that of all its requests; ``logprobs`` has each tell the
    log-probabilities of its tokens.
    """
    able = tuple(mixin for protocol, mixin in _ABILITIES if isinstance(engine, protocol))
    kind = type("CancellableEngine", (*able, _Cancellable), {})
    return kind(engine, cancellation, scope, logprobs)


class _Cancellable:
    def __init__(self, engine: Any, cancellation: Cancellation, scope: str, logprobs: bool) -> None:
        self._engine = engine
        self._cancellation = cancellation
        self._scope = scope
        self._logprobs = logprobs
        self.name = str(getattr(engine, "name", type(engine).__name__))
        self.context_length: int | None = getattr(engine, "context_length", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def _told(self, request: R) -> R:
        logprobs = 0 if self._logprobs and request.logprobs is None else request.logprobs
        return replace(request, cancellation=self._cancellation, scope=self._scope, logprobs=logprobs)

    def _until_cancelled(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        try:
            for chunk in chunks:
                if self._cancellation.is_set and chunk.finish_reason is None:
                    yield Chunk("", FinishReason.CANCELLED)
                    return
                yield chunk
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()


class _Completes(_Cancellable):
    def stream(self, request: Request) -> Iterator[Chunk]:
        return self._until_cancelled(self._engine.stream(self._told(request)))


class _Chats(_Cancellable):
    def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
        return self._until_cancelled(self._engine.stream_chat(self._told(request)))


class _Counts(_Cancellable):
    def count_tokens(self, text: str, *, parse_special: bool = False) -> int:
        return int(self._engine.count_tokens(text, parse_special=parse_special))


class _Scores(_Cancellable):
    def score(self, prompt: str, choices: Sequence[str], *, parse_special: bool = False) -> Sequence[float]:
        found: Sequence[float] = self._engine.score(prompt, choices, parse_special=parse_special)
        return found


class _Probes(_Cancellable):
    def probe_scoring(self) -> ScoringEngine | None:
        scorer: ScoringEngine | None = self._engine.probe_scoring()
        return scorer


_ABILITIES: tuple[tuple[Any, type[_Cancellable]], ...] = (
    (Engine, _Completes),
    (ChatEngine, _Chats),
    (CountingEngine, _Counts),
    (ScoringEngine, _Scores),
    (ProbingEngine, _Probes),
)
