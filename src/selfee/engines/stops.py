"""Stop strings in a stream: nothing of a stop string is ever delivered, however the text is cut into pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from selfee.engines.base import TokenLogprob


class StopFilter:
    """Passes text on until one of ``stops`` appears; withholds what may still become one.

    The stop string whose *last* character comes first wins (of two ending together, the longer one), so the result
    does not depend on how the text was cut. Follows every stop string with a Knuth-Morris-Pratt automaton: time is
    linear in the text for each of them.

    ``matched`` is the stop string found, ``emitted`` and ``received`` count characters passed on and fed.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(dict.fromkeys(stops))
        self._borders = tuple(_borders(stop) for stop in self._stops)
        self._states = [0] * len(self._stops)
        self._withheld = ""
        self.matched: str | None = None
        self.emitted = 0
        self.received = 0

    def feed(self, text: str) -> str:
        """The part of the text so far that is certain and was not passed on yet ("" after a match)."""
        if self.matched is not None:
            return ""
        self.received += len(text)
        if not self._stops:
            self.emitted += len(text)
            return text
        pending = self._withheld + text
        for index, char in enumerate(text, start=len(self._withheld) + 1):
            if found := self._advance(char):
                self.matched = found
                return self._pass_on(pending[: index - len(found)], "")
        keep = max(self._states)
        return self._pass_on(pending[: len(pending) - keep], pending[len(pending) - keep :])

    def finish(self) -> str:
        """What was withheld: the stream ended before it became a stop string."""
        return self._pass_on(self._withheld, "")

    def _pass_on(self, text: str, rest: str) -> str:
        self._withheld = rest
        self.emitted += len(text)
        return text

    def _advance(self, char: str) -> str:
        """The stop string that ends with this character, the longest of several, or ""."""
        found = ""
        for number, stop in enumerate(self._stops):
            state = self._states[number]
            while state and stop[state] != char:
                state = self._borders[number][state]
            if stop[state] == char:
                state += 1
            self._states[number] = state
            if state == len(stop) and state > len(found):
                found = stop
        return found


def _borders(pattern: str) -> tuple[int, ...]:
    """borders[n] = length of the longest proper prefix of ``pattern[:n]`` that is also its suffix."""
    borders = [0, 0]
    for char in pattern[1:]:
        length = borders[-1]
        while length and pattern[length] != char:
            length = borders[length]
        borders.append(length + 1 if pattern[length] == char else 0)
    return tuple(borders)


class LogprobQueue:
    """Keeps each token's log-probability until the first character of its text has been delivered."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()

    def add(self, start: int, logprob: TokenLogprob) -> None:
        """``start`` is the number of characters received before this token's."""
        self._waiting.append((start, logprob))

    def take(self, emitted: int) -> tuple[TokenLogprob, ...]:
        """The tokens that began within the ``emitted`` characters delivered so far and were not taken yet."""
        taken = []
        while self._waiting and self._waiting[0][0] < emitted:
            taken.append(self._waiting.popleft()[1])
        return tuple(taken)
