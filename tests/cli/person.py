"""Somebody at a pseudo-terminal, who types and waits for what they want to see."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cli.story import Shell

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")


class Person:
    """What a person types and sees; ``plain`` leaves out what only steers the terminal.

    What was waited for is behind them: the next wait looks at what came after it. So it does not matter how much
    arrives at a time, which depends on who was faster.
    """

    def __init__(self, child: subprocess.Popen[bytes], leader: int, *, plain: bool) -> None:
        self.child = child
        self._leader = leader
        self._plain = plain
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._seen = ""
        self._past = 0

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._leader, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Make the window another size."""
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.child.send_signal(signal.SIGWINCH)

    def wait_for(self, text: str) -> None:
        """Until this text is seen."""
        self.wait_for_pattern(re.escape(text))

    def wait_for_pattern(self, pattern: str) -> None:
        """Until something is seen that fits, after all that was waited for before.

        Patience ends when nothing has come for thirty seconds of looking: a clock would also count the time in which
        this process was not let run.
        """
        idle = 0
        started = time.monotonic()
        while (found := re.search(pattern, self._shown[self._past :])) is None:
            assert idle < 300, f"waited for {pattern!r}, saw {self._shown[self._past :][-500:]!r}"
            assert time.monotonic() < started + 280, f"{pattern!r} never came, but {self._shown[-500:]!r}"
            if select.select([self._leader], [], [], 0.1)[0]:
                self._seen += self._decoder.decode(os.read(self._leader, 65536))
                idle = 0
            else:
                idle += 1
        self._past += found.end()

    @property
    def _shown(self) -> str:
        # Of the whole, as a sequence may arrive in two parts; an unfinished one at the end waits for its rest.
        return _CONTROL.sub("", re.sub(r"\x1b(\[[0-9;?]*)?\Z", "", self._seen)) if self._plain else self._seen


@contextmanager
def at_terminal(shell: Shell, *words: str, plain: bool = True) -> Iterator[Person]:
    """A command at a terminal of its own, 30 rows of 90 columns."""
    leader, follower = pty.openpty()
    fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    child = subprocess.Popen(
        shell.command(*words),
        cwd=shell.folder,
        env=shell.environ | {"TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(follower)
    try:
        yield Person(child, leader, plain=plain)
    finally:
        child.kill()
        child.wait(10)
        os.close(leader)
