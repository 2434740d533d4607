"""A question to learn from, and what its source says about it: one line of ``samples.jsonl``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfee.chain.types import Instruction
from selfee.errors import BadFileError
from selfee.jsonl import read_jsonl, write_jsonl

_TEXTS = ("id", "source", "split", "instruction", "input", "reference", "answer", "origin")
_ID_DIGITS = 20  # hexadecimal: 80 bits; two of a billion different questions share one with a chance of 4e-7


@dataclass(frozen=True)
class Sample:
    """A question, where it comes from, and what its source says is right.

    ``id`` is made of the question alone (see ``content_id``): the same question has the same id in every source, in
    every file and after every run.
    """

    id: str
    source: str  # its data set: "alpaca", "gsm8k", "sharegpt" …
    split: str  # its part of the data set as published: "train", "test" …; "" = the source does not say
    instruction: str
    input: str = ""
    reference: str | None = None  # the source's right answer: for a teacher's critic, never for whoever answers
    answer: str | None = None  # a first answer that comes with the question and is kept (ShareGPT)
    origin: str = ""  # where it stood: file and line, or the source's own name for it
    extra: Mapping[str, Any] = field(default_factory=dict)  # what else the source tells: tests, level, task

    @property
    def question(self) -> Instruction:
        """What to ask."""
        return Instruction(self.instruction, self.input)


def content_id(instruction: str, input: str = "") -> str:
    """The id of a question: the beginning of the SHA-256 of ``[instruction, input]`` as compact JSON in UTF-8."""
    text = json.dumps([instruction, input], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_ID_DIGITS]


def make_sample(source: str, split: str, instruction: str, input: str = "", **fields: Any) -> Sample:
    """A sample with the id of its question."""
    return Sample(content_id(instruction, input), source, split, instruction, input, **fields)


def sample_to_json(sample: Sample) -> dict[str, Any]:
    """A sample as plain JSON values; what it does not have is left out."""
    row = {name: value for name in _TEXTS if (value := getattr(sample, name)) is not None}
    if not sample.origin:
        del row["origin"]
    return row | ({"extra": dict(sample.extra)} if sample.extra else {})


def sample_from_json(row: Mapping[str, Any], where: str = "sample") -> Sample:
    """The sample in a line. Raises BadFileError naming ``where`` and the field, also for an id of another question."""
    texts = {name: row[name] for name in _TEXTS if row.get(name) is not None}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise BadFileError(f"{where}: field '{name}' is a {type(value).__name__}; expected a text")
    if "instruction" not in texts:
        raise BadFileError(f"{where}: no field 'instruction'; expected a sample as `selfee data collect` writes them")
    extra = row.get("extra", {})
    if not isinstance(extra, Mapping):
        raise BadFileError(f"{where}: field 'extra' is a {type(extra).__name__}; expected an object")
    expected = content_id(texts["instruction"], texts.get("input", ""))
    if texts.setdefault("id", expected) != expected:
        raise BadFileError(
            f"{where}: id is {texts['id']!r}, that of another question; expected {expected!r}; "
            "leave the field away where a question was changed"
        )
    return Sample(**{"source": "", "split": ""} | texts, extra=extra)


def read_samples(path: str | Path) -> Iterator[Sample]:
    """Every sample of a file, one after another. Raises BadFileError naming file and line."""
    for number, row in read_jsonl(path):
        yield sample_from_json(row, f"{path}:{number}")


def write_samples(path: str | Path, samples: Iterable[Sample]) -> None:
    """Write a file of samples whole or not at all."""
    write_jsonl(path, (sample_to_json(sample) for sample in samples))
