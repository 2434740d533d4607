"""Find the tokens that are matched as a whole before a text is cut into pieces."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

Part = tuple[str, bool]
"""A stretch of text, and whether it is markup (ours) rather than content (somebody's words)."""


class SpecialTokens:
    """Control tokens, which only markup may contain, and user-defined tokens, which any text may contain.

    Longer tokens win over shorter ones, then a lower id; a token found first keeps its characters (llama.cpp's order).
    """

    def __init__(self, control: Mapping[str, int], user_defined: Mapping[str, int]) -> None:
        found = [(text, token, True) for text, token in control.items()]
        found += [(text, token, False) for text, token in user_defined.items()]
        self._tokens = sorted(found, key=lambda entry: (-len(entry[0].encode()), entry[1]))

    def split(self, parts: Sequence[Part]) -> list[str | int]:
        """Stretches of text and token ids in order. A control token lies in markup entirely, or it is plain text."""
        text = "".join(part for part, _ in parts)
        ends, content = _content_spans(parts)
        letters = set(text)
        taken = bytearray(len(text))
        hits: list[tuple[int, int, int]] = []
        all_content = content == [(0, len(text))]
        for special, token, is_control in self._tokens:
            if special[0] not in letters or (is_control and all_content):
                continue
            start = text.find(special)
            while start >= 0:
                end = start + len(special)
                if taken.find(1, start, end) < 0 and not (is_control and _touches(ends, content, start, end)):
                    taken[start:end] = b"\1" * len(special)
                    hits.append((start, end, token))
                    start = text.find(special, end)
                else:
                    start = text.find(special, start + 1)
        return _cut(text, sorted(hits))


def _content_spans(parts: Sequence[Part]) -> tuple[list[int], list[tuple[int, int]]]:
    """The stretches [start, end) that are content, neighbours joined, and their ends alone."""
    spans: list[tuple[int, int]] = []
    position = 0
    for text, is_markup in parts:
        end = position + len(text)
        if text and not is_markup:
            if spans and spans[-1][1] == position:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((position, end))
        position = end
    return [end for _, end in spans], spans


def _touches(ends: Sequence[int], spans: Sequence[tuple[int, int]], start: int, end: int) -> bool:
    """Whether [start, end) has a character of content."""
    first = bisect_left(ends, start + 1)
    return first < len(spans) and spans[first][0] < end


def _cut(text: str, hits: Sequence[tuple[int, int, int]]) -> list[str | int]:
    result: list[str | int] = []
    position = 0
    for start, end, token in hits:
        if start > position:
            result.append(text[position:start])
        result.append(token)
        position = end
    if position < len(text):
        result.append(text[position:])
    return result
