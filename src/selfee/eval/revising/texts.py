"""How much of a text comes from the one before it, word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"\w+|[^\w\s]")
_MOST_WORDS = 5_000  # of each text; more are not looked at


def words_of(text: str) -> list[str]:
    """Words and punctuation marks, white space left out."""
    return _WORD.findall(text)[:_MOST_WORDS]


def copied_share(before: str, after: str) -> float | None:
    """Share of the words of ``after`` that stand in ``before`` in the same order (the longest common subsequence)."""
    old, new = _numbered(words_of(before), words_of(after))
    return None if new.size == 0 else _common(old, new) / int(new.size)


def edit_share(before: str, after: str) -> float:
    """Words to insert, delete or replace between two texts, over the words of the longer: 0 = equal, 1 = all other."""
    old, new = _numbered(words_of(before), words_of(after))
    longest = max(old.size, new.size)
    return 0.0 if longest == 0 else _distance(old, new) / int(longest)


Numbers = npt.NDArray[np.int64]


def _numbered(*texts: Sequence[str]) -> tuple[Numbers, Numbers]:
    """Words as numbers, the same word the same number."""
    known: dict[str, int] = {}
    first, second = (np.array([known.setdefault(word, len(known)) for word in text], dtype=np.int64) for text in texts)
    return first, second


def _common(old: Numbers, new: Numbers) -> int:
    """Length of the longest common subsequence; a whole row of the usual table at a time."""
    row = np.zeros(new.size + 1, dtype=np.int64)
    for word in old:
        row[1:] = np.maximum.accumulate(np.maximum(row[1:], row[:-1] + (new == word)))
    return int(row[-1])


def _distance(old: Numbers, new: Numbers) -> int:
    """Levenshtein's distance, a row at a time: insertions are a running minimum once their cost is taken off."""
    steps = np.arange(new.size + 1)
    row = steps.copy()
    for number, word in enumerate(old, start=1):
        following = np.empty_like(row)
        following[0] = number
        following[1:] = np.minimum(row[1:] + 1, row[:-1] + (new != word))
        row = np.minimum.accumulate(following - steps) + steps
    return int(row[-1])
