"""``--session FILE``: what a model has read, restored before a chain and saved after it; it never costs an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfee.errors import SelfeeError, UsageError

if TYPE_CHECKING:
    from selfee.engines.local import LocalEngine
    from selfee.engines.open import AnyEngine


@dataclass(frozen=True)
class SessionPlan:
    """The file, where fingerprints of models are kept, and whom to tell what (``warn`` also where all is quiet)."""

    path: Path
    remembered: Path
    notify: Callable[[str], None]
    warn: Callable[[str], None]


def check_session_path(path: Path) -> None:
    """Raise UsageError where no session can be saved, or something else would be lost: before the model is loaded."""
    from selfee.cli.places import require_writable
    from selfee.llama.session_file import is_session_file

    require_writable(path)
    if _holds_something(path) and not is_session_file(path):
        raise UsageError(f"{path}: is no session; expected a file that --session made, or a new name; choose one")


@contextmanager
def session_kept(engine: AnyEngine, plan: SessionPlan | None) -> Iterator[None]:
    """Restore the session, run the block, save the session, also after Ctrl-C.

    A file that cannot be restored is replaced only where the block ends well.
    """
    if plan is None:
        yield
        return
    local = _local(engine)
    is_sound = _restored(local, plan)
    try:
        yield
    except BaseException:
        if is_sound:
            _save(local, plan)
        raise
    _save(local, plan)


def _local(engine: AnyEngine) -> LocalEngine:
    from selfee.engines.local import LocalEngine

    if not isinstance(engine, LocalEngine):
        raise UsageError(f"--session: {engine.name} does not run here; expected a model on this machine; leave it out")
    return engine


def _holds_something(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _restored(engine: LocalEngine, plan: SessionPlan) -> bool:
    """False if there is a file that cannot be used."""
    try:
        if not _holds_something(plan.path):
            return True
        tokens = engine.restore_session(plan.path, remembered=plan.remembered)
    except SelfeeError as error:
        plan.warn(f"{error} (going on without it; it is replaced when the answer is there)")
        return False
    plan.notify(f"{plan.path}: {tokens} tokens restored")
    return True


def _save(engine: LocalEngine, plan: SessionPlan) -> None:
    try:
        engine.save_session(plan.path, remembered=plan.remembered)
    except SelfeeError as error:
        plan.warn(f"{error} (the session was not saved)")
