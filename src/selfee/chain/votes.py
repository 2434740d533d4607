"""Self-consistency: what each attempt's final answer is, and which most attempts agree on."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from selfee.chain.checkers.regex import check_pattern, search
from selfee.errors import UsageError

Extractor = Callable[[str], str | None]
"""Given an answer's text, what it comes to, so that equal answers are equal texts; None = it gives none."""

_NUMBER = re.compile(
    r"(?<![0-9.])[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?"
)
_LONGEST_NUMBER = 400  # characters
_BOXED = "\\boxed{"
_MINUS = str.maketrans({"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-"})


@dataclass(frozen=True)
class Vote:
    """An answer and the attempts that came to it, counted from 0."""

    answer: str
    attempts: tuple[int, ...]


def last_number(text: str) -> str | None:
    """The last number in a text, written the one way: "1,234.50" and "1234.5" are the same."""
    numbers = [match[0] for match in _NUMBER.finditer(text.translate(_MINUS))]
    return _plain_number(numbers[-1]) if numbers else None


def boxed(text: str) -> str | None:
    r"""What stands in the last ``\boxed{…}``, as mathematicians mark results; a number as ``last_number`` has it."""
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    depth = 1
    for place in range(start + len(_BOXED), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            inner = "".join(text[start + len(_BOXED) : place].split()).translate(_MINUS)
            return (_plain_number(inner) if _NUMBER.fullmatch(inner) else inner) or None
    return None


def whole_text(text: str) -> str | None:
    """The whole text without what two equal answers may differ in: case, white space, punctuation at the ends."""
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(words).strip(string.punctuation + string.whitespace) or None


def short_answer(text: str) -> str | None:
    """What is boxed, else the last number, else the whole text."""
    return boxed(text) or last_number(text) or whole_text(text)


def by_pattern(pattern: str) -> Extractor:
    """The first group of a pattern's first match, or the whole match. Raises UsageError for what is no pattern."""
    check_pattern(pattern)

    def extract(text: str) -> str | None:
        found = search(pattern, text)
        return None if found is None else whole_text(found[-1])

    extract.__name__ = f"pattern {pattern}"
    return extract


EXTRACTORS: dict[str, Extractor] = {
    "short": short_answer,
    "number": last_number,
    "boxed": boxed,
    "text": whole_text,
}


def find_extractor(name: str) -> Extractor:
    """The extractor of this name, or that of a pattern between slashes. Raises UsageError for others."""
    if len(name) > 2 and name.startswith("/") and name.endswith("/"):
        return by_pattern(name[1:-1])
    if name not in EXTRACTORS:
        raise UsageError(f"votes: {name!r} is unknown; expected one of {', '.join(EXTRACTORS)} or /a pattern/")
    return EXTRACTORS[name]


def try_extract(extractor: Extractor, text: str) -> str | None:
    """What an extractor finds; one that raises, or takes too long, finds nothing."""
    try:
        return extractor(text)
    except Exception:  # it may be somebody else's code
        return None


def count_votes(answers: Sequence[str | None]) -> tuple[Vote, ...]:
    """Attempts by what they came to: most votes first, of equals the one that came first. None is no vote."""
    groups: dict[str, list[int]] = {}
    for number, answer in enumerate(answers):
        if answer is not None:
            groups.setdefault(answer, []).append(number)
    votes = [Vote(answer, tuple(attempts)) for answer, attempts in groups.items()]
    return tuple(sorted(votes, key=lambda vote: (-len(vote.attempts), vote.attempts[0])))


def _plain_number(text: str) -> str | None:
    if len(text) > _LONGEST_NUMBER:
        return text.replace(",", "")
    try:
        number = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None
    if number == 0:
        return "0"
    plain = format(number, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
