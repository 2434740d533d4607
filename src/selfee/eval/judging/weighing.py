"""What a judge's own token probabilities say beside its words: how sure it is of a label, which rating it expects.

The token that holds the verdict is found by its place in the text; its rivals are the likeliest other tokens at that
place. A verdict that tokens cut apart ("1" and "0" of a 10) cannot be weighed, and is then taken as it was said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from selfee.engines.base import TokenLogprob
from selfee.eval.scoring.judgment import Label

TOP = 20
"""Likeliest tokens that are asked for: as many as servers give."""

_LABEL = re.compile(r"\[\[\s*([ABC])\s*\]\]")
_RATING = re.compile(r"(?:\[\[\s*|\brating\s*[:=]\s*[*_`]*)(\d{1,2})(?![\d.])", re.IGNORECASE)
_SAID = {"A": 1.0, "B": 0.0, "C": 0.5}


def weigh_label(text: str, logprobs: Sequence[TokenLogprob], label: Label | None) -> float | None:
    """The probability that the first answer is better, a tie counting half; None where it cannot be told."""
    chances = _chances(text, logprobs, _LABEL, "ABC")
    if chances is None or label is None:
        return None
    total = sum(chances.values())
    return sum(_SAID[letter] * chance for letter, chance in chances.items()) / total


def weigh_rating(text: str, logprobs: Sequence[TokenLogprob], lowest: int = 1, highest: int = 10) -> float | None:
    """The rating that the judge's probabilities expect; None where it cannot be told."""
    chances = _chances(text, logprobs, _RATING, None)
    if chances is None:
        return None
    inside = {int(number): chance for number, chance in chances.items() if lowest <= int(number) <= highest}
    total = sum(inside.values())
    return sum(number * chance for number, chance in inside.items()) / total if total > 0 else None


def _chances(
    text: str, logprobs: Sequence[TokenLogprob], pattern: re.Pattern[str], letters: str | None
) -> dict[str, float] | None:
    """Verdict -> probability, over the likeliest tokens at the place of the last verdict in the text."""
    matches = list(pattern.finditer(text))
    if not matches or "".join(entry.text for entry in logprobs) != text:
        return None
    start, end = matches[-1].span(1)
    position = 0
    for entry in logprobs:
        if position <= start < position + len(entry.text):
            before, behind = text[position:start], text[end : position + len(entry.text)]
            if end > position + len(entry.text):
                return None  # the verdict goes on in the next token
            return _rivals(entry, before, behind, letters)
        position += len(entry.text)
    return None


def _rivals(entry: TokenLogprob, before: str, behind: str, letters: str | None) -> dict[str, float] | None:
    told = {text: logprob for _, text, logprob in entry.top} | {entry.text: entry.logprob}
    chances: dict[str, float] = {}
    for text, logprob in told.items():
        if len(text) <= len(before) + len(behind) or not (text.startswith(before) and text.endswith(behind)):
            continue
        verdict = text[len(before) : len(text) - len(behind)].strip()
        is_one = verdict in letters if letters is not None else verdict.isdecimal()
        if verdict and is_one and math.isfinite(logprob):
            chances[verdict] = chances.get(verdict, 0.0) + math.exp(min(logprob, 0.0))
    return chances if sum(chances.values()) > 0 else None
