"""Sources in, one file of questions out; and of every row that is not in it, the reason."""

from __future__ import annotations

import enum
import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from selfee.data.duplicates import Duplicates
from selfee.data.files import BadRow, Row, read_hub, read_rows
from selfee.data.sample import Sample, make_sample, sample_to_json
from selfee.data.sources import SOURCES, Question, RefusedError, Source, SourceSettings
from selfee.errors import BadFileError, UsageError
from selfee.files import replace_text
from selfee.jsonl import writing_jsonl

_HUB = "hf:"
_SHOWN = 200  # characters of a rejected row's text
TEST = "test"
"""The split that is kept away from training."""


@dataclass(frozen=True)
class Input:
    """A file, folder or hub data set to read, and what it holds."""

    source: str
    path: str  # "hf:NAME…" means the `datasets` library
    split: str = ""  # "" = not told

    @property
    def is_hub(self) -> bool:
        """Whether the `datasets` library reads it."""
        return self.path.startswith(_HUB)


@dataclass(frozen=True)
class CollectSettings:
    """What may be decided about collecting."""

    reading: SourceSettings = field(default_factory=SourceSettings)
    per_task: int = 10  # questions taken of each of Flan's tasks
    with_test: bool = False  # take rows of test splits, too: for evaluation, not for training
    threshold: float = 0.8  # share of common word groups from which questions are near-duplicates; 1 = none are
    near_in: tuple[str, ...] = tuple(
        name for name, source in SOURCES.items() if source.is_chat
    )  # sources in which near-duplicates are looked for


@dataclass(frozen=True)
class Rejected:
    """A row that was not taken."""

    source: str
    where: str
    reason: str  # one of few
    detail: str = ""
    text: str = ""  # the beginning of its question

    def to_json(self) -> dict[str, Any]:
        """One line of the rejects file."""
        return {name: printable(value) for name, value in asdict(self).items() if value}


@dataclass
class SourceCount:
    """What became of a source's rows."""

    read: int = 0
    kept: int = 0
    with_reference: int = 0
    rejected: Counter[str] = field(default_factory=Counter)  # reason -> rows
    splits: Counter[str] = field(default_factory=Counter)  # of the rows kept; "" = not told

    def to_json(self) -> dict[str, Any]:
        """Plain values, reasons by frequency."""
        return {
            "read": self.read,
            "kept": self.kept,
            "with_reference": self.with_reference,
            "splits": dict(sorted(self.splits.items())),
            "rejected": dict(sorted(self.rejected.items(), key=lambda item: (-item[1], item[0]))),
        }


def printable(text: str) -> str:
    """The text with "?" for halves of characters, which no file in UTF-8 can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def parse_input(text: str) -> Input:
    """``SOURCE[@SPLIT]:PATH`` in parts. Raises UsageError for a source that is not known."""
    named, colon, path = text.partition(":")
    source, _, split = named.partition("@")
    if not colon or not path or source not in SOURCES:
        raise UsageError(
            f"'{text}': expected SOURCE:PATH or SOURCE@SPLIT:PATH, for example gsm8k@train:train.jsonl; "
            f"sources: {', '.join(SOURCES)}"
        )
    return Input(source, path, split)


def collect(
    inputs: Sequence[Input],
    settings: CollectSettings = CollectSettings(),
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Iterator[Sample | Rejected]:
    """Every row of the inputs in order, as a sample or rejected; Flan's at its input's end, when all have been seen."""
    unknown = set(settings.near_in) - set(SOURCES)
    if unknown:
        raise UsageError(f"near-duplicates in '{min(unknown)}': no such source; expected some of {', '.join(SOURCES)}")
    duplicates = Duplicates(settings.threshold)
    for given in inputs:
        source = SOURCES[given.source]
        found = _samples(given, source, settings, on_bytes)
        if source.has_tasks:
            found = _draw(found, settings.per_task)
        for sample in found:
            if isinstance(sample, Sample):
                yield _unless_repeated(sample, duplicates, source.name in settings.near_in)
            else:
                yield sample


def write_collection(
    inputs: Sequence[Input],
    out: Path,
    settings: CollectSettings = CollectSettings(),
    on_bytes: Callable[[int], None] = lambda count: None,
) -> dict[str, SourceCount]:
    """Collect into ``out`` and, beside it, the rejects and the counts; each file is whole or not there."""
    counts = {given.source: SourceCount() for given in inputs}
    with writing_jsonl(out) as keep, writing_jsonl(rejects_path(out)) as reject:
        for result in collect(inputs, settings, on_bytes):
            count = counts[result.source]
            count.read += 1
            if isinstance(result, Sample):
                keep(sample_to_json(result))
                count.kept += 1
                count.with_reference += result.reference is not None
                count.splits[result.split] += 1
            else:
                reject(result.to_json())
                count.rejected[result.reason] += 1
    report = {
        "sources": {name: count.to_json() for name, count in counts.items()},
        "settings": _plain(asdict(settings)),
    }
    replace_text(report_path(out), json.dumps(report, indent=2) + "\n")
    return counts


def rejects_path(out: Path) -> Path:
    """Where the rejected rows of a collection are: samples.jsonl -> samples.rejected.jsonl."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.rejected.jsonl")


