"""Starts a program and its tests in two confined processes, and comes back in time: both are killed at the end."""

from __future__ import annotations

import contextlib
import enum
import functools
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfee.errors import EngineError, UsageError

_PATIENCE = 3.0  # wall time, as a multiple of the processor time that a program has: the machine may be busy
_GRACE = 5.0  # seconds for two interpreters to start
_TRIES = 2  # where a program is late without having computed: the machine may have slept meanwhile
_MOST_OUTPUT = 1 << 20  # bytes of the tester's report
_FOLDER = Path(__file__).parent
# The packages around this folder are set up as empty ones: the children need nothing of them, and start sooner.
_START = """
import sys, types
for name in ("selfee", "selfee.chain", "selfee.chain.checkers", "selfee.chain.checkers.sandbox"):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
sys.modules["selfee.chain.checkers.sandbox"].__path__ = [{folder!r}]
from selfee.chain.checkers.sandbox.{role} import main
main()
"""


class Isolation(enum.Enum):
    """How far programs are confined on this machine."""

    FULL = "full"  # system calls filtered, files out of reach, memory and time limited
    LIMITED = "limited"  # memory, time and writing limited; no protection from a program that means harm


@dataclass(frozen=True)
class Limits:
    """What a program may take."""

    seconds: float = 10.0  # of processor time; three times as much, and a little, of wall time
    memory: int = 1 << 30  # bytes of address space

    def __post_init__(self) -> None:
        if not 0.1 <= self.seconds <= 3600:
            raise UsageError(f"sandbox: {self.seconds} seconds; expected 0.1 to 3600")
        if not 64 << 20 <= self.memory <= 1 << 40:
            raise UsageError(f"sandbox: {self.memory} bytes of memory; expected 64 MiB to 1 TiB")


@dataclass(frozen=True)
class TestRun:
    """What came of a program's tests."""

    passed: int
    total: int
    reason: str = ""  # why the first that did not pass did not
    inside: int = 0  # tests that had to run in the program's own process, where it could cheat
    isolation: Isolation = Isolation.FULL

    __test__ = False  # its name is no test for pytest

    @property
    def is_passed(self) -> bool:
        """Whether all tests passed, and there were any."""
        return 0 < self.total == self.passed


def run_tests(source: str, tests: Sequence[str], setup: str = "", limits: Limits | None = None) -> TestRun:
    """Run ``tests``, each a few lines of Python with asserts, against a program; ``setup`` comes before each.

    The program's output is thrown away and it has nothing to read. Raises EngineError if the sandbox itself fails.
    """
    limits = limits or Limits()
    for _ in range(_TRIES):
        report, used, killed_for_time = _run_once(source, tests, setup, limits)
        if report is not None:
            return _result(report, len(tests), limits, killed_for_time)
        if used > limits.seconds / 2:
            break
    return TestRun(0, len(tests), _too_long(limits), isolation=isolation_here())


def _too_long(limits: Limits) -> str:
    return f"took more than {limits.seconds:g} s"


def _run_once(source: str, tests: Sequence[str], setup: str, limits: Limits) -> tuple[bytes | None, float, bool]:
    """The tester's report, None if it is late; the processor time of the program, and whether the limit ended it."""
    used = 0.0
    with tempfile.TemporaryDirectory(prefix="selfee-") as folder, _Pipes() as pipes:
        job = {"memory": limits.memory, "cpu_seconds": max(1, round(limits.seconds)), "parent": os.getpid()}
        candidate = _start("candidate", folder, pipes.candidate, subprocess.DEVNULL)
        try:
            tester = _start("tester", folder, pipes.tester, subprocess.PIPE)
            try:
                pipes.close_ours()
                _feed(candidate, job | {"source": source.encode("utf-8", "replace").decode()})
                _feed(tester, job | {"setup": setup, "tests": list(tests), "memory": max(limits.memory, 256 << 20)})
                report = _read(tester, time.monotonic() + _PATIENCE * limits.seconds + _GRACE)
            finally:
                _kill(tester)
        finally:
            used = _kill(candidate)
    return report, used, candidate.returncode == -signal.SIGXCPU


@functools.cache
def isolation_here() -> Isolation:
    """How far programs are confined on this machine: found out once, by confining one."""
    return run_tests("", ["assert True"]).isolation


def _result(report: bytes, total: int, limits: Limits, killed_for_time: bool) -> TestRun:
    try:
        found: dict[str, Any] = json.loads(report)
        isolation = Isolation.LIMITED if found["missing"] else Isolation.FULL
        reason = _too_long(limits) if killed_for_time else found["reason"]
        return TestRun(found["passed"], total, reason, found["inside"], isolation)
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"sandbox: the tests gave no report that can be read ({report[:200]!r})") from error


class _Pipes:
    """Two pipes between candidate and tester; each side gets (read, write)."""

    def __enter__(self) -> _Pipes:
        requests, replies = os.pipe(), os.pipe()
        self.candidate = (requests[0], replies[1])
        self.tester = (replies[0], requests[1])
        self._open = [*requests, *replies]
        return self

    def close_ours(self) -> None:
        """Once both have started: whoever's other side ends must see it."""
        while self._open:
            os.close(self._open.pop())

    def __exit__(self, *error: object) -> None:
        self.close_ours()


def _start(role: str, folder: str, pipes: tuple[int, int], output: int) -> subprocess.Popen[bytes]:
    program = _START.format(folder=str(_FOLDER), role=role)
    # Not isolated (-I): that would also ignore the seed, which gives sets the same order in every run.
    words = [sys.executable, "-P", "-s", "-S", "-B", "-c", program, *map(str, pipes)]
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.DEVNULL,
            pass_fds=pipes,
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder, "PYTHONHASHSEED": "0"},
            start_new_session=True,  # its own group: it is killed with whatever it started
        )
    except OSError as error:
        raise EngineError(f"sandbox: {sys.executable} cannot be started ({error.strerror or error})") from error


def _feed(child: subprocess.Popen[bytes], job: dict[str, Any]) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died: there will be no report
        child.stdin.write(json.dumps(job).encode())
        child.stdin.close()


def _read(tester: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    """All that the tester writes; None if it is late."""
    assert tester.stdout is not None
    report = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(tester.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                continue
            piece = os.read(tester.stdout.fileno(), 1 << 16)
            if not piece or len(report) > _MOST_OUTPUT:
                return bytes(report)
            report += piece
    return None


def _kill(child: subprocess.Popen[bytes]) -> float:
    """Kill a child with all that it started; returns the processor time that it had."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    used = 0.0
    with contextlib.suppress(ChildProcessError):
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        used = usage.ru_utime + usage.ru_stime
    for pipe in _pipes_of(child):
        with contextlib.suppress(OSError):
            pipe.close()
    return used


def _pipes_of(child: subprocess.Popen[bytes]) -> Iterator[Any]:
    return (pipe for pipe in (child.stdin, child.stdout) if pipe is not None)
