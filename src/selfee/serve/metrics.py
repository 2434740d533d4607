"""What happens, counted for Prometheus: never what was asked or answered, nor by whom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from selfee.chain.types import Chain
from selfee.engines.base import Usage
from selfee.serve.admission import Admission
from selfee.serve.engine.backend import Backend

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


@dataclass
class Metrics:
    """Counters of one server, apart from those of others in the same process."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        registry = self.registry
        self._requests = Counter(
            "selfee_requests", "Requests, by route and status.", ("route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "selfee_request_seconds",
            "From a request's headers to its last byte.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._first = Histogram(
            "selfee_first_piece_seconds",
            "From taking a job on to its first piece.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter("selfee_tokens", "Tokens, by kind.", ("model", "kind"), registry=registry)
        self._chains = Counter("selfee_chains", "Chains, by why they ended.", ("model", "cause"), registry=registry)
        self._revisions = Counter("selfee_revisions", "Revisions made.", ("model",), registry=registry)
        self._running = Gauge("selfee_jobs_running", "Jobs that compute.", ("model",), registry=registry)
        self._waiting = Gauge("selfee_jobs_waiting", "Jobs in line.", ("model",), registry=registry)
        self._ready = Gauge("selfee_model_ready", "Whether the model can be asked.", ("model",), registry=registry)
        self._deaths = Gauge(
            "selfee_process_deaths", "How often the computing process died.", ("model",), registry=registry
        )

    def watch(self, model: str, admission: Admission, backend: Backend) -> None:
        """Show how full a model is."""
        self._running.labels(model).set_function(lambda: admission.running)
        self._waiting.labels(model).set_function(lambda: admission.waiting)
        self._ready.labels(model).set_function(lambda: backend.is_ready)
        self._deaths.labels(model).set_function(lambda: getattr(backend, "deaths", 0))

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request has been answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def first_piece(self, model: str, seconds: float) -> None:
        """The first piece of an answer has come."""
        self._first.labels(model).observe(seconds)

    def chain(self, model: str, chain: Chain, cause: str) -> None:
        """A chain has ended."""
        self._chains.labels(model, cause).inc()
        self._revisions.labels(model).inc(chain.num_revisions)
        cost = chain.cost
        self._count(model, cost.prompt_tokens, cost.cached_tokens, cost.tokens)

    def text(self, model: str, usages: Iterable[Usage | None]) -> None:
        """Texts have been continued."""
        for usage in usages:
            if usage is not None:
                self._count(model, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)

    def _count(self, model: str, prompt: int, cached: int, generated: int) -> None:
        for kind, count in (("prompt", prompt), ("cached", cached), ("generated", generated)):
            self._tokens.labels(model, kind).inc(count)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
