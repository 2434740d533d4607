"""What changed between two versions of an answer, word by word."""

from __future__ import annotations

import collections
import difflib
import re
from dataclasses import dataclass

_WORD = re.compile(r"\S+")
_SPACED = re.compile(r"\s*\S+|\s+$")  # a word with the blanks before it: line breaks are part of a text
_CONTEXT = 3  # words shown before and after a change
_MOST_WORDS = 4000  # of both versions together; comparing takes time quadratic in this


@dataclass(frozen=True)
class Piece:
    """Words that both versions have, or only the newer or the older one."""

    kind: str  # "kept", "added", "removed", "gap" (kept words that are not shown)
    text: str


@dataclass(frozen=True)
class Changes:
    """The difference of two texts."""

    added: int  # words
    removed: int
    kept: int
    pieces: tuple[Piece, ...]

    @property
    def kept_share(self) -> float:
        """Words kept, as a part of the longer version."""
        longer = self.kept + max(self.added, self.removed)
        return self.kept / longer if longer else 1.0

    @property
    def summary(self) -> str:
        """In words: "+12 −5 words"."""
        if not self.added and not self.removed:
            return "no word changed"
        return f"+{self.added} −{self.removed} words, {self.kept_share:.0%} kept"


def compare(old: str, new: str) -> Changes:
    """Words added, removed and kept from ``old`` to ``new``."""
    before, after = _WORD.findall(old), _WORD.findall(new)
    if len(before) + len(after) > _MOST_WORDS:
        kept = sum((_count(before) & _count(after)).values())
        return Changes(len(after) - kept, len(before) - kept, kept, ())
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    pieces: list[Piece] = []
    kept = 0
    for kind, start_old, end_old, start_new, end_new in matcher.get_opcodes():
        if kind == "equal":
            kept += end_old - start_old
            pieces.append(Piece("kept", " ".join(before[start_old:end_old])))
            continue
        if end_old > start_old:
            pieces.append(Piece("removed", " ".join(before[start_old:end_old])))
        if end_new > start_new:
            pieces.append(Piece("added", " ".join(after[start_new:end_new])))
    return Changes(len(after) - kept, len(before) - kept, kept, tuple(_shorten(pieces)))


def edits(old: str, new: str) -> tuple[Piece, ...] | None:
    """From ``old`` to ``new`` without leaving anything out, blanks included: kept and added pieces joined are ``new``.

    None where the texts are too long to be compared.
    """
    before, after = _SPACED.findall(old), _SPACED.findall(new)
    if len(before) + len(after) > _MOST_WORDS:
        return None
    old_words, new_words = [piece.strip() for piece in before], [piece.strip() for piece in after]
    matcher = difflib.SequenceMatcher(None, old_words, new_words, autojunk=False)
    pieces: list[Piece] = []
    for kind, start_old, end_old, start_new, end_new in matcher.get_opcodes():
        if kind == "equal":
            pieces.append(Piece("kept", "".join(after[start_new:end_new])))
            continue
        if end_old > start_old:
            pieces.append(Piece("removed", "".join(before[start_old:end_old])))
        if end_new > start_new:
            pieces.append(Piece("added", "".join(after[start_new:end_new])))
    return tuple(pieces)


def _count(words: list[str]) -> collections.Counter[str]:
    return collections.Counter(words)


def _shorten(pieces: list[Piece]) -> list[Piece]:
    """Leave out kept words far from a change."""
    shown: list[Piece] = []
    for number, piece in enumerate(pieces):
        words = piece.text.split(" ")
        is_first, is_last = number == 0, number == len(pieces) - 1
        sides = (0 if is_first else _CONTEXT) + (0 if is_last else _CONTEXT)
        if piece.kind != "kept" or len(words) <= sides + 1:
            shown.append(piece)
            continue
        if not is_first:
            shown.append(Piece("kept", " ".join(words[:_CONTEXT])))
        shown.append(Piece("gap", "…"))
        if not is_last:
            shown.append(Piece("kept", " ".join(words[-_CONTEXT:])))
    return shown
