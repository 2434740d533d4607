"""What an engine has read, kept on disk: the session used last is saved, and a saved one takes its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from selfee.engines.sessions import HeldSession, Session, SessionPool
from selfee.errors import UsageError


@runtime_checkable
class SessionFiles(Protocol):
    """A ``Runtime`` whose sessions can be files. ``remembered`` is a file where fingerprints of models are kept."""

    def new_session(self) -> Session: ...

    def save_session(self, path: Path, session: Session, tokens: Sequence[int], remembered: Path | None) -> None:
        """Write ``tokens``, the first ``len(tokens)`` held; the file is replaced whole or not at all."""
        ...

    def load_session(self, path: Path, session: Session, remembered: Path | None) -> list[int]:
        """Fill an empty session; returns the tokens it then holds. It stays empty where something is raised."""
        ...


def session_files_of(runtime: object, name: str) -> SessionFiles:
    """The runtime, if its sessions can be files. Raises UsageError if not."""
    if not isinstance(runtime, SessionFiles):
        raise UsageError(f"{name}: its sessions cannot be saved; expected a model file that selfee itself runs")
    return runtime


def save_latest(pool: SessionPool[Session], files: SessionFiles, path: Path, remembered: Path | None) -> int:
    """Save the session used last; returns its tokens. Nothing is written where that is 0."""
    with pool.borrow_latest() as held:
        if held is None or held.session.length == 0:
            return 0
        files.save_session(path, held.session, held.tokens[: held.session.length], remembered)
        return held.session.length


def restore_into(pool: SessionPool[Session], files: SessionFiles, path: Path, remembered: Path | None) -> int:
    """Restore a saved session as if it had been used last; returns its tokens. What is kept changes only then."""
    session = files.new_session()
    tokens = files.load_session(path, session, remembered)
    pool.adopt(HeldSession(session, tokens))
    return len(tokens)
