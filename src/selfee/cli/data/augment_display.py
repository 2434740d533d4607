"""How far an augmentation is: a few lines that are drawn again on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from selfee.cli.output import Screen, for_terminal
from selfee.cli.progress import clock_text

if TYPE_CHECKING:
    from selfee.data.augment.job import Progress
    from selfee.engines.paid.meter import Reading

_REDRAW = 0.25  # seconds on a terminal
_LOG = 15.0  # seconds between two lines in a log
_BAR = 24
_SHOWN_FAULT = 110


def human_count(number: float) -> str:
    """1234567 as 1.2M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= limit:
            return f"{number / (1e3 if unit == 'k' else limit):.1f}{unit}"
    return f"{number:,.0f}"


class AugmentDisplay:
    """Watches a job; ``readings`` fetches the numbers of its engines."""

    def __init__(
        self,
        screen: Screen | None,
        readings: Callable[[], Sequence[Reading]],
        *,
        max_cost: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen = screen
        self._readings = readings
        self._max_cost = max_cost
        self._now = now
        self._started = self._shown = now()
        self._lines = 0
        self._told_fault = ""

    def settled(self, progress: Progress) -> None:
        """See ``Watcher.settled``."""
        if self._screen is None:
            return
        every = _REDRAW if self._screen.is_terminal else _LOG
        if self._now() - self._shown >= every:
            self._show(progress)

    def finish(self, progress: Progress) -> None:
        """Show the end."""
        if self._screen is not None:
            self._show(progress)
            self._lines = 0

    def _show(self, progress: Progress) -> None:
        assert self._screen is not None, "whoever calls has looked"
        self._shown = self._now()
        lines = self.lines(progress)
        if self._screen.is_terminal:
            up = f"\x1b[{self._lines}A" if self._lines else ""
            width = self._screen.width
            self._screen.write(up + "".join(f"\r\x1b[K{line[:width]}\n" for line in lines))
            self._lines = len(lines)
        else:
            self._screen.write(" · ".join(line.strip() for line in lines) + "\n")

    def lines(self, progress: Progress) -> list[str]:
        """Rows and time left; calls; tokens, money and failures."""
        all_ = self._readings()
        seconds = self._now() - self._started
        settled = progress.done + progress.failed
        new = settled - progress.from_before
        rate = new / seconds if seconds > 0 else 0.0
        left = f"  {clock_text(progress.left / rate)} left" if rate > 0 and progress.left else ""
        share = settled / progress.total if progress.total else 1.0
        bar = ""
        if self._screen is not None and self._screen.is_terminal:
            filled = int(_BAR * share)
            bar = self._screen.style("━" * filled, "cyan") + self._screen.style("─" * (_BAR - filled), "dim") + "  "
        failed = f"  {progress.failed:,} failed" if progress.failed else ""
        rows = f"{bar}{settled:,} of {progress.total:,} rows{failed}  {rate:.2f}/s{left}"
        paid, replayed = sum(one.paid for one in all_), sum(one.replayed for one in all_)
        calls = f"calls {paid:,} made, {replayed:,} from the journal"
        flying, limit = sum(one.in_flight for one in all_), sum(one.limit for one in all_)
        if limit:
            waits = ", ".join(sorted({one.waits_for for one in all_ if one.waits_for}))
            calls += f"  {flying} under way of {limit}" + (f", waiting for {waits}" if waits else "")
        tokens_in, tokens_out = sum(one.prompt_tokens for one in all_), sum(one.completion_tokens for one in all_)
        money = f"tokens {human_count(tokens_in)} in, {human_count(tokens_out)} out"
        cost, spent = sum(one.cost for one in all_), max((one.spent for one in all_), default=0.0)
        if cost or spent or self._max_cost is not None:
            most = "" if self._max_cost is None else f" of {self._max_cost:g}"
            money += f"  ${cost:.4f} now, ${spent:.4f}{most} in all"
        faults = sum((Counter(one.faults) for one in all_), Counter[str]())
        lines = [rows, calls, money]
        if faults:
            lines.append("failed attempts: " + ", ".join(f"{kind} {count}" for kind, count in faults.most_common()))
        return [*lines, *self._news(all_)]

    def _news(self, readings: Sequence[Reading]) -> list[str]:
        """The last failure of an attempt, where it is another than the one told last."""
        last = next((one.last_fault for one in readings if one.last_fault), "")
        if not last or (self._screen is not None and not self._screen.is_terminal and last == self._told_fault):
            return []
        self._told_fault = last
        return [f"last: {for_terminal(' '.join(last.split()))[:_SHOWN_FAULT]}"]
