"""The drafter to beat: prompt look-up, as other engines have it."""

from __future__ import annotations

from collections.abc import Sequence


class LookupDrafter:
    """Proposes what followed the longest earlier occurrence of the text's end, the most recent one of equals.

    Matches of ``longest`` to ``shortest`` tokens count; at most ``most`` tokens are proposed (Saxena 2023).
    """

    def __init__(self, longest: int = 6, shortest: int = 2, most: int = 32) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._most = most
        self._text: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}  # n-gram -> where the text went on after its latest occurrence

    def wrote(self, tokens: Sequence[int]) -> None:
        """The text goes on with these."""
        for token in tokens:
            for size in self._sizes:
                if size <= len(self._text):
                    self._ends[tuple(self._text[-size:])] = len(self._text)
            self._text.append(token)

    def propose(self, limit: int) -> Sequence[int]:
        """At most ``limit`` guesses."""
        for size in self._sizes:
            start = self._ends.get(tuple(self._text[-size:])) if size < len(self._text) else None
            if start is not None:
                return self._text[start : start + min(limit, self._most)]
        return []
