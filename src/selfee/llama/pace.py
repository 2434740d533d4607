"""How many guesses are worth verifying: what a pass costs on this machine and model, against what it is likely to win.

Nothing here changes what is written, only how many tokens go through the model together.
"""

from __future__ import annotations

from collections.abc import Sequence

MOST_GUESSES = 64
"""Guesses of one text that are ever verified together."""

_RATE_MEMORY = 0.95  # of tokens and seconds, for each pass: about the last twenty count
_NEW = 0.2  # weight of the newest time among those of passes of one size
_WORST = 2.0  # a pass that took longer than this many times what was expected was disturbed by something else
_SLOPE = 0.12  # cost of a token more against one token alone, before anything was measured


class Pace:
    """Learns the cost of a pass by its number of tokens, and chooses how many guesses to verify."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._won, self._spent = 0.0, 0.0

    def observe(self, tokens: int, seconds: float, won: int, share: float = 1.0) -> None:
        """A pass of ``tokens`` tokens took ``seconds`` and gave ``won`` tokens of text.

        ``share`` below 1: so much of the pass was for this text; the others report theirs.
        """
        expected = self.cost(tokens) if self._seconds else seconds
        seconds = min(seconds, _WORST * expected)
        weight = _NEW * share if tokens in self._seconds else 1.0
        self._seconds[tokens] = expected + weight * (seconds - expected)
        kept = _RATE_MEMORY**share
        self._won = kept * self._won + won
        self._spent = kept * self._spent + share * seconds

    def cost(self, tokens: int) -> float:
        """Seconds that a pass of so many tokens probably takes: between the measured sizes a straight line."""
        known = self._seconds.get(tokens)
        if known is not None:
            return known
        below = max((size for size in self._seconds if size < tokens), default=None)
        above = min((size for size in self._seconds if size > tokens), default=None)
        if below is not None and above is not None:
            share = (tokens - below) / (above - below)
            return (1 - share) * self._seconds[below] + share * self._seconds[above]
        nearest = below if below is not None else above
        if nearest is None:
            return _guessed(tokens)
        return self._seconds[nearest] * _guessed(tokens) / _guessed(nearest)

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


def _guessed(tokens: int) -> float:
    return 1.0 + _SLOPE * (tokens - 1)
