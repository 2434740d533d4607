"""Mathematics with known answers: GSM8K, AQuA and MATH."""

from __future__ import annotations

import re

from selfee.data.files import Row
from selfee.data.sources.base import Question, RefusedError, Source, SourceSettings, clean, text_field

_CALCULATOR = re.compile(r"<<[^<>]*>>")  # GSM8K's notes for a calculator: <<48/2=24>>
_FINAL = re.compile(r"^#### *(.+?) *\Z", re.MULTILINE)
_OPTION = re.compile(r"\s*\(?([A-Za-z])\s*[).:]\s*(.*)", re.DOTALL)


def _parse_gsm8k(row: Row, settings: SourceSettings) -> Question:
    reference = _CALCULATOR.sub("", text_field(row, "answer"))
    found = _FINAL.search(reference)
    if found is None:
        raise RefusedError("no final answer", "field 'answer' has no line '#### NUMBER'")
    return Question(text_field(row, "question"), reference=reference, extra={"answer": found[1]})


def _parse_aqua(row: Row, settings: SourceSettings) -> Question:
    options = row.fields.get("options")
    if not isinstance(options, list | tuple) or not options or not all(isinstance(option, str) for option in options):
        raise RefusedError("field of another kind", "field 'options' is no list of texts")
    shown = {}
    for option in options:
        found = _OPTION.fullmatch(option)
        if found is None:
            raise RefusedError("unreadable options", f"option {option!r} begins with no letter")
        shown[found[1].upper()] = clean(found[2])
    letter = text_field(row, "correct").upper()
    if letter not in shown:
        raise RefusedError("no final answer", f"field 'correct' is {letter!r}; expected one of {', '.join(shown)}")
    listed = "\n".join(f"({name}) {text}" for name, text in shown.items())
    return Question(
        f"{text_field(row, 'question')}\nOptions:\n{listed}",
        reference=f"{text_field(row, 'rationale')}\nThe answer is ({letter}).",
        extra={"answer": letter},
    )


def _parse_math(row: Row, settings: SourceSettings) -> Question:
    solution = text_field(row, "solution")
    extra = {name: row.fields[name] for name in ("level", "type") if isinstance(row.fields.get(name), str)}
    final = _boxed(solution)
    if final is None:
        raise RefusedError("no final answer", r"field 'solution' has no \boxed{...}")
    return Question(text_field(row, "problem"), reference=solution, extra=extra | {"answer": final})


def _boxed(text: str) -> str | None:
    r"""What the last \boxed{...} (or \fbox{...}, or "\boxed 7") holds."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    rest = text[start:].partition("box")[2].removeprefix("ed").lstrip()
    if not rest.startswith("{"):
        return rest.split("$")[0].split()[0] if rest.split("$")[0].split() else None
    depth = 0
    for place, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if not depth:
            return rest[1:place].strip()
    return None


GSM8K = Source("gsm8k", "GSM8K: lines of {question, answer}, the number after ####", _parse_gsm8k)
AQUA = Source("aqua", "AQuA: lines of {question, options, rationale, correct}", _parse_aqua)
MATH = Source("math", "MATH: a folder of problems {problem, level, type, solution}, or lines of them", _parse_math)
