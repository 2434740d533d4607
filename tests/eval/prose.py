"""A text of the tiny model's words, as long as a test wants it, always the same."""

from __future__ import annotations

import random

from tests.tiny import WORDS


def prose(words: int, seed: int = 0) -> str:
    """So many words, a line break here and there."""
    choose = random.Random(seed)
    return "".join(choose.choice(WORDS) + choose.choice("  \n") for _ in range(words))
