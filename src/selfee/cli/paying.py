"""Engines for long work: a model file here, or a server whose replies cost money and are journalled one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfee.cli.options import FlagGroup
from selfee.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from selfee.engines.paid.journalled import JournalledEngine
    from selfee.engines.paid.meter import Reading
    from selfee.engines.paid.prices import Price
    from selfee.journal import Journal

SERVER_PARALLEL = 8
"""Requests to a server at a time, unless --parallel says otherwise."""


@dataclass(frozen=True)
class Paying:
    """How a server is asked."""

    requests_per_minute: float | None = None  # to a server: send at most so many requests a minute
    tokens_per_minute: float | None = None  # to a server: read and write at most so many tokens a minute
    max_cost: float | None = None  # to a server: spend at most so many US dollars, earlier runs in this folder included
    price_in: float | None = None  # US dollars for a million tokens read; by default the list price, where known
    price_out: float | None = None  # US dollars for a million tokens written

    def __post_init__(self) -> None:
        if (self.price_in is None) is not (self.price_out is None):
            raise UsageError("--price-in and --price-out: one is given; expected both, or none for the list price")


PAYING = FlagGroup(Paying)


def is_server(model: str) -> bool:
    """Whether a user means a server and not a file to fetch."""
    from selfee.weights.fetch.model_names import is_model_url

    return model.lower().startswith(("http://", "https://")) and not is_model_url(model)


def find_price(model: str, paying: Paying) -> Price | None:
    """What a server's tokens cost: as given, else as listed; None if nobody knows."""
    from selfee.engines.paid import prices

    if paying.price_in is not None and paying.price_out is not None:
        return prices.Price(paying.price_in, paying.price_out)
    address, _, name = model.partition("#")
    try:
        return prices.find_price(name, address)
    except MissingExtraError:
        return None


@contextmanager
def open_server(
    model: str,
    paying: Paying,
    journal: Journal,
    *,
    parallel: int,
    api_key_file: Path | None = None,
    timeout: float | None = None,
    context: int | None = None,
) -> Iterator[JournalledEngine]:
    """A server with the journal before it, asked by a process that outlives a kill: no reply is lost or paid twice."""
    from selfee.cli.settings import api_key, server_proxy
    from selfee.engines.connection import check_base_url
    from selfee.engines.paid.courier import CourierDesk
    from selfee.engines.paid.gate import GateRules
    from selfee.engines.paid.limits import RateLimits
    from selfee.engines.paid.opening import STALL, PaidServer, find_model, open_paid

    address, _, name = model.partition("#")
    address = check_base_url(address)
    key, proxy = api_key(os.environ, model, api_key_file), server_proxy(model)
    name = name or find_model(address, key=key, proxy=proxy)
    rates = RateLimits(paying.requests_per_minute, paying.tokens_per_minute)
    server = PaidServer(
        address,
        name,
        (key,) if key else (),
        GateRules(rates, concurrency=parallel, start_concurrency=parallel, max_cost=paying.max_cost),
        price=find_price(f"{address}#{name}", paying),
        stall=timeout or STALL,
        proxy=proxy,
        context_length=context,
    )
    desk = CourierDesk(server, journal, parallel)
    with open_paid(server, journal, desk=desk) as engine:
        yield engine


def cost_text(reading: Reading) -> str:
    """What a run took and cost, in words; "" if nothing was asked."""
    if not reading.paid and not reading.replayed:
        return ""
    money = f", ${reading.cost:.4f} (${reading.spent:.4f} with earlier runs)" if reading.spent else ""
    again = f", {reading.replayed} replies from the journal" if reading.replayed else ""
    tokens = f"{reading.prompt_tokens:,} tokens read, {reading.completion_tokens:,} written"
    return f"{reading.paid} requests, {tokens}{money}{again}"


Note = Callable[[str], None]


def reading_of(engine: Any) -> Reading | None:
    """The numbers of a journalled engine."""
    read = getattr(engine, "read", None)
    return read() if callable(read) else None
