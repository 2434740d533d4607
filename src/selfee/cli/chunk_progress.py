"""How far work on chunks of text is, on a terminal: a bar, a figure so far, time left. Elsewhere nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from selfee.cli.output import Screen, for_terminal
from selfee.cli.progress import clock_text

_NUMBERS = 50  # columns for chunks, figure and time left
_LONGEST_BAR, _LONGEST_LABEL = 24, 30  # columns


class ChunkDisplay:
    """A line on ``screen`` that is rewritten after each chunk; ``total`` counts the chunks of all files.

    ``unit`` is what is counted, if not chunks.
    """

    def __init__(
        self, screen: Screen, total: int, now: Callable[[], float] = time.monotonic, *, unit: str = "chunks"
    ) -> None:
        self._screen = screen
        self._unit = unit
        self._total = total
        self._now = now
        self._started = now()
        self._before = self._done = 0
        self._label = ""
        self._is_open = False

    def begin(self, label: str) -> None:
        """A file's turn has come."""
        self._label = for_terminal(label)
        self._before = self._done
        self._show("")

    def chunk(self, done: int, figure: str = "") -> None:
        """So many chunks of this file are done."""
        self._done = self._before + done
        self._show(figure)

    def step(self, label: str, done: int, total: int | None = None, figure: str = "") -> None:
        """So many of all are done, the last of them of this file; ``total`` says anew how many there are."""
        self._label, self._done = for_terminal(label), done
        self._total = self._total if total is None else total
        self._show(figure)

    def skip(self, count: int) -> None:
        """Chunks that need not be computed."""
        self._total -= count

    def note(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        self._screen.write(self._screen.style(for_terminal(text), "dim") + "\n")

    def clear(self) -> None:
        """Take the line away."""
        if self._is_open:
            self._screen.write("\r\x1b[K")
            self._is_open = False

    def _show(self, figure: str) -> None:
        if not self._screen.is_terminal:
            return
        self.clear()
        label = self._label if len(self._label) <= _LONGEST_LABEL else self._label[: _LONGEST_LABEL - 1] + "…"
        length = max(0, min(_LONGEST_BAR, self._screen.width - _NUMBERS - len(label) - 4))
        filled = length * self._done // max(1, self._total)
        bar = self._screen.style("━" * filled, "cyan") + self._screen.style("─" * (length - filled), "dim")
        shown = f"  {figure}" if figure else ""
        self._screen.write(f"{label}  {bar}  {self._done} of {self._total} {self._unit}{shown}{self._left()}")
        self._is_open = True

    def _left(self) -> str:
        if not 0 < self._done < self._total:
            return ""
        seconds = (self._now() - self._started) / self._done * (self._total - self._done)
        return f"  {clock_text(seconds)} left"
