"""Make one call to a server, as often as it takes, and bring home a complete reply or the reason why there is none."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from selfee.engines.base import ChatRequest, Chunk, Engine, Request, TokenLogprob, Usage, chat_of
from selfee.engines.connection import Exchange
from selfee.engines.paid.faults import Fault, read_fault
from selfee.engines.paid.gate import Gate, Pass
from selfee.engines.paid.meter import Meter
from selfee.engines.paid.prices import Price, estimate_prompt, estimate_tokens
from selfee.engines.paid.reply import Reply
from selfee.engines.remote import RemoteEngine
from selfee.engines.retry import RetryPolicy
from selfee.errors import ContextOverflowError, EngineError, SelfeeError, UsageError

_FIRST_GUESS = 200  # tokens of a reply, until some were seen
_LEARNING = 0.05
_MOST_CHARACTERS = 24  # of one token, on average over a reply, beyond which a stream counts as endless
_NO_LIMIT = 32_768  # tokens that a request without a limit may bring


@dataclass(frozen=True)
class CallRules:
    """How often to try, and what counts as a reply."""

    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(attempts=6, first_delay=0.5, max_delay=60.0))
    rate_patience: float = 900.0  # seconds to go on after the server's "too many requests" before giving up
    any_model: bool = False  # take replies of whichever model answers


class Caller(Protocol):
    """Brings the reply to a request."""

    def call(self, request: Request | ChatRequest, name: str, failures: int = 0) -> Reply:
        """The complete reply. ``name`` is the call's own, ``failures`` how often it certainly failed before.

        Raises CallFailedError, ContextOverflowError, or StoppedError if it was not made.
        """
        ...


class CallFailedError(EngineError):
    """A call brought no reply, for good; ``fault`` is what its last attempt failed with."""

    def __init__(self, fault: Fault, attempts: int) -> None:
        tried = f"; gave up after {attempts} attempts" if attempts > 1 else ""
        super().__init__(f"{fault.message}{tried}", retryable=fault.may_pass, kind=fault.kind)
        self.fault = fault
        self.attempts = attempts


class EngineCaller:
    """Calls an engine of this machine, or a script: nothing is paid, nothing is limited."""

    def __init__(self, engine: object, meter: Meter) -> None:
        self._engine = engine
        self._meter = meter

    def call(self, request: Request | ChatRequest, name: str, failures: int = 0) -> Reply:
        """See ``Caller.call``."""
        started = time.monotonic()
        try:
            text, last = read_whole(open_stream(self._engine, request), request)
        except (ContextOverflowError, UsageError):
            raise
        except SelfeeError as error:
            fault = read_fault(error, Exchange())
            self._meter.failed(fault)
            raise CallFailedError(fault, 1) from error
        seconds = time.monotonic() - started
        assert last.finish_reason is not None, "read_whole sees to it"
        model = str(getattr(self._engine, "name", ""))
        return Reply(
            text, last.finish_reason, last.stop, last.usage, False, model, seconds, logprobs=tuple(last.logprobs)
        )


class RemoteCaller:
    """Calls a server through one engine for each key, in the order and at the pace that ``gate`` allows.

    The engines must not retry by themselves (``RetryPolicy(attempts=1)``): each attempt is to be counted.
    """

    def __init__(
        self,
        engines: Sequence[RemoteEngine],
        gate: Gate,
        meter: Meter,
        rules: CallRules | None = None,
        price: Price | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._engines = tuple(engines)
        self._gate = gate
        self._meter = meter
        self._rules = rules or CallRules()
        self._price = price
        self._uniform = uniform
        self._usual = float(_FIRST_GUESS)  # tokens of a reply
        self._prompt_factor = 1.0  # tokens that the server counts, for each that we reckon

    def call(self, request: Request | ChatRequest, name: str, failures: int = 0) -> Reply:
        """See ``Caller.call``."""
        started, attempts, failed = time.monotonic(), 0, 0
        while True:
            tokens = self._prompt_factor * estimate_prompt(request)
            expected = Usage(int(tokens), 0, int(self._expected(request)), 0.0, 0.0)
            entry = self._gate.enter(tokens + expected.completion_tokens, self._cost(expected) or 0.0)
            attempts += 1
            # A server that knows this header makes, and charges, one reply for each of its values. A new value is
            # needed after a certain failure, which such a server would repeat.
            exchange = Exchange({"idempotency-key": f"selfee-{name[:48]}-{failures}"})
            try:
                reply = self._attempt(request, exchange, entry, attempts)
            except SelfeeError as error:
                fault = read_fault(error, exchange)
                self._gate.failed(entry, fault, exchange.received)
                self._meter.failed(fault)
                failed += not (fault.spoils_key or fault.kind == "rate")
                failures += not fault.is_uncertain
                if isinstance(error, ContextOverflowError | UsageError):
                    raise
                self._give_up_or_wait(fault, attempts, failed, time.monotonic() - started, error)
            except BaseException:
                self._gate.left(entry)
                raise
            else:
                return reply

    def _give_up_or_wait(self, fault: Fault, attempts: int, failed: int, waited: float, error: SelfeeError) -> None:
        retry = self._rules.retry
        if fault.spoils_key:  # another key may do; without one, the gate is closed
            return
        if fault.kind == "rate":
            if waited < self._rules.rate_patience:
                # Those that were turned away together must not come back together. The key's pause is the gate's.
                delay = retry.delay(min(attempts, 6), None, self._uniform) if fault.retry_after is None else 0.0
                self._gate.sleep(delay)
                return
        elif fault.may_pass and failed < retry.attempts:
            self._gate.sleep(retry.delay(failed, fault.retry_after, self._uniform))
            return
        raise CallFailedError(fault, attempts) from error

    def _attempt(self, request: Request | ChatRequest, exchange: Exchange, entry: Pass, attempts: int) -> Reply:
        engine = self._engines[entry.key]
        started = time.monotonic()
        text, last = read_whole(engine.stream_exchange(request, exchange), request)
        seconds = time.monotonic() - started
        asked = engine.find_model()
        if not self._rules.any_model and not is_model(asked, exchange.model):
            raise EngineError(
                f"{engine.name}: '{exchange.model}' answered; expected '{asked}'; check the server, or allow any model",
                kind="model",
            )
        assert last.finish_reason is not None, "read_whole sees to it"
        usage, is_estimated = last.usage, last.usage is None
        if usage is None:
            usage = Usage(estimate_prompt(request), 0, estimate_tokens(text), 0.0, seconds, request.params.seed)
        cost = self._cost(usage)
        self._gate.succeeded(entry, usage.prompt_tokens + usage.completion_tokens, cost or 0.0, exchange.received)
        self._learn(request, usage)
        return Reply(
            text,
            last.finish_reason,
            last.stop,
            usage,
            is_estimated,
            exchange.model or asked,
            seconds,
            attempts,
            cost,
            tuple(last.logprobs),
        )

    def _cost(self, usage: Usage) -> float | None:
        return None if self._price is None else self._price.of(usage)

    def _expected(self, request: Request | ChatRequest) -> float:
        return self._usual if request.max_tokens is None else min(self._usual, request.max_tokens)

    def _learn(self, request: Request | ChatRequest, usage: Usage) -> None:
        self._usual += _LEARNING * (usage.completion_tokens - self._usual)
        factor = usage.prompt_tokens / max(1, estimate_prompt(request))
        self._prompt_factor += _LEARNING * (min(8.0, max(0.1, factor)) - self._prompt_factor)


def open_stream(engine: object, request: Request | ChatRequest) -> Iterator[Chunk]:
    """The stream of a request. Raises UsageError for an engine that cannot."""
    if isinstance(request, ChatRequest):
        chat = chat_of(engine)
        if chat is None:
            raise UsageError(f"{getattr(engine, 'name', 'engine')}: cannot chat; expected a chat model")
        return chat.stream_chat(request)
    if not isinstance(engine, Engine):
        raise UsageError(f"{getattr(engine, 'name', 'engine')}: only chats; expected an engine that completes text")
    return engine.stream(request)


def read_whole(chunks: Iterator[Chunk], request: Request | ChatRequest) -> tuple[str, Chunk]:
    """A stream's whole text, and its last chunk with all log-probabilities. Raises EngineError if it has no end."""
    limit = _NO_LIMIT if request.max_tokens is None else request.max_tokens
    parts: list[str] = []
    logprobs: list[TokenLogprob] = []
    characters = 0
    try:
        for chunk in chunks:
            parts.append(chunk.text)
            logprobs.extend(chunk.logprobs)
            characters += len(chunk.text)
            if chunk.finish_reason is not None:
                last = Chunk("", chunk.finish_reason, chunk.usage, chunk.stop, tuple(logprobs))
                return "".join(parts), last
            if characters > _MOST_CHARACTERS * (limit + 64) or len(parts) > 16 * (limit + 64):
                raise EngineError(
                    f"engine: {characters} characters came and no end; expected at most {limit} tokens", kind="endless"
                )
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    raise EngineError("engine: a stream ended without a finish reason", retryable=True, kind="cut")


def is_model(asked: str, answered: str) -> bool:
    """Whether the name that a server gives is the model asked for: the same, a dated version of it, or its path."""
    asked, answered = asked.lower(), answered.lower()
    if not answered or asked == answered:
        return True
    if asked.rsplit("/", 1)[-1] == answered.rsplit("/", 1)[-1]:
        return True
    return re.fullmatch(re.escape(asked) + r"[-@:](\d[\d-]*|latest)", answered) is not None
