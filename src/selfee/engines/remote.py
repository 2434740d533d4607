"""Any server that speaks OpenAI's completions or chat completions, as vLLM, SGLang and llama.cpp do."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from selfee.engines.base import ChatRequest, Chunk, FinishReason, Request, ScoringEngine, Usage
from selfee.engines.connection import Events, Exchange, Limits, ServerConnection
from selfee.engines.remote_scoring import find_scorer
from selfee.engines.stops import LogprobQueue, StopFilter
from selfee.engines.wire import NOT_FOUND, Piece, SurrogateJoiner, finish_reason, parse_piece, request_body
from selfee.errors import EngineError, UsageError

_COMPLETIONS = "/completions"
_CHAT = "/chat/completions"
_MODELS_SHOWN = 12


class RemoteEngine:
    """Implements Engine and ChatEngine over HTTP; scores where the server can (``base.scoring_of`` finds out).

    ``name`` is ``base_url#model``. Without ``model`` the server's only model is used. Without ``max_tokens`` the
    server's own limit applies (a mere 16 tokens for vLLM's completions): give one. ``Chunk.logprobs`` and
    ``Usage`` are what the server tells (``usage`` is None where it tells nothing, as when a stop string was matched
    here). ``parse_special`` has no effect: servers read special tokens in a prompt their own way.

    Without ``streaming`` a reply is asked for whole, which costs both sides less; nothing is heard until it is there.

    Stop strings are sent, and looked for here too, so that a server which ignores or does not trim them gives the same
    text. A server that stops without naming the string leaves open whether it was one: a completion is then continued
    by a few tokens at temperature 0 to see, and from then on this engine does not send stop strings to that server
    but closes the stream itself. (A chat says STOP with ``stop`` None that one time.)

    A stream that breaks after its first text is continued by sending prompt and delivered text again if
    ``temperature`` is 0 and it is a completion (greedy text depends on nothing else, up to how the server tokenises
    the seam; a ``max_tokens`` left is counted in the events seen); otherwise a retryable EngineError is raised.
    Nothing delivered yet: the request is sent again in any case.

    A request whose ``cancellation`` is set ends at once as CANCELLED: its socket is closed, whatever it waits for.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        limits: Limits | None = None,
        proxy: str | None = None,
        context_length: int | None = None,
        streaming: bool = True,
    ) -> None:
        self._limits = limits or Limits()
        self._server = ServerConnection(base_url, api_key=api_key, limits=self._limits, proxy=proxy)
        self._model = model
        self._names_stops: bool | None = None  # None = not known yet
        self._streaming = streaming
        self._takes_stream_options = streaming
        self._scorer: ScoringEngine | None = None
        self._scorer_known = False
        self._lock = threading.Lock()
        self.context_length = context_length

    def __repr__(self) -> str:
        return f"RemoteEngine({self.name!r})"

    @property
    def name(self) -> str:
        """``base_url#model``."""
        return f"{self._server.base_url}#{self._model or ''}"

    def models(self) -> list[str]:
        """Names of the models the server offers. Raises EngineError if it does not list them."""
        payload = self._server.json("GET", "/models")
        entries = payload.get("data")
        if not isinstance(entries, list):
            raise EngineError(f"{self._server.base_url}/models: no list of models; expected field 'data'; name a model")
        return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]

    def stream(self, request: Request) -> Iterator[Chunk]:
        """See ``Engine.stream``; tokens instead of a text are refused, because servers do not agree on them."""
        if request.tokens is not None:
            raise UsageError(f"{self.name}: a prompt of tokens cannot be sent; expected a text")
        return self._stream(request, _COMPLETIONS)

    def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
        """See ``ChatEngine.stream_chat``; a ``prefix`` is refused, because servers do not agree on one."""
        if request.prefix:
            raise UsageError(f"{self.name}: a chat answer with a given beginning is not possible; leave prefix empty")
        return self._stream(request, _CHAT)

    def stream_exchange(self, request: Request | ChatRequest, exchange: Exchange) -> Iterator[Chunk]:
        """As ``stream`` or ``stream_chat``, with ``exchange``'s headers; tells there what came beside the text."""
        if isinstance(request, ChatRequest) and request.prefix:
            return self.stream_chat(request)
        return self._stream(request, _CHAT if isinstance(request, ChatRequest) else _COMPLETIONS, exchange)

    def probe_scoring(self) -> ScoringEngine | None:
        """See ``ProbingEngine``: one or two requests of one token, the first time. EngineError if not answered."""
        with self._lock:
            if not self._scorer_known:
                self._scorer = find_scorer(self._server, self.find_model())
                self._scorer_known = True
            return self._scorer

    def close(self) -> None:
        """Close every socket; streams still open end with an error."""
        self._server.close()

    def __enter__(self) -> RemoteEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def find_model(self) -> str:
        """The name of the model that is asked: where none was given, the server's only one. Raises UsageError."""
        if self._model is None:
            offered = self.models()
            if len(offered) != 1:
                raise UsageError(
                    f"{self._server.base_url}: offers {_listed(offered)}; expected one to be named; "
                    f"write {self._server.base_url}#MODEL"
                )
            self._model = offered[0]
        return self._model

    def _stream(self, request: Request | ChatRequest, path: str, exchange: Exchange | None = None) -> Iterator[Chunk]:
        exchange, cancellation = exchange or Exchange(), request.cancellation
        if cancellation is None:
            yield from self._attempts(request, path, exchange)
            return
        try:
            with self._server.lines.lend(cancellation) as exchange.line:
                yield from self._attempts(request, path, exchange)
        except EngineError:
            if not cancellation.is_set:
                raise
            yield Chunk("", FinishReason.CANCELLED)  # the error is our own hanging up

    def _attempts(self, request: Request | ChatRequest, path: str, exchange: Exchange) -> Iterator[Chunk]:
        reading = _Reading(request, StopFilter(request.stop), exchange=exchange)
        wait = exchange.line.wait if exchange.line else time.sleep
        retry = self._limits.retry
        for attempt in range(1, retry.attempts + 1):
            events = self._open(reading, path)  # retries on its own; its errors are final
            try:
                yield from self._read(reading, events, path)
            except EngineError as error:
                if not error.retryable or attempt == retry.attempts or not reading.may_go_on():
                    raise
                wait(retry.delay(attempt, None, random.uniform))
            else:
                return

    def _read(self, reading: _Reading, events: Events, path: str) -> Iterator[Chunk]:
        """Read one HTTP stream to its end, delivering on the way; raises EngineError if it has no end."""
        where = f"{self._server.base_url}{path}"
        try:
            for payload in events:
                piece = parse_piece(payload, where)
                if isinstance(model := payload.get("model"), str) and model:
                    reading.exchange.model = model
                if piece.names_stop:
                    self._names_stops = True
                if chunk := reading.take(piece):
                    yield chunk
                if reading.filter.matched is not None:
                    break
        finally:
            events.close()
        if reading.filter.matched is None and reading.last is None:
            raise EngineError(
                f"{where}: the stream ended without saying why; the text is incomplete", retryable=True, kind="cut"
            )
        yield reading.end(*self._ending(reading, path))

    def _open(self, reading: _Reading, path: str) -> Events:
        request = reading.request_left()
        stop = () if self._names_stops is False else request.stop
        reading.sent_stops = bool(stop)
        body = request_body(request, self.find_model(), stop)
        body["stream"] = self._streaming
        if not self._takes_stream_options:
            del body["stream_options"]
        try:
            return self._server.events(path, body, reading.exchange)
        except EngineError as error:
            if self._takes_stream_options and "stream_options" in str(error):
                self._takes_stream_options = False
                return self._open(reading, path)
            if NOT_FOUND in str(error):
                raise self._not_found(error, path) from error
            raise

    def _not_found(self, error: EngineError, path: str) -> EngineError:
        """Tell an unknown model from a route the server does not have."""
        try:
            offered = self.models()
        except EngineError:
            return error
        if self._model not in offered:
            return EngineError(f"{self.name}: the server offers {_listed(offered)}; name one of them after '#'")
        other = "chat completions" if path == _COMPLETIONS else "completions"
        return EngineError(f"{error}; the model exists, so the server may lack this route; try {other}")

    def _ending(self, reading: _Reading, path: str) -> tuple[FinishReason, str | None]:
        if reading.filter.matched is not None:
            return FinishReason.STOP, reading.filter.matched
        last = reading.last
        assert last is not None, "only called for a stream with an end"
        reason = finish_reason(last.finish or "", f"{self._server.base_url}{path}")
        stops = reading.request.stop
        if last.stop in stops:
            return FinishReason.STOP, last.stop
        if reason is not FinishReason.END or last.names_stop or not reading.sent_stops:
            return reason, None
        self._names_stops = False
        if isinstance(reading.request, ChatRequest):
            return FinishReason.STOP, None
        return self._look_ahead(reading)

    def _look_ahead(self, reading: _Reading) -> tuple[FinishReason, str | None]:
        """What would have come next: a stop string, or nothing?"""
        assert isinstance(reading.request, Request), "a chat cannot be continued"
        longest = max(len(stop) for stop in reading.request.stop)
        request = Request(
            reading.request.prompt + reading.text,
            replace(reading.request.params, temperature=0.0),
            max_tokens=min(longest, 32),
        )
        body = request_body(request, self.find_model(), ()) | {"stream": False}
        del body["stream_options"]
        where = f"{self._server.base_url}{_COMPLETIONS}"
        try:
            piece = parse_piece(self._server.json("POST", _COMPLETIONS, body), where)
        except EngineError:
            return FinishReason.STOP, None
        ahead = StopFilter(reading.request.stop)
        begun = ahead.feed(piece.text)
        if ahead.matched is not None and not begun:
            return FinishReason.STOP, ahead.matched
        return FinishReason.END, None


