"""Which of several lettered options an answer chooses, and whether it is the right one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from selfee.chain.checkers.base import Signal
from selfee.chain.checkers.number import find_number
from selfee.chain.types import Check, Instruction
from selfee.errors import UsageError

_OPTION = re.compile(r"\s*\(?(?P<letter>[A-Z])\s*[).:]\s*(?P<text>.*)", re.DOTALL)
_BOXED = r"\\boxed\s*\{\s*(?:\\text\s*\{\s*)?\(?([%s])\)?[\s.}]*\}"
_SAYS = (
    r"\b(?:answer|option|choice)s?\b[^\n.:]{0,60}?(?:\bis\b|\bwas\b|:)?\s*(?:option|choice|answer)?\s*"
    r"[*_`(\[\"']{0,4}([%s])(?![\w'’])"
)
_ALONE = r"(?:(?:final\s+)?answer\s*[:=]\s*|option\s+)?[*_`(\[\"'\s]*([%s])(?:[*_`)\]\"'.:\s]|$)[^\n]*"
_IN_BRACKETS = r"\(([%s])\)"
_BARE = r"(?<![\w'’])([%s])(?=[).:,]|\s*$)"


class ChoiceChecker:
    """Passes answers that choose the right letter; ``options`` are texts such as "A)5 km".

    An answer that names no letter but ends with the number of exactly one option has chosen that. Raises UsageError for
    a reference that is no letter of the options.
    """

    def __init__(
        self, reference: str, options: Sequence[str], *, name: str = "letter", signal: Signal = Signal.GOLD
    ) -> None:
        self.name = name
        self.signal = signal
        self._options = dict(_split(option) for option in options)
        self._right = reference.strip().strip("().").upper()
        if self._right not in self._options:
            raise UsageError(
                f"options: {reference!r} is none of {', '.join(self._options)}; expected the letter of the right one"
            )

    def check(self, instruction: Instruction, answer: str) -> Check:
        """Compare the letter that the answer chooses."""
        chosen = self.chosen(answer)
        if chosen is None:
            return Check(False, 0.0, reason=f"no letter found; expected {self._right}")
        is_right = chosen == self._right
        verb = "is right" if is_right else f"expected {self._right}"
        return Check(is_right, float(is_right), reason=f"found {chosen}; {verb}")

    def chosen(self, text: str) -> str | None:
        """The letter that a text chooses (an Extractor): boxed, alone on its last line, after "the answer is", …"""
        letters = "".join(self._options)
        boxes: list[str] = re.findall(_BOXED % letters, text)
        if boxes:
            return boxes[-1]
        lines = [line.strip() for line in text.splitlines() if line.strip(" *_`#>.")]
        alone = re.fullmatch(_ALONE % letters, lines[-1].lstrip("#> "), re.IGNORECASE) if lines else None
        if alone is not None and alone[1].isupper() and self._is_choice(lines[-1], alone[1]):
            return alone[1]
        said: list[str] = [found for found in re.findall(_SAYS % letters, text, re.IGNORECASE) if found.isupper()]
        if said:
            return said[-1]
        for pattern in (_IN_BRACKETS, _BARE):
            found: list[str] = re.findall(pattern % letters, text)
            if found:
                return found[-1]
        return self._by_number(text)

    def _is_choice(self, line: str, letter: str) -> bool:
        """Whether a line that begins with a letter chooses it: "A train leaves" does not."""
        rest = re.split(rf"(?<!\w){letter}(?!\w)", line, maxsplit=1)[-1].strip("*_`)]\"'.: \t")
        return not rest or rest.casefold().startswith(self._options[letter].strip().casefold()[:20].rstrip("."))

    def _by_number(self, text: str) -> str | None:
        number = find_number(text)
        if number is None:
            return None
        same = [
            letter
            for letter, option in self._options.items()
            if (found := find_number(option)) is not None and found[0] == number[0]
        ]
        return same[0] if len(same) == 1 else None


def _split(option: str) -> tuple[str, str]:
    match = _OPTION.fullmatch(option)
    if match is None:
        raise UsageError(f'options: {option[:40]!r} has no letter; expected texts such as "A)5 km"')
    return match["letter"], match["text"]
