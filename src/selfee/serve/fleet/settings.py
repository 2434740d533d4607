"""How workers, controller and servers wait for each other; and how they show that they belong together."""

from __future__ import annotations

from dataclasses import dataclass

SECRET_BYTES = 16


@dataclass(frozen=True)
class Patience:
    """Seconds."""

    beat: float = 10.0  # between two heart-beats of a worker
    expiry: float = 45.0  # without one after which the controller forgets it
    refresh: float = 2.0  # between two looks at who the workers are
    connect: float = 3.0
    stall: float = 20.0  # without a byte, although workers say again and again that they work
    status: float = 5.0  # to tell how busy one is
    worker: float = 20.0  # to wait for a worker where there is none
    shunned: float = 10.0  # that a worker which was lost gets nothing to do
    moves: int = 4  # workers that a job may lose


@dataclass(frozen=True)
class Identity:
    """Where a worker is found, and how it and the others know each other."""

    address: str  # of this worker, as others reach it
    controller: str
    secret: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What every call among them carries."""
        return authorization(self.secret)


def authorization(secret: str | None) -> dict[str, str]:
    """The header that shows that one belongs here."""
    return {} if secret is None else {"authorization": f"Bearer {secret}"}
