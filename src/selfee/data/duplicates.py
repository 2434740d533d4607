"""Which questions were asked before: the same words, or nearly the same.

Two questions are the same if their words are: case, white space and the punctuation of sentences do not count. They
are near-duplicates if enough of the groups of three neighbouring words are in both (Jaccard), as MinHash estimates it.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from selfee.errors import MissingExtraError, UsageError

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_PROSE = ".,;:?…\"“”'‘’*_`"
# The punctuation of words and sentences: 3+5 is not 3-5. Each run is looked at once, from its beginning.
_ENDS = re.compile(rf"(?<![{_PROSE}])[{_PROSE}]+(?=\s|\Z)|(?<!\S)[\"“”'‘’*_`]+")
_GROUP = 3  # words
_FEWEST_WORDS = 8  # shorter questions differ in too few groups: only the same words make them duplicates
_NUM_HASHES = 128  # the estimate's standard error is at most 1 / (2 √128) = 0.044
_SEED = 2023


@dataclass(frozen=True)
class Duplicate:
    """What a question repeats."""

    of: str  # the id of the one that was kept
    is_near: bool


class Duplicates:
    """Remembers questions by id; memory is about 100 bytes a question, 1 KB where near-duplicates are sought.

    Near-duplicates are only sought among questions added with ``near``.
    """

    def __init__(self, threshold: float = 0.8) -> None:
        if not 0.5 <= threshold <= 1.0:
            raise UsageError(f"threshold of near-duplicates: {threshold}; expected 0.5 to 1")
        self._threshold = threshold
        self._seen: dict[bytes, str] = {}
        self._near: list[tuple[str, Any]] = []  # id and sketch
        self._index: Any = None

    def add(self, id: str, text: str, *, near: bool = False) -> Duplicate | None:
        """Remember a question, or say which earlier one it repeats (it is then not remembered)."""
        key = hashlib.blake2b(same_words(text).encode("utf-8", "replace"), digest_size=12).digest()
        first = self._seen.get(key)
        if first is not None:
            return Duplicate(first, is_near=False)
        if near and self._threshold < 1.0:
            groups = word_groups(text)
            if groups and (other := self._find_near(groups, id)) is not None:
                return Duplicate(other, is_near=True)
        self._seen[key] = id
        return None

    def _find_near(self, groups: Sequence[str], id: str) -> str | None:
        sketch_of, new_index = _minhash()
        if self._index is None:
            self._index = new_index(self._threshold)
        sketch = sketch_of(groups)
        close = [(self._near[place][1].jaccard(sketch), -place) for place in self._index.query(sketch)]
        if close and max(close)[0] >= self._threshold:
            kept: str = self._near[-max(close)[1]][0]
            return kept
        self._index.insert(len(self._near), sketch)
        self._near.append((id, sketch))
        return None


def same_words(text: str) -> str:
    """The text without what does not make it another: case, white space, the punctuation of sentences."""
    return " ".join(_ENDS.sub(" ", text.casefold()).split()) or text.strip()


def word_groups(text: str) -> list[str]:
    """The different groups of three neighbouring words or symbols; none for a short text."""
    words = _WORD.findall(text.casefold())
    if len(words) < _FEWEST_WORDS:
        return []
    return list({" ".join(words[place : place + _GROUP]) for place in range(len(words) - _GROUP + 1)})


@functools.cache
def _minhash() -> tuple[Callable[[Sequence[str]], Any], Callable[[float], Any]]:
    try:
        from rensa import RMinHash, RMinHashLSH
    except ImportError as error:
        raise MissingExtraError(
            "near-duplicates: finding them needs the package 'rensa'; install it with: pip install 'selfee[data]'"
        ) from error

    def sketch(groups: Sequence[str]) -> Any:
        made = RMinHash(_NUM_HASHES, _SEED)
        made.update(groups)
        return made

    return sketch, lambda threshold: RMinHashLSH(threshold, _NUM_HASHES, _bands(threshold))


def _bands(threshold: float) -> int:
    """The fewest bands that find at least 99 of 100 pairs just above the threshold."""
    counts = [count for count in range(1, _NUM_HASHES + 1) if _NUM_HASHES % count == 0]
    return next(count for count in counts if (1 - threshold ** (_NUM_HASHES // count)) ** count < 0.01)
