"""The flags of a server that say where it listens, who may ask, and what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selfee.errors import UsageError

if TYPE_CHECKING:
    from selfee.serve.config import ServerConfig

_LARGEST = 1 << 20


@dataclass(frozen=True)
class Addressing:
    """Where a server listens and who may ask."""

    host: str = "127.0.0.1"  # Address to listen on; any but this machine's own wants a key
    port: int = 8080  # Port to listen on; 0 = any that is free
    key_file: str | None = None  # File with keys, one a line; else SELFEE_SERVER_KEYS, with commas
    allow_host: tuple[str, ...] = ()  # Names under which the server may be called beside its own, with commas
    allow_origin: tuple[str, ...] = ()  # Web pages that may call it beside its own, with commas; * = all
    tls_cert: str | None = None  # Certificate file, for https
    tls_key: str | None = None  # Key file of the certificate
    queue: int = 64  # Requests that may wait; further ones get 429
    per_client: int = 32  # Requests of one key, or address, at a time
    drain_seconds: float = 30.0  # What is under way may take so long when the server is told to end
    strict: bool = False  # Refuse fields that are not known, instead of telling them in x-selfee-ignored
    metrics: bool = True  # Give figures for Prometheus at /metrics
    isolate: bool = False  # What the model has read for one key, or address, saves no time to another
    chain_log: str | None = None  # Append every chain, with what was asked, to this file; else nothing is kept

    def url(self, port: int) -> str:
        """Where the server is found."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_cert else 'http'}://{host}:{port}"

    def config(self, keys: tuple[str, ...]) -> ServerConfig:
        """The server's configuration. Raises UsageError for what does not fit."""
        from selfee.serve.config import Access, Limits, ServerConfig, Tls

        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("--tls-cert and --tls-key: one is missing; expected both")
        tls = None
        if self.tls_cert is not None and self.tls_key is not None:
            tls = Tls(_existing(self.tls_cert), _existing(self.tls_key))
        limits = Limits(queue=self.queue, per_key=self.per_client, drain_seconds=self.drain_seconds)
        access = Access(keys, self.allow_host, self.allow_origin)
        chain_log = None if self.chain_log is None else Path(self.chain_log)
        config = ServerConfig(self.host, self.port, limits, access, tls, strict=self.strict, metrics=self.metrics)
        return replace(config, chain_log=chain_log, isolate=self.isolate)


@dataclass(frozen=True)
class Logging:
    """What a server tells on stderr."""

    log_requests: bool = True  # A line for every request: never what was asked or answered
    log_format: str = "text"  # text or json

    @property
    def log_form(self) -> Literal["text", "json"]:
        """The form of log lines. Raises UsageError for another."""
        if self.log_format == "json":
            return "json"
        if self.log_format == "text":
            return "text"
        raise UsageError(f"--log-format: {self.log_format!r}; expected text or json")


def read_keys(path: str | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The server's keys: from the file, one a line, else from SELFEE_SERVER_KEYS. Raises UsageError if it has none."""
    if path is None:
        return tuple(key.strip() for key in environ.get("SELFEE_SERVER_KEYS", "").split(",") if key.strip())
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LARGEST).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not plain text"
        raise UsageError(f"{path}: no keys can be read ({reason}); expected a file with one key a line") from error
    lines = (line.strip() for line in text.splitlines())
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise UsageError(f"{path}: holds no key; expected one a line; remove --key-file to serve without")
    return keys


def _existing(path: str) -> Path:
    found = Path(path)
    if not found.is_file():
        raise UsageError(f"{path}: no such file; expected a PEM file")
    return found
