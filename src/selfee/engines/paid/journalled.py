"""An engine whose every reply is in the journal before anybody reads it: asked again, it costs nothing.

Whoever makes chains, answers or judgments through it needs no resuming of his own: the whole work is done again, and
what was answered before comes from the journal, byte for byte, up to the first question that was never answered.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from selfee.engines.base import ChatRequest, Chunk, CountingEngine, Request, scoring_of
from selfee.engines.paid.calling import Caller, CallFailedError, EngineCaller
from selfee.engines.paid.gate import Gate
from selfee.engines.paid.meter import Meter, Reading
from selfee.engines.paid.reply import Reply, asked_of, reply_from_json, reply_to_json, request_of
from selfee.errors import ContextOverflowError, EngineError, StoppedError, UsageError
from selfee.journal import Journal, key_of

_FIRST_LOOK = 0.02  # seconds between looks whether another process has got its reply
_LONGEST_LOOK = 0.5


class Desk(Protocol):
    """Where replies come from: the journal, or a call that is journalled first."""

    def obtain(self, key: str, asked: Mapping[str, Any]) -> Reply:
        """The reply to what was asked. Raises CallFailedError, ContextOverflowError, StoppedError."""
        ...

    def read(self) -> Reading:
        """The numbers of this run."""
        ...

    def stop(self, why: str) -> None:
        """Make no more calls: ``obtain`` raises StoppedError for what the journal does not have."""
        ...

    def close(self) -> None:
        """Release what it holds; not the journal."""
        ...


class LocalDesk:
    """Makes the calls in this process."""

    def __init__(
        self, journal: Journal, caller: Caller, meter: Meter, gate: Gate | None = None, owned: Sequence[Any] = ()
    ) -> None:
        self._journal = journal
        self._caller = caller
        self._meter = meter
        self._gate = gate
        self._owned = tuple(owned)  # engines to close with it
        self._stopped: str | None = None

    def obtain(self, key: str, asked: Mapping[str, Any]) -> Reply:
        """See ``Desk.obtain``: of all threads and processes with this journal, one makes the call."""
        if (stored := self._journal.get(key)) is not None:
            self._meter.replayed()
            return open_reply(stored)
        look = _FIRST_LOOK
        while True:
            if self._stopped is not None:
                raise StoppedError(self._stopped)
            claim = self._journal.claim(key, asked)
            if claim.reply is not None:
                self._meter.replayed()
                return open_reply(claim.reply)
            if claim.is_mine:
                break
            time.sleep(look)
            look = min(_LONGEST_LOOK, 2 * look)
        if claim.was_orphaned:
            self._meter.orphaned()
        return self._call(key, asked, claim.failures)

    def read(self) -> Reading:
        """See ``Desk.read``."""
        if self._gate is None:
            return self._meter.read()
        gate = self._gate
        return self._meter.read(in_flight=gate.in_flight, limit=gate.limit, waits_for=gate.waits_for, spent=gate.spent)

    def stop(self, why: str) -> None:
        """See ``Desk.stop``."""
        self._stopped = self._stopped or why
        if self._gate is not None:
            self._gate.stop(why)

    def close(self) -> None:
        """Close the engines that it owns."""
        for engine in self._owned:
            engine.close()

    def _call(self, key: str, asked: Mapping[str, Any], failures: int) -> Reply:
        try:
            reply = self._caller.call(request_of(asked), key, failures)
        except ContextOverflowError as error:  # as sure as a reply: asked again, the server would say the same
            self._journal.put(key, asked, {"overflow": str(error)})
            raise
        except CallFailedError as error:
            fault = error.fault
            self._journal.fail(key, {"kind": fault.kind, "message": fault.message, "attempts": error.attempts})
            raise
        except BaseException:
            self._journal.release(key)
            raise
        self._journal.put(key, asked, reply_to_json(reply), cost=reply.cost)
        self._meter.paid(reply)
        return reply


def open_reply(stored: Any) -> Reply:
    """What the journal stored under a key. Raises ContextOverflowError where that was the answer."""
    if isinstance(stored, dict) and "overflow" in stored:
        raise ContextOverflowError(stored["overflow"])
    return reply_from_json(stored)


class WaitsForBatchError(StoppedError):
    """The reply will come with a batch: nothing is wrong, and nothing else has to stop."""


@dataclass(frozen=True)
class Call:
    """One question and its reply."""

    key: str
    request: Request | ChatRequest
    reply: Reply


class JournalledEngine:
    """Implements Engine and ChatEngine over a desk. A reply comes as one chunk, when it is complete and stored.

    ``model`` is what the key of each call holds beside the question: the model's name, not its address.
    """

    def __init__(
        self,
        desk: Desk,
        model: str,
        *,
        name: str = "",
        context_length: int | None = None,
        supports_chat: bool = True,
        takes_prefix: bool = False,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name or model
        self.model = model
        self.context_length = context_length
        self.supports_chat = supports_chat
        self.desk = desk
        self._takes_prefix = takes_prefix
        self._log: list[Call] | None = None
        for attribute, value in (attributes or {}).items():
            setattr(self, attribute, value)

    def stream(self, request: Request) -> Iterator[Chunk]:
        """See ``Engine.stream``."""
        yield self.obtain(request).chunk

    def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
        """See ``ChatEngine.stream_chat``."""
        if request.prefix and not self._takes_prefix:
            raise UsageError(f"{self.name}: a chat answer with a given beginning is not possible; leave prefix empty")
        yield self.obtain(request).chunk

    def obtain(self, request: Request | ChatRequest) -> Reply:
        """The whole reply, with all that is known about it."""
        asked = asked_of(request, self.model)
        key = key_of(asked)
        reply = self.desk.obtain(key, asked)
        if self._log is not None:
            self._log.append(Call(key, request, reply))
        return reply

    def recorded(self, log: list[Call]) -> JournalledEngine:
        """The same engine for one reader, whose calls are noted in ``log`` with their replies, paid or replayed."""
        engine = copy.copy(self)
        engine._log = log
        return engine

    def read(self) -> Reading:
        """The numbers of this run."""
        return self.desk.read()

    def close(self) -> None:
        """Release what the desk holds; the journal stays open."""
        self.desk.close()

    def __enter__(self) -> JournalledEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class JournalledLocalEngine(JournalledEngine):
    """As above over an engine of this machine: counts tokens, and its scores are in the journal too."""

    def __init__(self, engine: Any, journal: Journal, desk: Desk, model: str, **settings: Any) -> None:
        super().__init__(desk, model, **settings)
        self._engine = engine
        self._journal = journal

    @property
    def supports_scoring(self) -> bool:
        """Whether the engine can score."""
        return bool(getattr(self._engine, "supports_scoring", True)) and hasattr(self._engine, "score")

    def count_tokens(self, text: str, *, parse_special: bool = False) -> int:
        """See ``CountingEngine.count_tokens``."""
        return int(self._engine.count_tokens(text, parse_special=parse_special))

    def score(self, prompt: str, choices: Sequence[str], *, parse_special: bool = False) -> Sequence[float]:
        """See ``ScoringEngine.score``."""
        asked = {"model": self.model, "score": prompt, "choices": list(choices), "parse_special": parse_special}
        key = key_of(asked)
        if (stored := self._journal.get(key)) is not None:
            return [float(value) for value in stored["scores"]]
        scorer = scoring_of(self._engine)
        if scorer is None:
            raise EngineError(f"{self.name}: cannot score; expected an engine that can")
        scores = [float(value) for value in scorer.score(prompt, choices, parse_special=parse_special)]
        self._journal.put(key, asked, {"scores": [value if math.isfinite(value) else str(value) for value in scores]})
        return scores


def journal_local(engine: Any, journal: Journal, *, model: str | None = None, owns: bool = False) -> JournalledEngine:
    """Put a journal before an engine of this machine (a model file, a script). ``model`` names it in the keys;
    ``owns`` says that closing what comes back closes ``engine`` too."""
    meter = Meter()
    desk = LocalDesk(journal, EngineCaller(engine, meter), meter, owned=[engine] if owns else [])
    names = ("num_parameters", "trained_on_chains", "parallel")
    settings: dict[str, Any] = {
        "context_length": getattr(engine, "context_length", None),
        "supports_chat": getattr(engine, "supports_chat", True) and hasattr(engine, "stream_chat"),
        "takes_prefix": True,
        "attributes": {name: getattr(engine, name) for name in names if hasattr(engine, name)},
    }
    model = model or str(getattr(engine, "name", type(engine).__name__))
    if isinstance(engine, CountingEngine):
        return JournalledLocalEngine(engine, journal, desk, model, **settings)
    return JournalledEngine(desk, model, **settings)
