"""The number that an answer ends with, and whether it is the right one.

Answers say their result in many ways: ``#### 18``, ``\\boxed{18}``, "The answer is $18.00.", "**18 dollars**", "3/4",
"1 1/2", "1,234.50", "-5", "½", "12 %". The number is read exactly, never as a binary fraction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from selfee.chain.checkers.base import Signal
from selfee.chain.types import Check, Instruction
from selfee.errors import UsageError

_LONGEST = 60  # characters of a number; longer ones are no result
_LONGEST_TEXT = 100_000  # characters looked at, from the end
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = rf"""
    (?P<sign>(?<![\w.)\]}}%])[-+])?[ ]?(?:[$€£¥]|\\\$|USD[ ]?)?(?P<inner_sign>(?<=[$€£¥])-)?
    (?:
        \\d?frac\{{(?P<latex_over>[0-9]+)\}}\{{(?P<latex_under>[0-9]+)\}}
      | (?:(?P<whole>{_DIGITS})[ ]+)?(?P<over>[0-9]+)[ ]?/[ ]?(?P<under>[0-9]+)(?![0-9/])
      | (?P<decimal>{_DIGITS}(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+)(?:[eE](?P<exponent>[-+]?[0-9]{{1,2}}))?
    )
    (?P<percent>[ ]?\\?%)?
"""
_FIND = re.compile(_NUMBER, re.VERBOSE)
_UNITS = r"(?:[ ]?[a-z°²³][\w²³/.'-]*(?:[ ]+[a-z(][\w²³/.()'-]*){0,3})?"
_ALONE = re.compile(rf"(?:=[ ]?)?{_NUMBER}{_UNITS}[.!]?".replace("[ ]+[a-z(]", "[ ]+[a-z(]"), re.VERBOSE)
_WORKED = re.compile(r"<<[^<>\n]*>>")  # GSM8K's calculator notes
_MARKS = re.compile(
    r"[*_`]|^\s*[#>]+|\\[()\[\]]|\\(?:text|mathrm|,|;|!|left|right)\b|\$(?![0-9.-])|(?<=[0-9])\$", re.MULTILINE
)
_HASHES = re.compile(r"####\s*(?P<rest>[^\n]*)")
_BOXED = re.compile(r"\\boxed\s*\{")
_SAYS = re.compile(
    r"\b(?:final\s+)?(?:answer|result)\b[^\n.:=]{0,80}?(?:\bis\b|\bwas\b|\bare\b|\bequals\b|:|=)(?P<rest>[^\n]*)", re.I
)
_TABLE = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{NO-BREAK SPACE}": " ",
        "\N{NARROW NO-BREAK SPACE}": " ",
        "\N{THIN SPACE}": " ",
        "\N{FRACTION SLASH}": "/",
        "½": " 1/2",
        "¼": " 1/4",
        "¾": " 3/4",
        "⅓": " 1/3",
        "⅔": " 2/3",
    }
)


class NumberChecker:
    """Passes answers that end with the right number. Raises UsageError for a reference without one.

    A reference with decimals is met by what rounds to it: 66.67 by 66.6667. ``percent`` never matters: 12 % meets 12.
    """

    def __init__(self, reference: str, *, name: str = "number", signal: Signal = Signal.GOLD) -> None:
        found = find_number(reference)
        if found is None:
            raise UsageError(f"number: no number can be found in the reference {reference[-80:]!r}; expected one")
        self.name = name
        self.signal = signal
        self._right, self._decimals = found

    def check(self, instruction: Instruction, answer: str) -> Check:
        """Compare the number that the answer ends with."""
        found = find_number(answer)
        if found is None:
            return Check(False, 0.0, reason=f"no number found; expected {shown(self._right)}")
        is_right = found[0] == self._right or (self._decimals > 0 and self._rounded(found[0]) == self._right)
        verb = "is right" if is_right else f"expected {shown(self._right)}"
        return Check(is_right, float(is_right), reason=f"found {shown(found[0])}; {verb}")

    def _rounded(self, number: Fraction) -> Fraction:
        scale = 10**self._decimals
        half_up = abs(number) * scale + Fraction(1, 2)
        return Fraction(half_up.numerator // half_up.denominator, scale) * (1 if number >= 0 else -1)


def final_number(text: str) -> str | None:
    """The number that a text ends with, written the one way, so that equal numbers are equal texts (an Extractor)."""
    found = find_number(text)
    return None if found is None else shown(found[0])


def find_number(text: str) -> tuple[Fraction, int] | None:
    """The number that a text gives as its result, and its decimals; None if it gives none.

    What the text itself marks as its result counts: after ``####``, in a box, alone on the last line, after "the answer
    is"; else the last number.
    """
    plain = _WORKED.sub("", text[-_LONGEST_TEXT:].translate(_TABLE))
    for candidate in _candidates(plain):
        if candidate is not None:
            return candidate
    return None


def shown(number: Fraction) -> str:
    """A number the one way: an integer, a decimal fraction if it ends, else a fraction."""
    under = number.denominator
    for prime in (2, 5):
        while under % prime == 0:
            under //= prime
    if under != 1:
        return f"{number.numerator}/{number.denominator}"
    digits = 0
    while (number * 10**digits).denominator != 1:
        digits += 1
    whole = abs((number * 10**digits).numerator)
    sign = "-" if number < 0 else ""
    return f"{sign}{whole // 10**digits}.{whole % 10**digits:0{digits}}" if digits else f"{sign}{whole}"


def _candidates(text: str) -> Iterator[tuple[Fraction, int] | None]:
    marked = [match["rest"] for match in _HASHES.finditer(text)]
    yield next((found for rest in reversed(marked) if (found := _alone(rest)) is not None), None)
    yield _boxed(text)
    lines = [line for line in text.splitlines() if line.strip(" *_`\\[]()$.-=#>|")]
    yield _alone(lines[-1]) if lines else None
    said = [match["rest"] for match in _SAYS.finditer(text)]
    yield next((found for rest in reversed(said) if (found := _of_sentence(rest)) is not None), None)
    yield _last(text)


def _alone(line: str) -> tuple[Fraction, int] | None:
    """The number that a line consists of, with marks and units around it."""
    match = _ALONE.fullmatch(_MARKS.sub("", line).strip())
    return None if match is None else _value(match)


def _boxed(text: str) -> tuple[Fraction, int] | None:
    boxes = list(_BOXED.finditer(text))
    if not boxes:
        return None
    depth, start = 1, boxes[-1].end()
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return _of_sentence(text[start:place])
    return None


def _of_sentence(rest: str) -> tuple[Fraction, int] | None:
    """The number that "the answer is …" goes on with: after its last "=", else the first."""
    sentence = re.split(r"(?<=[^0-9])\.(?:\s|$)|(?<=[0-9])\.(?:\s|$)|[!?;]", _MARKS.sub("", rest), maxsplit=1)[0]
    if "=" in sentence:
        sentence = sentence.rsplit("=", 1)[1]
    numbers = (_value(match) for match in _FIND.finditer(sentence))
    return next((number for number in numbers if number is not None), None)


def _last(text: str) -> tuple[Fraction, int] | None:
    for match in reversed(list(_FIND.finditer(_MARKS.sub("", text)))):
        if (found := _value(match)) is not None:
            return found
    return None


def _value(match: re.Match[str]) -> tuple[Fraction, int] | None:
    """The number in a match, and its decimals; None for one that is too long or divides by zero."""
    if len(match[0]) > _LONGEST:
        return None
    sign = -1 if "-" in ((match["sign"] or "") + (match["inner_sign"] or "")) else 1
    over, under = match["over"] or match["latex_over"], match["under"] or match["latex_under"]
    if over is not None:
        if int(under) == 0:
            return None
        whole = Fraction(match["whole"].replace(",", "")) if match["whole"] else Fraction(0)
        return sign * (whole + Fraction(int(over), int(under))), 0
    digits = match["decimal"].replace(",", "")
    decimals = len(digits.partition(".")[2])
    exponent = int(match["exponent"] or 0)
    return sign * Fraction(digits) * Fraction(10) ** exponent, max(0, decimals - exponent)
