"""Long work on the screen: a bar with speed and time left. Elsewhere downloads tell every ten percent, work nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from selfee.cli.output import Screen
from selfee.weights.disk import human_size

_REFRESH = 0.1  # seconds
_NUMBERS = 48  # columns for percent, bytes, speed and time left
_LONGEST_BAR = 30  # columns
_LONGEST_LABEL = 24
_STEP = 10  # percent


def clock_text(seconds: float) -> str:
    """Seconds as 0:05, 12:40 or 1:02:03."""
    whole = max(0, round(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class DownloadDisplay:
    """Shows on ``screen`` what a download reports."""

    _tells_a_log = True

    def __init__(self, screen: Screen, now: Callable[[], float] = time.monotonic) -> None:
        self._screen = screen
        self._now = now
        self._label = ""
        self._total: int | None = None
        self._done = 0
        self._resumed = 0
        self._started = self._shown_at = now()
        self._shown_step = -1
        self._is_open = False

    def begin(self, label: str, total: int | None, done: int) -> None:
        """See ``Progress.begin``."""
        is_new = label != self._label
        self._label, self._total, self._done, self._resumed = label, total, done, done
        self._started = self._now()
        self._shown_step = self._step() - (1 if is_new else 0)
        if is_new and self._tells_a_log and not self._screen.is_terminal:
            size = "" if total is None else f" ({human_size(total)})"
            goes_on = f", going on at {human_size(done)}" if done else ""
            self._screen.write(f"downloading {label}{size}{goes_on}\n")
        self._show(force=True)

    def advance(self, count: int) -> None:
        """See ``Progress.advance``."""
        self._done += count
        self._show(force=self._done == self._total)

    def note(self, text: str) -> None:
        """See ``Progress.note``."""
        self._clear()
        self._screen.write(self._screen.style(text, "dim") + "\n")

    def end(self) -> None:
        """See ``Progress.end``."""
        if self._is_open:
            self._screen.write("\n")
            self._is_open = False

    def _step(self) -> int:
        return 0 if not self._total else 100 * self._done // self._total // _STEP

    def _show(self, force: bool) -> None:
        now = self._now()
        if self._screen.is_terminal:
            if force or now - self._shown_at >= _REFRESH:
                self._shown_at = now
                self._clear()
                self._screen.write(self._bar(now - self._started))
                self._is_open = True
        elif self._tells_a_log and self._total and self._step() > self._shown_step:
            self._shown_step = self._step()
            if self._shown_step:
                self._screen.write(f"{self._label}: {self._shown_step * _STEP} %{self._rate(now - self._started)}\n")

    def _bar(self, seconds: float) -> str:
        style = self._screen.style
        if not self._total:
            return f"{self._short_label()}  {human_size(self._done)}{self._rate(seconds)}"
        label = self._short_label()
        length = max(0, min(_LONGEST_BAR, self._screen.width - _NUMBERS - len(label) - 4))
        filled = length * self._done // self._total
        bar = style("━" * filled, "cyan") + style("─" * (length - filled), "dim")
        amount = f"{100 * self._done // self._total:3} %  {human_size(self._done)} of {human_size(self._total)}"
        return f"{label}  {bar}  {amount}{self._rate(seconds)}"

    def _short_label(self) -> str:
        room = min(_LONGEST_LABEL, max(8, self._screen.width - _NUMBERS - 8))
        return self._label if len(self._label) <= room else self._label[: room - 1] + "…"

    def _rate(self, seconds: float) -> str:
        received = self._done - self._resumed
        if seconds < _REFRESH or received <= 0:
            return ""
        speed = received / seconds
        left = (
            ""
            if not self._total or self._done >= self._total
            else f"  {clock_text((self._total - self._done) / speed)} left"
        )
        return f"  {human_size(int(speed))}/s{left}"

    def _clear(self) -> None:
        if self._is_open:
            self._screen.write("\r\x1b[K")
            self._is_open = False


class WorkDisplay(DownloadDisplay):
    """Shows on ``screen`` how far a piece of work on files is; where no person watches, nothing but notes."""

    _tells_a_log = False


class QuietDisplay:
    """Shows nothing."""

    def begin(self, label: str, total: int | None, done: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...
