"""Where a judge's reply says its scores or its label: every place that does, to be held against each other.

Judges write scores in five ways: as two numbers on a line of their own, as JSON, as a Python tuple, as "Assistant 1: 8"
lines, and in sentences. A pair of coordinates in a worked solution is none of them: a tuple counts only on a line of
its own, or after words that announce it.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from selfee.eval.scoring.judgment import Label


class Place(enum.Enum):
    """Where in a reply something was read."""

    FIRST_LINE = "first line"
    JSON = "JSON"
    TUPLE = "tuple"
    LINES = "lines 'Assistant 1: …'"
    SENTENCE = "sentence"
    BRACKETS = "double brackets"


@dataclass(frozen=True)
class Evidence:
    """One place that says scores or a label. ``scores`` holds None for an answer of which this place says nothing."""

    place: Place
    scores: tuple[float | None, ...] = ()
    label: Label | None = None
    strong: bool = False

    @property
    def text(self) -> str:
        """For notes: "tuple (10, 4)"."""
        if self.label is not None:
            return f"{self.place.value} {'much ' if self.strong else ''}{self.label.value}"
        numbers = ", ".join("?" if score is None else f"{score:g}" for score in self.scores)
        return f"{self.place.value} ({numbers})" if len(self.scores) > 1 else f"{self.place.value} {numbers}"


_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_SCALE = r"(?:\s*(?:/|out of)\s*10(?![\d.]*\d))?"  # "8/10", "8 out of 10"
_END = r"(?=[\s.,;:)(*\]–—-]*(?:$|\s))"  # a number that goes on ("3x", "2:1") is no score
_NAME = r"(?:assistant|answer|response|model)\s*(?:#\s*)?"
_MARKS = "*_`#>|-• \t"  # Markdown around a line
_TUPLE = re.compile(rf"[(\[]\s*({_NUMBER}){_SCALE}\s*,\s*({_NUMBER}){_SCALE}\s*[)\]]")
_ANNOUNCED = re.compile(r"\b(?:outputs?|tuples?|scores?|ratings?|rated)\b[^()\[\]\n]{0,80}$", re.IGNORECASE)
_ANNOUNCING = re.compile(r"\b(?:outputs?|tuples?|scores?|ratings?)\b[^()\[\]\n]*:?\s*[\"'*`]*$", re.IGNORECASE)
_LINE = re.compile(
    rf"^{_NAME}([12ab])\b(?:'s)?(?:\s+(?:final\s+|overall\s+)?(?:score|rating))?\s*(?:answer)?\s*[:=–—-]+\s*[*_`]*\s*"
    rf"(?:(?:score|rating)\s*[:=]?\s*)?({_NUMBER}){_SCALE}{_END}",
    re.IGNORECASE,
)
_EACH = re.compile(
    rf"\b{_NAME}([12ab])\b(?:'s answer)?\s+(?:gets |receives |earns |scores |with )?(?:an?\s+)?"
    rf"(?:(?:overall |final )?(?:score|rating) of\s+)?"
    rf"({_NUMBER}){_SCALE}{_END}",
    re.IGNORECASE,
)
_BOTH = re.compile(
    rf"\bboth\b(?:\s+(?:of\s+)?(?:{_NAME}[12ab]?|assistants|answers|responses|them|the|and|{_NAME}s))*\s+"
    rf"(?:an?\s+)?(?:(?:overall |final )?(?:score|rating) of\s+)({_NUMBER}){_SCALE}{_END}",
    re.IGNORECASE,
)
_THE_SCORE_IS = re.compile(rf"\b(?:score|rating) (?:is|would be|of)\s*[*_]*({_NUMBER}){_SCALE}{_END}", re.IGNORECASE)
_PARAGRAPH_OF = re.compile(rf"^{_NAME}([12ab])\b(?:'s answer)?\s*:", re.IGNORECASE)
_BRACKETS = re.compile(r"\[\[\s*([^\[\]]{1,12}?)\s*\]\]")
_LABELS = {
    "A": (Label.FIRST, False),
    "B": (Label.SECOND, False),
    "C": (Label.TIE, False),
    "TIE": (Label.TIE, False),
    "A=B": (Label.TIE, False),
    "B=A": (Label.TIE, False),
    "A>B": (Label.FIRST, False),
    "A>>B": (Label.FIRST, True),
    "B<A": (Label.FIRST, False),
    "B<<A": (Label.FIRST, True),
    "B>A": (Label.SECOND, False),
    "B>>A": (Label.SECOND, True),
    "A<B": (Label.SECOND, False),
    "A<<B": (Label.SECOND, True),
}


def pair_evidence(reply: str) -> list[Evidence]:
    """Every place of a reply that says scores of two answers, or of one of two."""
    found = [*_first_line(reply), *_from_json(reply, 2), *_tuples(reply)]
    found += _one_by_one(Place.LINES, _score_lines(reply))
    found += _one_by_one(Place.SENTENCE, _sentences(reply))
    return found


def single_evidence(reply: str) -> list[Evidence]:
    """Every place of a reply that says the score of the one answer shown."""
    found = list(_from_json(reply, 1))
    for match in _BRACKETS.finditer(reply):
        number = re.fullmatch(rf"({_NUMBER}){_SCALE}", match[1].strip())
        if number:
            found.append(Evidence(Place.BRACKETS, (float(number[1]),)))
    for line in reply.splitlines():
        bare = line.replace("**", "").strip(_MARKS)
        match_line = re.match(
            rf"(?:(?:overall |final )?(?:score|rating)\s*[:=]\s*)[*_`]*({_NUMBER}){_SCALE}{_END}", bare, re.I
        )
        if match_line or (match_line := re.fullmatch(rf"({_NUMBER}){_SCALE}[.*_`]*", bare)):
            found.append(Evidence(Place.FIRST_LINE, (float(match_line[1]),)))
    return found or [Evidence(Place.SENTENCE, (float(match[1]),)) for match in _THE_SCORE_IS.finditer(reply)]


def label_evidence(reply: str) -> list[Evidence]:
    """Every place of a reply that says which of two answers is better."""
    found = []
    for match in _BRACKETS.finditer(reply):
        label = _LABELS.get(re.sub(r"\s+", "", match[1]).upper())
        if label:
            found.append(Evidence(Place.BRACKETS, label=label[0], strong=label[1]))
    return found + list(_labels_in_json(reply))


def numbers_of_first_line(reply: str) -> list[float]:
    """The numbers of the first line that says anything, if it holds nothing else; [] otherwise."""
    line = next((line.strip(_MARKS) for line in reply.splitlines() if line.strip(_MARKS)), "")
    line = re.sub(r"^(?:scores?|ratings?|output)\s*[:=]\s*", "", line, flags=re.IGNORECASE).strip(_MARKS + "()[]")
    labelled = re.findall(rf"{_NAME}[12ab]\s*[:=]\s*({_NUMBER}){_SCALE}{_END}", line, re.IGNORECASE)
    if len(labelled) == 2:
        return [float(number) for number in labelled]
    words = re.sub(r"\s*(?:/|out of)\s*10\b", "", line).replace(",", " ").split()
    words = [word for word in words if word not in ("and", "&", "|", "/", ";")]
    if not words or not all(re.fullmatch(_NUMBER, word) for word in words):
        return []
    return [float(word) for word in words]


def _first_line(reply: str) -> Iterator[Evidence]:
    numbers = numbers_of_first_line(reply)
    if len(numbers) == 2:
        yield Evidence(Place.FIRST_LINE, tuple(numbers))


def _tuples(reply: str) -> Iterator[Evidence]:
    before = ""
    for line in reply.splitlines():
        bare = line.strip(_MARKS + ".")
        for match in _TUPLE.finditer(line):
            is_alone = _TUPLE.fullmatch(bare) is not None
            is_announced = _ANNOUNCED.search(line[: match.start()]) is not None
            if is_announced or (is_alone and not _is_worked(before)):
                yield Evidence(Place.TUPLE, (float(match[1]), float(match[2])))
        before = line if line.strip() else before


def _is_worked(line: str) -> bool:
    """Whether what stands before a lone pair of numbers makes it a point of a worked solution and no score."""
    return line.rstrip(" :").lower().endswith(("point", "points", "endpoint", "endpoints", "coordinates")) or (
        "=" in line and not _ANNOUNCING.search(line)
    )


def _score_lines(reply: str) -> Iterator[tuple[int, float]]:
    for line in reply.splitlines():
        match = _LINE.match(line.strip(_MARKS).replace("**", ""))
        if match:
            yield _index(match[1]), float(match[2])


def _sentences(reply: str) -> Iterator[tuple[int, float]]:
    """Scores given in running text; a paragraph that begins with "Assistant 1:" may say "the score is 5"."""
    for paragraph in reply.splitlines():
        plain = paragraph.replace("**", "")
        for match in _BOTH.finditer(plain):
            yield 0, float(match[1])
            yield 1, float(match[1])
        without_both = _BOTH.sub(" ", plain)
        for match in _EACH.finditer(without_both):
            if re.search(r"score|rating|rate|give|assign|gets|receives|earns|10", plain, re.IGNORECASE):
                yield _index(match[1]), float(match[2])
        owner = _PARAGRAPH_OF.match(plain.strip(_MARKS))
        said = _THE_SCORE_IS.search(plain) if owner else None
        if owner and said:
            yield _index(owner[1]), float(said[1])


def _one_by_one(place: Place, said: Iterator[tuple[int, float]]) -> Iterator[Evidence]:
    """Scores told one after another, put together; told twice and differently, they are told as two."""
    scores: list[list[float]] = [[], []]
    for index, score in said:
        if score not in scores[index]:
            scores[index].append(score)
    for number in range(max(len(values) for values in scores)):
        yield Evidence(place, tuple(values[min(number, len(values) - 1)] if values else None for values in scores))


def _index(name: str) -> int:
    return 0 if name.lower() in ("1", "a") else 1


_JSON_OBJECT = re.compile(r"\{[^{}]*\}")
_PAIR_KEYS = (("score_1", "score_2"), ("assistant_1", "assistant_2"), ("score1", "score2"), ("score_a", "score_b"))


def _objects(reply: str) -> Iterator[dict[str, Any]]:
    """Flat JSON objects of a reply, fenced or not."""
    for match in _JSON_OBJECT.finditer(reply):
        try:
            value = json.loads(match[0])
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(value, dict):
            yield {str(key).lower(): item for key, item in value.items()}


def _from_json(reply: str, count: int) -> Iterator[Evidence]:
    for row in _objects(reply):
        values = row.get("scores") if count == 2 else [row["score"]] if "score" in row else None
        if values is None and count == 2:
            values = next(([row[key] for key in keys] for keys in _PAIR_KEYS if all(key in row for key in keys)), None)
        if isinstance(values, list) and len(values) == count:
            numbers = [_json_number(value) for value in values]
            if None not in numbers:
                yield Evidence(Place.JSON, tuple(numbers))


def _json_number(value: Any) -> float | None:
    if isinstance(value, str):
        match = re.fullmatch(rf"\s*({_NUMBER}){_SCALE}\s*", value)
        return float(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        return None
    return float(value)


def _labels_in_json(reply: str) -> Iterator[Evidence]:
    for row in _objects(reply):
        said = next(
            (row[key] for key in ("verdict", "winner", "better", "choice") if isinstance(row.get(key), str)), None
        )
        label = _LABELS.get(re.sub(r"\s+", "", said).upper().strip("[]")) if said is not None else None
        if label:
            yield Evidence(Place.JSON, label=label[0], strong=label[1])
