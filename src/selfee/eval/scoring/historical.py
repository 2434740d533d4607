"""The score reader of the original's evaluation script (June 2023), kept to find what it could not read.

Its ``[-1, -1]`` went into the sums unless a person repaired the file; nothing here but the report's list of repaired
reviews uses it.
"""

from __future__ import annotations

import re

FAILED = (-1.0, -1.0)
"""What the original stored where it could not read a reply."""


def read_as_2023(reply: str) -> tuple[float, float]:
    """Two numbers on the first line, else the last pair in parentheses of the last line, else ``FAILED``."""
    lines = reply.split("\n")
    words = lines[0].replace(",", " ").split()
    if len(words) == 2 and None not in (numbers := [_number(word) for word in words]):
        return numbers[0] or 0.0, numbers[1] or 0.0
    pairs = re.findall(r"\(([^(),]*),([^(),]*)\)", lines[-1])
    if pairs and None not in (numbers := [_number(word) for word in pairs[-1]]):
        return numbers[0] or 0.0, numbers[1] or 0.0
    return FAILED


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