@dataclass
class _Reading:
    """What has been read of one request's text, over all its HTTP streams."""

    request: Request | ChatRequest
    filter: StopFilter
    exchange: Exchange
    text: str = ""  # received, also what is withheld
    events: int = 0  # that carried text
    last: Piece | None = None  # the one with the finish reason
    usage: Usage | None = None
    sent_stops: bool = False
    resumed: bool = False
    started: float = field(default_factory=time.monotonic)
    first_text: float | None = None
    joiner: SurrogateJoiner = field(default_factory=SurrogateJoiner)
    logprobs: LogprobQueue = field(default_factory=LogprobQueue)

    def take(self, piece: Piece) -> Chunk | None:
        """Note a piece; the chunk to deliver, if any of its text is certain."""
        if piece.finish is not None:
            self.last = piece
        if piece.usage is not None:
            self.usage = self._convert(piece.usage)
        position = self.filter.received
        for logprob in piece.logprobs:
            self.logprobs.add(position, logprob)
            position += len(logprob.text)
        return self._deliver(self.joiner.feed(piece.text))

    def _deliver(self, text: str) -> Chunk | None:
        if not text:
            return None
        if self.first_text is None:
            self.first_text = time.monotonic()
        self.events += 1
        self.text += text
        safe = self.filter.feed(text)
        return Chunk(safe, logprobs=self.logprobs.take(self.filter.emitted)) if safe else None

    def end(self, reason: FinishReason, stop: str | None) -> Chunk:
        """The last chunk, with everything withheld."""
        rest = self.filter.feed(self.joiner.finish()) + self.filter.finish()
        if self.filter.matched is not None:
            reason, stop = FinishReason.STOP, self.filter.matched
        past_end = 0 if reason is FinishReason.STOP else 1  # tokens without text belong to the text unless a stop's
        told = self.logprobs.take(self.filter.emitted + past_end)
        return Chunk(rest, reason, None if self.resumed else self.usage, stop, told)

    def may_go_on(self) -> bool:
        """Prepare for another HTTP stream; False if the text could not be continued faithfully."""
        self.joiner = SurrogateJoiner()
        self.last = None
        if not self.text:
            return True
        self.resumed = True
        return isinstance(self.request, Request) and self.request.params.temperature == 0.0

    def request_left(self) -> Request | ChatRequest:
        """The request for what is still missing."""
        if not self.text or isinstance(self.request, ChatRequest):
            return self.request
        limit = self.request.max_tokens
        left = None if limit is None else max(1, limit - self.events)
        return replace(self.request, prompt=self.request.prompt + self.text, max_tokens=left)

    def _convert(self, usage: Any) -> Usage:
        now = time.monotonic()
        first = self.first_text or now
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else 0
        return Usage(
            prompt_tokens=_count(usage.get("prompt_tokens")),
            cached_tokens=_count(cached),
            completion_tokens=_count(usage.get("completion_tokens")),
            prompt_seconds=first - self.started,
            completion_seconds=now - first,
            seed=self.request.params.seed,
        )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _listed(models: list[str]) -> str:
    if not models:
        return "no models"
    more = f" and {len(models) - _MODELS_SHOWN} more" if len(models) > _MODELS_SHOWN else ""
    return "the models " + ", ".join(models[:_MODELS_SHOWN]) + more
