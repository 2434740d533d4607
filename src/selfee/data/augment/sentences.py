"""Where sentences begin and end, without being fooled by numbers, abbreviations and code."""

from __future__ import annotations

import re

_ABBREVIATIONS = re.compile(
    r"e\.g|i\.e|etc|vs|dr|mr|mrs|ms|prof|st|no|fig|eq|cf|approx|al|inc|ltd|jr|sr|dept|est|vol|pp", re.IGNORECASE
)
_END = re.compile(r"[.!?]+[\"'”’)\]*_]*(?=\s|\Z)|\n\s*")
_LAST_WORD = re.compile(r"([\w.]+)\Z")
_FENCE = re.compile(r"^```.*?(?:^```[^\n]*$|\Z)", re.MULTILINE | re.DOTALL)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of every sentence, without the white space around it; a block of code is one, a line's end ends one.

    "It costs 3.5 dollars, e.g. for bread." is one sentence.
    """
    blocks = [match.span() for match in _FENCE.finditer(text)]
    spans: list[tuple[int, int]] = []
    start = 0
    for begin, end in [*blocks, (len(text), len(text))]:
        spans += _prose_spans(text, start, begin)
        if end > begin:
            spans.append((begin, end))
        start = end
    return spans


def _prose_spans(text: str, start: int, stop: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    at = start
    for match in _END.finditer(text, start, stop):
        if match[0].startswith(".") and _is_abbreviation(text[at : match.start()]):
            continue
        _add(spans, text, at, match.end())
        at = match.end()
    _add(spans, text, at, stop)
    return spans


def _add(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    if piece.strip():
        left = len(piece) - len(piece.lstrip())
        spans.append((start + left, start + len(piece.rstrip())))


def _is_abbreviation(before: str) -> bool:
    word = _LAST_WORD.search(before)
    if word is None:
        return False
    # A list's "1." at the start of a line is no end either.
    at_line_start = not before[: word.start()].rsplit("\n", 1)[-1].strip()
    return _ABBREVIATIONS.fullmatch(word[1]) is not None or (word[1].isdecimal() and at_line_start)
