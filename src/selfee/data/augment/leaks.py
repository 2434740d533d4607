"""Does feedback give the known right answer away? It is to guide, not to tell (specification of the original, D17)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FINAL = re.compile(r"####\s*(.+?)\s*\Z", re.DOTALL)
_SCORE = re.compile(
    r"\b\d{1,2}(?:\.\d+)?\s*(?:/|out of)\s*10\b|\b(?:score|rat(?:e|ed|ing))\b[^.\n]{0,40}?\d{1,2}(?:\.\d+)?",
    re.IGNORECASE,
)
_TALK = re.compile(
    r"\b(?:the |your )?(?:ground[- ]truth|gold(?:en)? answer|reference (?:answer|solution|code)|answer key|"
    r"expected (?:answer|output is|solution)|(?:correct|right|actual|true) (?:answer|solution|result|output|value) "
    r"(?:is|should be|would be)|(?:given|provided) (?:correct |right )?(?:answer|solution) is)\b",
    re.IGNORECASE,
)
_TELLS = re.compile(
    r"(?:answer|result|option|choice|solution|total|value|equals?|output|should (?:be|return)|instead|=)"
    r"\W*(?:\w+\W+){0,4}\Z",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?%?")
_SHORT = 12  # characters; shorter references are compared as a final answer, not as a text
_SHORTEST_LINE = 20
_SMALL = 10  # numbers up to here stand in any text; they tell only where words say so


@dataclass(frozen=True)
class Leak:
    """How feedback gives the right answer away."""

    kind: str  # "text": the reference word for word; "line": a line of it; "final": its result; "talk": says it has it
    text: str  # the words of the feedback
    start: int

    @property
    def reveals(self) -> bool:
        """Whether the right answer itself is told, not only that there is one."""
        return self.kind != "talk"


def find_leaks(feedback: str, reference: str, answer: str, question: str = "") -> tuple[Leak, ...]:
    """Every leak: what the answer under review or the question says already is none."""
    leaks: list[Leak] = []
    if reference.strip():
        known = _flat(answer) + "\n" + _flat(question)
        leaks += _texts(feedback, reference, known) or _finals(feedback, reference, answer, question)
    leaks += [Leak("talk", match[0], match.start()) for match in _TALK.finditer(feedback)]
    return tuple(leaks)


def mask(feedback: str, leaks: tuple[Leak, ...]) -> str:
    """The feedback with what reveals the answer replaced by an ellipsis."""
    for leak in sorted(leaks, key=lambda leak: -leak.start):
        if leak.reveals:
            feedback = feedback[: leak.start] + "[…]" + feedback[leak.start + len(leak.text) :]
    return feedback


def _texts(feedback: str, reference: str, known: str) -> list[Leak]:
    whole = reference.strip()
    if len(whole) > _SHORT and _flat(whole) not in known and (found := _find(feedback, whole)) is not None:
        return [Leak("text", feedback[found[0] : found[1]], found[0])]
    leaks = []
    for line in {line.strip() for line in whole.splitlines()}:
        if len(line) >= _SHORTEST_LINE and _flat(line) not in known and (found := _find(feedback, line)) is not None:
            leaks.append(Leak("line", feedback[found[0] : found[1]], found[0]))
    return sorted(leaks, key=lambda leak: leak.start)


def _finals(feedback: str, reference: str, answer: str, question: str) -> list[Leak]:
    final = final_answer(reference)
    if final is None:
        return []
    prose = _SCORE.sub(lambda match: " " * len(match[0]), feedback)
    if (wanted := _as_number(final)) is not None:
        said = {_as_number(match[0]) for text in (answer, question) for match in _NUMBER.finditer(text)}
        if wanted in said:
            return []
        hits = [match for match in _NUMBER.finditer(prose) if _as_number(match[0]) == wanted]
        needs_words = abs(wanted) <= _SMALL
    else:
        pattern = re.compile(rf"(?<!\w){re.escape(final)}(?!\w)", 0 if len(final) == 1 else re.IGNORECASE)
        if len(final) > 1 and pattern.search(f"{answer}\n{question}"):
            return []
        hits = list(pattern.finditer(prose))
        needs_words = len(final) <= 3
        if needs_words and re.search(rf"(?:answer|option|choice)\W*(?:\w+\W+){{0,3}}{re.escape(final)}(?!\w)", answer):
            return []
    return [
        Leak("final", feedback[match.start() : match.end()], match.start())
        for match in hits
        if not needs_words or _TELLS.search(prose[max(0, match.start() - 60) : match.start()])
    ]


def final_answer(reference: str) -> str | None:
    """The result that a reference comes down to: after "####", or all of a short one; None for a text."""
    if match := _FINAL.search(reference):
        return match[1].strip() or None
    short = reference.strip()
    return short if 0 < len(short) <= _SHORT else None


def _find(text: str, wanted: str) -> tuple[int, int] | None:
    """Where the words of ``wanted`` stand in ``text``, whatever the white space and case."""
    words = wanted.split()
    match = re.search(r"\s+".join(re.escape(word) for word in words), text, re.IGNORECASE)
    return match.span() if match else None


def _flat(text: str) -> str:
    return " ".join(text.lower().split())


def _as_number(text: str) -> float | None:
    try:
        return float(text.strip().replace(",", "").replace("$", "").rstrip("%."))
    except ValueError:
        return None
