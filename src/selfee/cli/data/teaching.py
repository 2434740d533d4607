"""Teachers and judges as a user writes them: engines with a journal before them, keys, limits, prices."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfee.cli.settings import api_key, server_proxy
from selfee.errors import UsageError

if TYPE_CHECKING:
    from selfee.engines.paid.journalled import JournalledEngine
    from selfee.engines.paid.opening import PaidServer
    from selfee.engines.paid.prices import Price
    from selfee.journal import Journal

TEACHER_HELP = (
    "Teacher: a model file, a built-in name, a server (https://host/v1#model) or a script (script:replies.jsonl). "
    "Several share the rows; 0.7*TEACHER gives one a weight."
)
_IDENTITY = 1 << 20  # bytes of either end of a model file that tell it from others


@dataclass(frozen=True)
class Pacing:
    """How servers are asked: how fast, how dear, how patiently."""

    rpm: float | None = None  # Requests a minute, of each key
    tpm: float | None = None  # Tokens a minute, of each key, question and reply together
    concurrency: int = 64  # Requests at a time at most; how many it takes is found out
    max_cost: float | None = None  # Stop before more than so many dollars are spent, earlier runs included
    price_in: float | None = None  # Dollars for a million tokens of questions, where the price list does not know it
    price_out: float | None = None  # Dollars for a million tokens of replies
    stream: bool = False  # Hear replies token by token: slower here; for servers or proxies that cut long silences
    timeout: float = 120.0  # With --stream, seconds without a byte after which a request is tried again
    total_timeout: float = 600.0  # Seconds that one request may take
    attempts: int = 6  # How often a request is tried
    any_model: bool = False  # Take replies of whichever model answers

    def __post_init__(self) -> None:
        if (self.price_in is None) != (self.price_out is None):
            raise UsageError("--price-in and --price-out: only one is given; expected both")


def api_keys(environ: Mapping[str, str], address: str, key_file: Path | None) -> tuple[str, ...]:
    """All keys for a server: each line of the file; else SELFEE_API_KEYS, with commas; else what ``api_key`` finds.

    Raises UsageError for a file without a key.
    """
    if key_file is not None:
        try:
            lines = key_file.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not plain text"
            raise UsageError(f"{key_file}: no keys can be read ({reason}); expected one key a line") from error
        listed = [line.strip() for line in lines if line.strip()]
        if not listed or any(" " in key for key in listed):
            raise UsageError(f"{key_file}: {'empty' if not listed else 'more than keys'}; expected one key a line")
        return tuple(dict.fromkeys(listed))
    several = [key.strip() for key in environ.get("SELFEE_API_KEYS", "").split(",") if key.strip()]
    if several:
        return tuple(dict.fromkeys(several))
    key = api_key(environ, address, None)
    return (key,) if key else ()


def is_server(spec: str) -> bool:
    """Whether a teacher is asked over the network."""
    from selfee.weights.fetch.model_names import is_model_url

    return spec.lower().startswith(("http://", "https://")) and not is_model_url(spec)


def paid_server(spec: str, pacing: Pacing, key_file: Path | None) -> PaidServer:
    """The server that ``spec`` names. Raises UsageError where its model or, with --max-cost, its price is unknown."""
    from selfee.engines.paid.breaker import BreakerRules
    from selfee.engines.paid.calling import CallRules
    from selfee.engines.paid.gate import GateRules
    from selfee.engines.paid.limits import RateLimits
    from selfee.engines.paid.opening import PaidServer, find_model
    from selfee.engines.retry import RetryPolicy

    address, _, model = spec.partition("#")
    keys = api_keys(os.environ, address, key_file)
    proxy = server_proxy(address)
    model = model or find_model(address, key=keys[0] if keys else None, proxy=proxy)
    gate = GateRules(
        RateLimits(pacing.rpm, pacing.tpm), pacing.concurrency, 8, BreakerRules(), max_cost=pacing.max_cost
    )
    calls = CallRules(RetryPolicy(attempts=pacing.attempts, max_delay=60.0), any_model=pacing.any_model)
    price = price_of(model, address, pacing)
    return PaidServer(
        address, model, keys, gate, calls, price, pacing.stream, pacing.timeout, pacing.total_timeout, proxy
    )


def price_of(model: str, address: str, pacing: Pacing) -> Price | None:
    """What the user says, else what the price list says, else None."""
    from selfee.engines.paid.prices import Price, find_price
    from selfee.errors import MissingExtraError

    if pacing.price_in is not None and pacing.price_out is not None:
        return Price(pacing.price_in, pacing.price_out)
    try:
        return find_price(model, address)
    except MissingExtraError:
        if pacing.max_cost is not None:
            raise
        return None


def open_teacher(
    spec: str, journal: Journal, pacing: Pacing, *, key_file: Path | None, workers: int, parallel: int
) -> JournalledEngine:
    """The engine that ``spec`` names, with the journal before it. Close it."""
    from selfee.cli.progress import QuietDisplay
    from selfee.cli.settings import model_store
    from selfee.engines.open import open_engine
    from selfee.engines.paid.courier import CourierDesk
    from selfee.engines.paid.journalled import journal_local
    from selfee.engines.paid.opening import open_paid

    if is_server(spec):
        server = paid_server(spec, pacing, key_file)
        return open_paid(server, journal, desk=CourierDesk(server, journal, workers))
    if not spec.startswith("script:"):
        spec = str(model_store(os.environ).resolve(spec, QuietDisplay()))
    engine = open_engine(spec, parallel=parallel)
    return journal_local(engine, journal, model=local_identity(spec), owns=True)


def local_identity(spec: str) -> str:
    """What a model file is called in the journal: its name and a hash of its size and both ends."""
    if spec.startswith("script:"):
        path = Path(spec.removeprefix("script:"))
        return f"script@{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    path = Path(spec)
    if not path.is_file():
        return path.name
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_IDENTITY))
        file.seek(max(0, size - _IDENTITY))
        digest.update(file.read(_IDENTITY))
    return f"{path.name}@{digest.hexdigest()[:12]}"


def workers_for(specs: Sequence[str], pacing: Pacing, parallel: int) -> int:
    """Threads that make chains: as many as requests may be under way."""
    servers = sum(1 for spec in specs if is_server(spec))
    return max(1, servers * pacing.concurrency + (len(specs) - servers) * parallel)
