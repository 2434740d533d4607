"""The flags of a server that is one of several: which part it plays, and how the others are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfee.cli.serving.settings import read_keys
from selfee.errors import UsageError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from selfee.serve.config import Defaults, ServerConfig
    from selfee.serve.service import Served

ROLES = ("server", "controller", "worker", "web")
_PORTS = {"controller": 21001, "worker": 21002}  # as FastChat has them


@dataclass(frozen=True)
class Fleet:
    """Which part a server plays among several."""

    role: str = "server"  # server (all in one), or a part: controller, worker, or web (serves what workers have)
    controller: str = "http://127.0.0.1:21001"  # For a worker and the web: where the controller is
    worker_url: str | None = None  # For a worker: where the others reach it, if not under --host and --port
    secret_file: str | None = None  # File with the secret that all parts share; else SELFEE_FLEET_SECRET
    allow_worker: tuple[str, ...] = ()  # For a controller: networks and names that workers may have, with commas
    dispatch: str = "least-busy"  # For a controller: least-busy or lottery
    worker_view: str = "raw"  # What FastChat's clients of a worker see: raw, the whole chain, or final
    parallel_jobs: int = 64  # For the web: jobs that all workers together may have

    def check(self) -> None:
        """Raise UsageError for words that are none."""
        for name, value, known in (
            ("role", self.role, ROLES),
            ("dispatch", self.dispatch, ("least-busy", "lottery")),
            ("worker-view", self.worker_view, ("raw", "final")),
        ):
            if value not in known:
                raise UsageError(f"--{name}: {value!r}; expected one of {', '.join(known)}")

    def secret(self, environ: Mapping[str, str]) -> str | None:
        """What all parts share. Raises UsageError for a file that holds none."""
        if self.secret_file is None:
            return environ.get("SELFEE_FLEET_SECRET", "").strip() or None
        return read_keys(self.secret_file, {})[0]

    def keys(self, keys: tuple[str, ...], secret: str | None) -> tuple[str, ...]:
        """Keys of a server's clients; who has the secret may ask a controller and a worker."""
        return keys if secret is None or self.role not in _PORTS else (secret, *keys)

    def port(self, given: int | None, port: int) -> int:
        """The port of this part, where the user gave none."""
        return port if given is not None else _PORTS.get(self.role, port)


def build(
    fleet: Fleet,
    config: ServerConfig,
    models: Mapping[str, Served],
    defaults: Defaults,
    own: str,
    secret: str | None,
) -> tuple[FastAPI, str]:
    """The application of this part, and what it does in a few words. ``own`` is where it is found.

    Names of models are given, because a model that is not loaded yet does not know its own.

    Raises EngineError or UsageError where the web finds no controller or no workers.
    """
    if fleet.role == "controller":
        return _controller(fleet, config, own), "controls workers"
    if fleet.role == "worker":
        worker = _worker(fleet, config, list(models.values()), own, secret)
        return worker, f"works with {', '.join(models)} for {fleet.controller}"
    from selfee.serve.app import make_app

    if fleet.role == "web":
        models = {served.name: served for served in _web_models(fleet, defaults, secret)}
    return make_app(config, list(models.values())), f"serves {', '.join(models)}"


def _controller(fleet: Fleet, config: ServerConfig, own: str) -> FastAPI:
    from selfee.serve.fleet.addresses import AllowedAddresses
    from selfee.serve.fleet.controller import make_controller

    allowed = AllowedAddresses.of(fleet.allow_worker)
    return make_controller(config, allowed, "lottery" if fleet.dispatch == "lottery" else "least-busy", own=own)


def _worker(fleet: Fleet, config: ServerConfig, models: Sequence[Served], own: str, secret: str | None) -> FastAPI:
    from selfee.serve.fleet.members import make_worker
    from selfee.serve.fleet.settings import Identity

    identity = Identity(fleet.worker_url or own, fleet.controller, secret)
    return make_worker(config, models, identity, "final" if fleet.worker_view == "final" else "raw")


def _web_models(fleet: Fleet, defaults: Defaults, secret: str | None) -> list[Served]:
    from selfee.serve.fleet.directory import Directory
    from selfee.serve.fleet.members import fleet_models

    return fleet_models(Directory(fleet.controller, secret), defaults, fleet.parallel_jobs)
