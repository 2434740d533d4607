"""Open a teacher or a judge with a journal before it, by what a user writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from selfee.engines.connection import Limits, Timeouts
from selfee.engines.paid.calling import CallRules, RemoteCaller
from selfee.engines.paid.gate import Gate, GateRules
from selfee.engines.paid.journalled import Desk, JournalledEngine, LocalDesk
from selfee.engines.paid.meter import Meter
from selfee.engines.paid.prices import Price
from selfee.engines.remote import RemoteEngine
from selfee.engines.retry import RetryPolicy
from selfee.errors import UsageError
from selfee.journal import Journal

STALL = 120.0
TOTAL = 600.0
"""Seconds without a byte, and for a whole attempt, after which a call is tried again."""


@dataclass(frozen=True)
class PaidServer:
    """A server whose replies cost money, and how to ask it. ``repr`` shows no keys."""

    address: str  # https://host/v1
    model: str
    keys: tuple[str, ...] = field(default=(), repr=False)
    gate: GateRules = field(default_factory=GateRules)
    calls: CallRules = field(default_factory=CallRules)
    price: Price | None = None
    streaming: bool = False  # hear each token; costs more time here, and is heard of sooner when a server hangs
    stall: float = STALL
    total: float = TOTAL
    proxy: str | None = None
    context_length: int | None = None

    def __post_init__(self) -> None:
        if self.gate.max_cost is not None and self.price is None:
            raise UsageError(
                f"max_cost: the price of '{self.model}' is not known, so the limit could not be kept; give its price "
                "for a million tokens (--price-in, --price-out)"
            )

    @property
    def name(self) -> str:
        """``address#model``."""
        return f"{self.address}#{self.model}"


def open_remotes(server: PaidServer) -> list[RemoteEngine]:
    """An engine for each key (one without, if there is none). They do not retry by themselves."""
    stall = server.stall if server.streaming else server.total  # a whole reply comes without a sign before
    limits = Limits(Timeouts(stall=stall, total=server.total), RetryPolicy(attempts=1), 1 << 24)
    keys: Sequence[str | None] = server.keys or (None,)
    return [
        RemoteEngine(
            server.address, server.model, api_key=key, limits=limits, proxy=server.proxy, streaming=server.streaming
        )
        for key in keys
    ]


class RemoteDesk(LocalDesk):
    """Makes the calls to a server in this process, and closes its sockets."""

    def __init__(self, server: PaidServer, journal: Journal) -> None:
        engines = open_remotes(server)
        meter = Meter()
        gate = Gate(server.gate, [f"key {n + 1}" for n in range(len(engines))], spent=journal.spent())
        super().__init__(journal, RemoteCaller(engines, gate, meter, server.calls, server.price), meter, gate, engines)


def find_model(address: str, *, key: str | None = None, proxy: str | None = None) -> str:
    """The only model of a server. Raises UsageError if it offers none or several, EngineError if it does not say."""
    with RemoteEngine(address, None, api_key=key, proxy=proxy) as engine:
        return engine.find_model()


def open_paid(server: PaidServer, journal: Journal, *, desk: Desk | None = None) -> JournalledEngine:
    """An engine over a server, with the journal before it. Close it; the journal stays open."""
    return JournalledEngine(
        desk or RemoteDesk(server, journal), server.model, name=server.name, context_length=server.context_length
    )


def with_price(server: PaidServer, price: Price | None) -> PaidServer:
    """The same server at this price."""
    return replace(server, price=price)
