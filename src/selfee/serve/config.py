"""How a server behaves: everything that can be set, in one place, handed down and never changed."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.chain.run import Mode
from selfee.engines.base import SamplingParams
from selfee.errors import UsageError

_POLICY, _PARAMS, _BUDGETS = RevisionPolicy(), SamplingParams(), Budgets()


@dataclass(frozen=True)
class Defaults:
    """What holds where a request does not say otherwise."""

    policy: RevisionPolicy = _POLICY
    params: SamplingParams = _PARAMS
    budgets: Budgets = _BUDGETS
    mode: Mode = "auto"
    prompts: str | None = None


@dataclass(frozen=True)
class Limits:
    """What one client, and all of them together, may take."""

    queue: int = 64  # requests that wait for their turn; further ones are told to come again
    per_key: int = 32  # requests of one key (or, without keys, one address) at a time, running and waiting
    choices: int = 8  # answers that one request may ask for
    body: int = 4 << 20  # bytes of a request's body
    header_bytes: int = 32 << 10  # of a request's line and headers together
    header_count: int = 100
    header_seconds: float = 10.0  # in which a request's headers must have come
    body_seconds: float = 30.0  # in which its body must have come
    send_seconds: float = 60.0  # in which a reader must have taken what was sent
    heartbeat_seconds: float = 10.0  # of silence after which a stream is told that it goes on
    grace_seconds: float = 20.0  # that a native chain goes on when nobody listens
    kept_seconds: float = 600.0  # that a native chain is remembered after its end
    kept_chains: int = 256
    event_bytes: int = 4 << 20  # of a native chain's events
    drain_seconds: float = 30.0  # that running requests may take when the server is told to end


@dataclass(frozen=True)
class Access:
    """Who may ask."""

    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()  # names under which the server may be called, beside its own
    origins: tuple[str, ...] = ()  # web pages that may call it, beside its own; "*" = all

    def __post_init__(self) -> None:
        for key in self.keys:
            if len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key:
                raise UsageError(
                    "keys: one is shorter than 8 characters, or holds blanks or other than ASCII; expected a random "
                    "text; make one with: python -c 'import secrets; print(secrets.token_urlsafe(24))'"
                )


@dataclass(frozen=True)
class Tls:
    """Certificate and key for https."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class ServerConfig:
    """Where and how to serve."""

    host: str = "127.0.0.1"
    port: int = 8080
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    tls: Tls | None = None
    strict: bool = False  # refuse fields that nobody knows, instead of telling them in x-selfee-ignored
    metrics: bool = True
    isolate: bool = False  # whoever asks has no use of what the model has read for others
    chain_log: Path | None = None  # file to which whole chains are appended; None = nothing is kept

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise UsageError(f"port: {self.port}; expected 0 (any that is free) to 65535")
        if not is_loopback(self.host) and not self.access.keys:
            raise UsageError(
                f"host: {self.host} can be reached from other machines, and no key is set; expected one; give a file "
                "with keys (--key-file), or leave --host out"
            )

    @property
    def url(self) -> str:
        """Where the server is found."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
