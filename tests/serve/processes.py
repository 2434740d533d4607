"""A backend in a process of its own over the tiny model, run from plain tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from selfee.chain.policy import RevisionPolicy
from selfee.engines.base import SamplingParams
from selfee.serve.config import Defaults
from selfee.serve.engine.process import ProcessBackend, Watch
from selfee.serve.opening import Opening
from selfee.serve.service import Served

FAST = Watch(ping=0.1, stall=1.0, first_pause=0.05, longest_pause=0.2)


def served_process(path: Path, watch: Watch = FAST, name: str = "tiny") -> Served:
    """A model file that a process computes with; greedy, without revisions unless asked for."""
    defaults = Defaults(RevisionPolicy(0, 0), SamplingParams(temperature=0.0), mode="guided")
    served = Opening(name, {"spec": str(path)}, defaults, 2).served()
    assert isinstance(served.backend, ProcessBackend)
    served.backend.watch = watch
    return served


def backend_of(served: Served) -> ProcessBackend:
    """The backend that was made for it."""
    assert isinstance(served.backend, ProcessBackend)
    return served.backend


def send_signal(served: Served, number: signal.Signals) -> int:
    """Send its process a signal; returns which process it was."""
    pid = backend_of(served).pid
    assert pid is not None
    os.kill(pid, number)
    return pid


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> float:
    """Until it holds; returns the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not come about"
        time.sleep(0.01)
    return time.monotonic() - began
