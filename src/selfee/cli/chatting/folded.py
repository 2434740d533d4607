"""A chain folded: one line that says what is going on, and vanishes; the answer alone stays."""

from __future__ import annotations

from selfee.chain.types import Chain, ChainFinished, Event, SectionEnd, SectionStart, TextDelta
from selfee.cli.output import Screen, for_terminal

_EVERY = 8  # pieces between two changes of the line


class FoldedView:
    """Shows which section is written, on a terminal; nothing elsewhere. As ``ChainView`` in what it can be told."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._label = ""
        self._pieces = 0

    def show(self, event: Event) -> None:
        """Show the next event."""
        if isinstance(event, SectionStart):
            self._label = event.section.value + (f" {event.number}" if event.number else "")
            self._pieces = 0
            self._line(f"{self._label} …")
        elif isinstance(event, TextDelta):
            self._pieces += 1
            if self._pieces % _EVERY == 0:
                self._line(f"{self._label} … {self._pieces}")
        elif isinstance(event, SectionEnd) and event.cost is not None:
            self._line(f"{self._label} … {event.cost.tokens}")
        elif isinstance(event, ChainFinished):
            self._line("")

    def interrupt(self, chain: Chain) -> None:
        """The user stopped it."""
        self._line("")

    def _line(self, text: str) -> None:
        if self._screen.is_terminal and self._screen.has_color:
            self._screen.write("\r\x1b[2K" + self._screen.style(for_terminal(text)[: self._screen.width], "dim"))
