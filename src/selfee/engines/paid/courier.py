"""Calls made by a process of their own, which lives on when this one is killed: what was asked is brought home.

A request whose process is killed before the reply arrives is paid for and lost; asked again, it is paid for twice. So
another process, in a session of its own, holds the sockets and writes the journal. When whoever asked is gone, it
finishes what is under way, stores it, and ends.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from selfee.engines.paid.calling import CallFailedError
from selfee.engines.paid.faults import Fault
from selfee.engines.paid.journalled import open_reply
from selfee.engines.paid.meter import Reading
from selfee.engines.paid.opening import PaidServer
from selfee.engines.paid.plain import to_plain
from selfee.engines.paid.reply import Reply
from selfee.errors import ContextOverflowError, EngineError, StoppedError, UsageError
from selfee.journal import Journal

_PROGRAM = "selfee.engines.paid.courier_process"
_DEAD = "stopped: the process that makes the calls ended unexpectedly; what it brought is kept; run again"


class CourierDesk:
    """A ``Desk`` whose calls are made by another process. ``workers`` is how many threads may ask at a time."""

    def __init__(self, server: PaidServer, journal: Journal, workers: int) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._waiting: dict[str, list[_Answer]] = {}
        self._replayed = 0
        self._reading: dict[str, Any] = {}
        self._ended: str | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # whoever reads our stderr must not wait for the courier; it tells us instead
            start_new_session=True,
            text=True,
            encoding="utf-8",
        )
        self._send({"server": to_plain(server), "journal": str(journal.path.resolve()), "workers": workers})
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """The courier's process."""
        return self._process.pid

    def obtain(self, key: str, asked: Mapping[str, Any]) -> Reply:
        """See ``Desk.obtain``."""
        if (stored := self._journal.get(key)) is not None:
            with self._lock:
                self._replayed += 1
            return open_reply(stored)
        answer = _Answer()
        with self._lock:
            if self._ended is not None:
                raise StoppedError(self._ended)
            others = self._waiting.setdefault(key, [])
            others.append(answer)
            if len(others) == 1:
                self._send({"ask": key, "asked": asked})
        answer.came.wait()
        _raise_for(answer.told)
        stored = self._journal.get(key)
        assert stored is not None, "the courier stores a reply before it says so"
        return open_reply(stored)

    def read(self) -> Reading:
        """See ``Desk.read``."""
        with self._lock:
            numbers = dict(self._reading)
            numbers["replayed"] = numbers.get("replayed", 0) + self._replayed
        return Reading(**numbers)

    def stop(self, why: str) -> None:
        """See ``Desk.stop``: what is under way comes home."""
        with self._lock:
            self._send({"stop": why})

    def close(self) -> None:
        """Wait for what is under way, then end the courier."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._listener.join()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):  # it is dead: the listener says so
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None, "it was opened with a pipe"
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                self._take(json.loads(line))
        with self._lock:
            self._ended = self._ended or _DEAD
            left = [answer for answers in self._waiting.values() for answer in answers]
            self._waiting.clear()
        for answer in left:
            answer.give({"stopped": self._ended})

    def _take(self, told: dict[str, Any]) -> None:
        with self._lock:
            self._reading = told.get("meter", self._reading)
            if "crash" in told:
                self._ended = f"stopped: the process that makes the calls failed: {told['crash']}"
        if "key" in told:
            with self._lock:
                answers = self._waiting.pop(told["key"], [])
            for answer in answers:
                answer.give(told)


class _Answer:
    """What the courier said about one call, once it has."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.told: dict[str, Any] = {}

    def give(self, told: dict[str, Any]) -> None:
        self.told = told
        self.came.set()


def _raise_for(told: Mapping[str, Any]) -> None:
    if "stopped" in told:
        raise StoppedError(told["stopped"])
    if "overflow" in told:
        raise ContextOverflowError(told["overflow"])
    if "fault" in told:
        error = CallFailedError(Fault(**told["fault"]), told["attempts"])
        raise error
    if "usage" in told:
        raise UsageError(told["usage"])
    if "error" in told:
        raise EngineError(told["error"])
