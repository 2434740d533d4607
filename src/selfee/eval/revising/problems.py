"""Questions whose answers a program can check: word problems with a number, multiple choice, programs with tests.

Each is asked so that its answer can be found in the reply; the words are part of what is measured, so they stand here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError
from selfee.jsonl import read_jsonl

_NUMBER_ASK = "{question}\n\nSolve it step by step. End with the final answer, a number, on a line of its own."
_LETTER_ASK = (
    "{question}\n\n{options}\n\nSolve it step by step. End with the letter of the right option on a line of its own."
)
_PROGRAM_ASK = (
    "{text}\n\nWrite it in Python, in one code block, without examples of its use. It must pass these tests:\n\n{tests}"
)
_COMPLETE_ASK = (
    "Complete this Python function. Write the whole function in one code block, without examples of its use.\n\n"
    "```python\n{prompt}```"
)
_LONGER = (
    "\n\nTake your time: think aloud in about {words} words, check every step, and only then give the final answer."
)


@dataclass(frozen=True)
class Problem:
    """A question with what its answer is checked against."""

    id: str
    task: str  # gsm8k, aqua, mbpp, humaneval
    question: str  # as the set has it
    prompt: str  # as it is asked
    reference: str  # a right answer
    source: Mapping[str, Any] = field(default_factory=dict, compare=False)  # the row as it was

    def longer_prompt(self, words: int) -> str:
        """The same question, asking for a long answer."""
        return self.prompt + _LONGER.format(words=words)


Row = Mapping[str, Any]


def read_problems(path: str | Path, limit: int | None = None) -> list[Problem]:
    """The problems of a file of JSON lines, known by their fields; ``limit`` takes the first so many.

    Raises BadFileError naming file, line and field.
    """
    path = Path(path)
    problems: list[Problem] = []
    for number, row in read_jsonl(path):
        if limit is not None and len(problems) >= limit:
            break
        problems.append(problem_of(row, number, f"{path}:{number}"))
    if not problems:
        raise BadFileError(f"{path}: no problems; expected lines of GSM8K, AQuA, MBPP or HumanEval")
    return problems


def problem_of(row: Row, number: int, where: str) -> Problem:
    """The problem in a row; ``number`` is its id where it has none."""
    for keys, reader in _KNOWN:
        if all(key in row for key in keys):
            return reader(row, number, where)
    raise BadFileError(
        f"{where}: fields {', '.join(list(row)[:8])}; expected those of GSM8K (question, answer), AQuA (question, "
        "options, correct), MBPP (text, code, test_list) or HumanEval (prompt, test, entry_point)"
    )


def _gsm8k(row: Row, number: int, where: str) -> Problem:
    question, answer = _text(row, "question", where), _text(row, "answer", where)
    return Problem(
        str(row.get("id", number)), "gsm8k", question, _NUMBER_ASK.format(question=question.strip()), answer, row
    )


def _aqua(row: Row, number: int, where: str) -> Problem:
    options = "\n".join(_texts(row, "options", where))
    question = _text(row, "question", where)
    prompt = _LETTER_ASK.format(question=question.strip(), options=options)
    return Problem(str(row.get("id", number)), "aqua", question, prompt, _text(row, "correct", where), row)


def _mbpp(row: Row, number: int, where: str) -> Problem:
    tests = "\n".join(_texts(row, "test_list", where))
    text, code = _text(row, "text", where), row.get("code", "")
    prompt = _PROGRAM_ASK.format(text=text.strip(), tests=tests)
    return Problem(str(row.get("task_id", number)), "mbpp", text, prompt, code if isinstance(code, str) else "", row)


def _humaneval(row: Row, number: int, where: str) -> Problem:
    prompt, solution = _text(row, "prompt", where), _text(row, "canonical_solution", where)
    _text(row, "test", where), _text(row, "entry_point", where)
    asked = _COMPLETE_ASK.format(prompt=prompt.replace("```", "'''"))
    return Problem(str(row.get("task_id", number)), "humaneval", prompt, asked, prompt + solution, row)


_KNOWN: Sequence[tuple[tuple[str, ...], Callable[[Row, int, str], Problem]]] = (
    (("text", "test_list"), _mbpp),
    (("prompt", "test", "entry_point"), _humaneval),
    (("question", "options", "correct"), _aqua),
    (("question", "answer"), _gsm8k),
)


def _text(row: Row, name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadFileError(f"{where}: field '{name}' is {json.dumps(value)[:60]}; expected a text")
    return value


def _texts(row: Row, name: str, where: str) -> list[str]:
    value = row.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise BadFileError(f"{where}: field '{name}' is {json.dumps(value)[:60]}; expected a list of texts")
    return value