def report_path(out: Path) -> Path:
    """Where the counts of a collection are: samples.jsonl -> samples.report.json."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.report.json")


def _samples(
    given: Input, source: Source, settings: CollectSettings, on_bytes: Callable[[int], None]
) -> Iterator[Sample | Rejected]:
    if given.is_hub:
        rows = read_hub(given.path.removeprefix(_HUB))
    else:
        rows = read_rows(Path(given.path), source.columns, on_bytes)
    for row in rows:
        if isinstance(row, BadRow):
            yield Rejected(source.name, row.where, "unreadable row", row.reason)
            continue
        try:
            yield _sample(row, given, source, settings)
        except RefusedError as refused:
            yield Rejected(source.name, row.where, refused.reason, refused.detail, refused.text[:_SHOWN])


def _sample(row: Row, given: Input, source: Source, settings: CollectSettings) -> Sample:
    question = source.parse(row, settings.reading)
    split = question.split or given.split
    text = question.instruction[:_SHOWN]
    if given.split and split != given.split:
        raise RefusedError("another split", f"{split}; expected {given.split}", text)
    if split == TEST and not settings.with_test:
        raise RefusedError("test split", "kept away from training; --with-test takes it", text)
    _require_unicode(question)
    return make_sample(
        source.name,
        split,
        question.instruction,
        question.input,
        reference=question.reference,
        answer=question.answer,
        origin=printable(row.where),
        extra=question.extra,
    )


def _require_unicode(question: Question) -> None:
    """Refuse what no reader of JSON lines in UTF-8 could read."""
    extra = json.dumps(dict(question.extra), ensure_ascii=False)
    for text in (question.instruction, question.input, question.reference, question.answer, extra):
        if text and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise RefusedError(
                    "not valid Unicode", f"character {error.start} is half of one, or no UTF-8"
                ) from None


def _unless_repeated(sample: Sample, duplicates: Duplicates, near: bool) -> Sample | Rejected:
    text = sample.question.question
    repeated = duplicates.add(sample.id, text, near=near)
    if repeated is None:
        return sample
    reason = "near-duplicate" if repeated.is_near else "duplicate"
    return Rejected(sample.source, sample.origin, reason, f"of {repeated.of}", text[:_SHOWN])


def _draw(samples: Iterator[Sample | Rejected], per_task: int) -> Iterator[Sample | Rejected]:
    """Of each task the samples whose ids come first: a draw that does not depend on the order of rows and files."""
    tasks: dict[str, list[tuple[int, int, Sample]]] = {}
    held: set[str] = set()
    for number, sample in enumerate(samples):
        if isinstance(sample, Rejected):
            yield sample
            continue
        if sample.id in held:
            yield Rejected(sample.source, sample.origin, "duplicate", f"of {sample.id}", sample.instruction[:_SHOWN])
            continue
        drawn = tasks.setdefault(sample.extra["task"], [])
        entry = (-int(sample.id, 16), -number, sample)
        held.add(sample.id)
        if len(drawn) < per_task:
            heapq.heappush(drawn, entry)
        else:
            left = heapq.heappushpop(drawn, entry)[2]
            held.remove(left.id)
            yield Rejected(left.source, left.origin, f"more than {per_task} of the task", left.extra["task"])
    yield from (sample for drawn in tasks.values() for _, _, sample in sorted(drawn, key=lambda entry: -entry[1]))


def require_inputs(inputs: Sequence[Input]) -> None:
    """Raise before anything is read if an input is not there."""
    for given in inputs:
        if not given.is_hub and not Path(given.path).exists():
            raise BadFileError(f"{given.path}: no such file or folder; expected one that holds {given.source}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value.value if isinstance(value, enum.Enum) else value
