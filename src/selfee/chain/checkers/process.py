"""Runs a program that may do anything, and comes back in time: it is killed with all its children."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from selfee.errors import EngineError

_KEPT = 64 << 10  # bytes of the end of each output
_PIECE = 64 << 10  # bytes
_GLANCE = 0.02  # seconds between two looks whether it has ended
_AFTERWORD = 0.2  # seconds for the rest of its output, once it has ended and children hold its pipes


@dataclass(frozen=True)
class Outcome:
    """What came of a program."""

    code: int | None  # its exit code, negative for a signal; None = it took too long and was killed
    stdout: str  # the end of it
    stderr: str


def run_bounded(
    words: Sequence[str], stdin: bytes, timeout: float, environ: Mapping[str, str] | None = None
) -> Outcome:
    """Run a program without a shell for at most ``timeout`` seconds; it reads ``stdin`` if it likes.

    Of its output the last 64 KB are kept. When it ends, or is late, or the caller is interrupted, its whole process
    group is killed (a child that leaves the group on purpose lives on, but is not waited for). ``environ`` None =
    ours. Raises OSError if it cannot be started.
    """
    deadline = time.monotonic() + timeout
    # Its own session, and so its own group: what it starts is killed with it, and Ctrl-C reaches us alone.
    with (
        subprocess.Popen(
            list(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if environ is None else dict(environ),
            start_new_session=True,
        ) as child,
        selectors.DefaultSelector() as selector,
    ):
        try:
            talk = _Talk(child, stdin, selector)
            while not (ended := _has_ended(child)) and time.monotonic() < deadline:
                talk.go_on(min(_GLANCE, max(0.0, deadline - time.monotonic())))
            until = time.monotonic() + _AFTERWORD
            while ended and talk.has_output and (left := until - time.monotonic()) > 0:
                talk.go_on(left)
        finally:
            _kill_group(child)
        return Outcome(child.returncode if ended else None, *talk.outputs())


class _Talk:
    """Feeds a program and reads it, whichever it is ready for."""

    def __init__(self, child: subprocess.Popen[bytes], stdin: bytes, selector: selectors.BaseSelector) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        self._left = memoryview(stdin)
        self._outputs: dict[IO[bytes], bytearray] = {child.stdout: bytearray(), child.stderr: bytearray()}
        self._open = set(self._outputs)
        self._stdin = child.stdin
        self._selector = selector
        for pipe in (child.stdin, child.stdout, child.stderr):
            os.set_blocking(pipe.fileno(), False)
        for pipe in self._outputs:
            self._selector.register(pipe, selectors.EVENT_READ)
        if stdin:
            self._selector.register(child.stdin, selectors.EVENT_WRITE)
        else:
            child.stdin.close()

    @property
    def has_output(self) -> bool:
        """Whether somebody may still write."""
        return bool(self._open)

    def go_on(self, seconds: float) -> None:
        """Do what can be done, waiting at most so long for something."""
        if not self._selector.get_map():
            time.sleep(seconds)
            return
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._stdin:
                self._write()
            else:
                self._read(next(pipe for pipe in self._open if pipe is key.fileobj))

    def outputs(self) -> Iterator[str]:
        """The end of stdout and of stderr."""
        return (bytes(kept).decode("utf-8", errors="replace") for kept in self._outputs.values())

    def _write(self) -> None:
        try:
            self._left = self._left[os.write(self._stdin.fileno(), self._left[:_PIECE]) :]
        except BlockingIOError:
            return
        except OSError:  # it does not want to read, which is its right
            self._left = self._left[:0]
        if not self._left:
            self._selector.unregister(self._stdin)
            with contextlib.suppress(OSError):
                self._stdin.close()

    def _read(self, pipe: IO[bytes]) -> None:
        try:
            piece = os.read(pipe.fileno(), _PIECE)
        except BlockingIOError:
            return
        if not piece:
            self._open.discard(pipe)
            self._selector.unregister(pipe)
            return
        kept = self._outputs[pipe]
        kept += piece
        del kept[:-_KEPT]


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended; it is not reaped yet, so that its number still names its group and nobody else's."""
    try:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError as error:  # SIGCHLD is ignored, or somebody else waits for every child
        raise EngineError("program: its exit code was taken by another part of this process") from error


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a program that is not reaped yet with all that it has started, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
