"""How many guesses are worth verifying: what a pass costs on this machine and model, against what it is likely to win.

Nothing here changes what is written, only how many tokens go through the model together.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence

MOST_GUESSES = 64
"""Guesses of one text that are ever verified together."""

_RATE_MEMORY = 0.95  # of tokens and seconds, for each pass: about the last twenty count
_KEPT = 7  # times of each size; their median is believed, so that one disturbed pass changes nothing
_SLOPES = 15  # of the last passes, for each of the two slopes
_SLOPE = 0.15  # cost of a token more against one token alone, before anything was measured
_PANEL = 8  # tokens that the kernels take together: up to here reading weights hides arithmetic, then it adds up
_DOUBT = 3  # passes of a size before its own times outweigh the line through those of all sizes
_WORST = 1.5  # of the line: what a size seen fewer times may be thought to cost, or it would never be seen again


class Pace:
    """Learns the cost of a pass by its number of tokens, and chooses how many guesses to verify.

    A pass costs what one token costs, and a slope for each token more; beyond a panel of the kernels the slope is
    another one. Sizes that are seen often have times of their own.
    """

    def __init__(self) -> None:
        self._times: dict[int, deque[float]] = {}
        self._median: dict[int, float] = {}
        self._slopes: dict[bool, deque[float]] = {is_large: deque(maxlen=_SLOPES) for is_large in (False, True)}
        self._won, self._spent = 0.0, 0.0
        self._reported = 0.0  # of a pass that several texts share

    def observe(self, tokens: int, seconds: float, won: int, share: float = 1.0) -> None:
        """A pass of ``tokens`` tokens took ``seconds`` and gave ``won`` tokens of text.

        ``share`` below 1: so much of the pass was for this text; the others report theirs.
        """
        self._reported += share
        if self._reported > 1 - 1e-9 or tokens not in self._times:  # else one pass would be many of those kept
            self._reported = max(0.0, self._reported - 1)
            self._remember(tokens, seconds)
        kept = _RATE_MEMORY**share
        self._won = kept * self._won + won
        self._spent = kept * self._spent + share * min(seconds, _WORST * self._median[tokens])

    def _remember(self, tokens: int, seconds: float) -> None:
        times = self._times.setdefault(tokens, deque(maxlen=_KEPT))
        times.append(seconds)
        self._median[tokens] = statistics.median(times)
        start = _PANEL if tokens > _PANEL else 1
        if tokens > start:
            self._slopes[tokens > _PANEL].append((seconds - self.cost(start)) / (tokens - start))

    def cost(self, tokens: int) -> float:
        """Seconds that a pass of so many tokens probably takes."""
        own = self._median.get(tokens)
        if own is None:
            return self._line(tokens)
        count = len(self._times[tokens])
        if count >= _DOUBT or tokens == 1:
            return own
        line = self._line(tokens)
        return (count * min(own, _WORST * line) + (_DOUBT - count) * line) / _DOUBT

    def _line(self, tokens: int) -> float:
        """What the two slopes say."""
        if tokens > _PANEL:
            start = self.cost(_PANEL)
            return start + self._slope(True, start / _PANEL) * (tokens - _PANEL)
        if 1 in self._median:
            return self._median[1] + self._slope(False, _SLOPE * self._median[1]) * (tokens - 1)
        if self._median:  # only larger ones: what is left of them
            size = min(self._median)
            return self._median[size] * (1 + _SLOPE * (tokens - 1)) / (1 + _SLOPE * (size - 1))
        return 1.0 + _SLOPE * (tokens - 1)

    def _slope(self, is_large: bool, otherwise: float) -> float:
        """Seconds for a token more, up to a panel or beyond it."""
        slopes = self._slopes[is_large]
        return max(0.0, statistics.median(slopes)) if slopes else otherwise

    def choose(self, needed: int, chances: Sequence[Sequence[float]]) -> list[int]:
        """How many guesses of each text to verify in a pass that evaluates ``needed`` tokens anyway.

        ``chances[i][k]`` is the chance that text i's first k + 1 guesses are all right, which is what the last of them
        wins. A guess is worth its place if it wins more than the same time would win otherwise, at the rate of late.
        """
        ranked = sorted(
            ((chance, text) for text, own in enumerate(chances) for chance in own[:MOST_GUESSES]),
            key=lambda pair: -pair[0],  # stable: within a text earlier guesses stay before later ones
        )
        rate = self._won / self._spent if self._spent > 0 else len(chances) / self.cost(max(1, needed))
        most, won, best = 0, 0.0, 0.0
        start = self.cost(max(1, needed))
        for count, (chance, _) in enumerate(ranked, start=1):
            won += chance
            gain = won - rate * (self.cost(needed + count) - start)
            if gain > best:
                most, best = count, gain
        lengths = [0] * len(chances)
        for _, text in ranked[:most]:
            lengths[text] += 1
        return lengths
