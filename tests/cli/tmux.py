"""A real terminal that a program can type into and look at: tmux, on a socket of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PROMPT = "› "
"""What ``selfee chat`` shows where it waits for an entry."""


def missing() -> str | None:
    """Why there can be no terminal here; None if there can."""
    return None if shutil.which("tmux") else "tmux is not installed; apt-get install tmux"


class Terminal:
    """One window. Every wait is bounded; what was on the screen is in the error."""

    def __init__(self, folder: Path, environ: Mapping[str, str], width: int, height: int) -> None:
        self._socket = f"selfee-{uuid.uuid4().hex[:12]}"
        self._environ = {**environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PS1": "$ "}
        self._environ.pop("TMUX", None)
        size = ("-x", str(width), "-y", str(height))
        shell = ("env", "-i", *(f"{name}={value}" for name, value in self._environ.items()), "sh")
        # 24-bit colour off, a long history, no status line: the window is the program's alone.
        options = "set -g status off; set -g history-limit 20000; set -g default-terminal tmux-256color"
        config = folder / "tmux.conf"
        config.write_text(options.replace("; ", "\n") + "\n", encoding="utf-8")
        self._tmux("-f", str(config), "new-session", "-d", *size, "-c", str(folder), shlex.join(shell))

    def close(self) -> None:
        """End the window and everything in it."""
        self._tmux("kill-server")

    def type(self, text: str) -> None:
        """Type characters as they are."""
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys by name: Enter, C-c, Up, Tab, M-Enter."""
        self._tmux("send-keys", *keys)

    def enter(self, text: str) -> None:
        """Type a line and send it."""
        self.type(text)
        self.press("Enter")

    def paste(self, text: str) -> None:
        """Paste, as a terminal does that was asked to mark pastes."""
        self._tmux("load-buffer", "-", stdin=text)
        self._tmux("paste-buffer", "-p", "-r")

    def resize(self, width: int, height: int) -> None:
        """Make the window another size."""
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def screen(self, *, colors: bool = False, history: int = 0) -> str:
        """What is on the screen, and so many lines that have left it."""
        words = ["capture-pane", "-p", *(["-e"] if colors else [])]
        words += ["-S", str(-history)] if history else []
        return self._tmux(*words).rstrip("\n")

    def text(self) -> str:
        """All that was ever on the screen, with lines that were too long for it in one piece."""
        lines = self._tmux("capture-pane", "-p", "-J", "-S", "-").splitlines()
        return "\n".join(line.rstrip() for line in lines).rstrip()

    def clear(self) -> None:
        """Have the line editor draw its line at the top of an empty screen, and forget what was above."""
        self.press("C-l")
        until = time.monotonic() + 20
        while self.screen().lstrip().count("\n") > 3 and time.monotonic() < until:
            time.sleep(0.03)
        self._tmux("clear-history")

    def wait_for(self, pattern: str, seconds: float = 200, *, times: int = 1) -> str:
        """Wait until a pattern is found in the text so many times; returns the whole text."""
        until = time.monotonic() + seconds
        while True:
            text = self.text()
            if len(re.findall(pattern, text)) >= times:
                return text
            assert time.monotonic() < until, f"waited for {pattern!r}, saw:\n{self.screen(history=60)}"
            time.sleep(0.03)

    def wait_until_ready(self, seconds: float = 200) -> str:
        """Wait until the last line is an empty prompt; returns the whole text."""
        until = time.monotonic() + seconds
        while True:
            text = self.text()
            if text.endswith("\n" + PROMPT.strip()) or text == PROMPT.strip():
                return text
            assert time.monotonic() < until, f"waited for the prompt, saw:\n{self.screen(history=60)}"
            time.sleep(0.03)

    def _tmux(self, *words: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._socket, *words],
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, "LANG": "C.UTF-8"},
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout


@contextmanager
def terminal(folder: Path, environ: Mapping[str, str], width: int = 90, height: int = 30) -> Iterator[Terminal]:
    """A terminal with a shell in ``folder``; it is gone after the block."""
    opened = Terminal(folder, environ, width, height)
    try:
        yield opened
    finally:
        opened.close()
