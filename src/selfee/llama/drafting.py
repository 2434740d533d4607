"""Guessing the next tokens: a revision repeats much of the answer that it revises, and a critic repeats itself.

A drafter follows a text and proposes what comes next, with the chance that each guess is right, so that only as much is
verified as pays (``selfee.llama.pace``). Three sources guess: the text so far, the memory of texts written before, and
a pointer that walks the text being revised and finds its place again after each divergence. Guesses may change speed,
never output. How the sources were chosen, and figures: ``docs/explanation/drafting.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from selfee.weights.quantize import native

_LEAST_CHANCE = 0.02  # less is never worth a place, on any machine
_MEMORY_ENTRIES = 1 << 20  # 16 MiB: what followed the ends of about 130,000 tokens


class Draft(NamedTuple):
    """Guesses, and for each the chance that it and all before it are right (never rising)."""

    tokens: Sequence[int]
    chances: Sequence[float]


NO_DRAFT = Draft((), ())


class Drafter(Protocol):
    """Follows a text and guesses what comes next."""

    def begin(self, tokens: Sequence[int]) -> None:
        """A text that is to be continued; replaces the one before."""
        ...

    def wrote(self, tokens: Sequence[int]) -> None:
        """The model continued the text with these."""
        ...

    def propose(self, limit: int) -> Draft:
        """At most ``limit`` guesses of what comes next."""
        ...


class DraftMemory:
    """What the model wrote in earlier texts, and how often which kind of guess was right. Threads may share it.

    It holds nothing of prompts. ``entries`` of 16 bytes bound it (at least 1024, rounded up to a power of two); an
    eighth as many tokens are remembered.
    """

    def __init__(self, entries: int = _MEMORY_ENTRIES) -> None:
        self._native = native().DraftMemory(entries)

    @property
    def bytes(self) -> int:
        """What it takes by now."""
        return int(self._native.bytes)


class CopyDrafter:
    """Implements Drafter with the three sources. Without ``memory`` it learns from its own text alone."""

    def __init__(self, memory: DraftMemory | None = None) -> None:
        self._memory = memory or DraftMemory()
        self._native = native().Drafter(self._memory._native)

    def begin(self, tokens: Sequence[int]) -> None:
        """See ``Drafter.begin``."""
        self._native = native().Drafter(self._memory._native)
        self._native.read(np.asarray(tokens, dtype=np.int32))

    def revise(self, original: Sequence[int]) -> None:
        """From here on the text probably repeats ``original`` from its start; empty: nothing in particular."""
        self._native.revise(np.asarray(original, dtype=np.int32))

    def wrote(self, tokens: Sequence[int]) -> None:
        """See ``Drafter.wrote``."""
        self._native.write(np.asarray(tokens, dtype=np.int32))

    def propose(self, limit: int) -> Draft:
        """See ``Drafter.propose``."""
        return Draft(*self._native.propose(limit, _LEAST_CHANCE))
