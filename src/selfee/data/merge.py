"""Files of chains in, one training set out: checked, without repetitions, without evaluation questions, split, hashed.

The same inputs give the same bytes, on every machine and day.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from selfee import __version__
from selfee.data.collect import TEST
from selfee.data.contamination import EvaluationIndex, label_of, read_evaluation
from selfee.data.duplicates import Duplicates
from selfee.data.files import BadRow, files_of, read_rows
from selfee.data.records import BadRecordError, Record, read_record
from selfee.data.sources import NAMES_2023
from selfee.errors import BadFileError, UsageError
from selfee.files import replace_text
from selfee.weights.folders import FolderKind

MANIFEST = "manifest.json"
TRAINING_SET = FolderKind("a training set", "training sets", (MANIFEST,))
_REJECTED, _OVERLAPS = "rejected.jsonl", "contaminated.jsonl"
_SOURCE = re.compile(r"[a-z][a-z0-9_-]+")
_SPLITS = ("train", "validation")
_SHOWN = 200  # characters of a question that is reported


@dataclass(frozen=True)
class ChainFile:
    """A file of chains, and the source they are of where the records do not say it."""

    path: Path
    source: str = ""


def parse_chain_file(text: str) -> ChainFile:
    """``PATH``, or ``SOURCE:PATH`` where the records do not say what they are of."""
    source, colon, path = text.partition(":")
    if not colon or not _SOURCE.fullmatch(source) or Path(text).exists():
        return ChainFile(Path(text))
    return ChainFile(Path(path), NAMES_2023.get(source, source))


def chain_files(inputs: Sequence[str]) -> list[ChainFile]:
    """The files that these words name: a folder's data files; of a training set's folder, its lines alone."""
    found = []
    for given in map(parse_chain_file, inputs):
        if not given.path.exists():
            raise BadFileError(f"{given.path}: no such file or folder; expected chains or a folder of them")
        if (given.path / MANIFEST).is_file():
            parts = [given.path / f"{split}.jsonl" for split in _SPLITS]
            paths = [path for path in parts if path.is_file() and path.stat().st_size]
        else:
            paths = files_of(given.path)
        found += [replace(given, path=path) for path in paths]
    return found


@dataclass(frozen=True)
class MergeSettings:
    """What may be decided about merging."""

    validation: float = 0.01  # share of the questions that is held back
    threshold: float = 1.0  # share of common word groups from which questions are near-duplicates; 1 = none are
    overlap: float = 0.6  # share of an evaluation question from which a training question is contaminated
    keep_contaminated: bool = False  # report what overlaps with evaluation questions, but keep it
    check_answers: bool = False  # look for evaluation questions in answers and references, too


@dataclass
class MergeCount:
    """What became of a source's records."""

    read: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)

    @property
    def kept(self) -> int:
        """Records in the training set."""
        return self.splits.total()

    def to_json(self) -> dict[str, Any]:
        """Plain values, in a fixed order."""
        rejected = dict(sorted(self.rejected.items()))
        return {"read": self.read, "kept": self.kept} | {s: self.splits[s] for s in _SPLITS} | {"rejected": rejected}


@dataclass
class MergeReport:
    """What a merge did."""

    sources: dict[str, MergeCount] = field(default_factory=dict)
    evaluations: dict[str, Counter[str]] = field(default_factory=dict)  # file -> "questions", "exact", "near"
    inputs: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values: the manifest without who made it."""
        return {
            "sources": {name: count.to_json() for name, count in sorted(self.sources.items())},
            "evaluations": {name: dict(sorted(count.items())) for name, count in self.evaluations.items()},
            "inputs": self.inputs,
            "files": self.files,
        }


def merge(
    inputs: Sequence[ChainFile],
    folder: Path,
    against: Sequence[str] = (),
    settings: MergeSettings = MergeSettings(),
    on_bytes: Callable[[int], None] = lambda count: None,
) -> MergeReport:
    """Write the training set into ``folder``, which must be there and empty. ``against`` names evaluation questions.

    Raises UsageError for a record whose source neither it nor its ``ChainFile`` tells.
    """
    if not 0 <= settings.validation < 1:
        raise UsageError(f"validation: {settings.validation}; expected a share of at least 0 and below 1")
    report = MergeReport()
    index = _read_index(against, settings.overlap, report)
    with ExitStack() as stack:
        out = {split: stack.enter_context(_training_files(folder, split, report)) for split in _SPLITS}
        out |= {
            name: stack.enter_context(_lines_file(folder, name, report))
            for name in ((_REJECTED, _OVERLAPS) if against else (_REJECTED,))
        }
        job = _Job(settings, index, report, out)
        for given in inputs:
            job.read(given, on_bytes)
    report.files = dict(sorted(report.files.items()))
    made = {"made_by": f"selfee {__version__}", "settings": asdict(settings)}
    replace_text(folder / MANIFEST, json.dumps(made | report.to_json(), indent=2) + "\n")
    return report


def split_of(id: str, validation: float) -> str:
    """Where a question belongs, by its id alone: it never changes sides when data is added."""
    digest = hashlib.sha256(f"validation {id}".encode()).digest()
    return _SPLITS[int.from_bytes(digest[:8], "big") < validation * 2**64]


@dataclass
class _Job:
    settings: MergeSettings
    index: EvaluationIndex | None
    report: MergeReport
    out: dict[str, Callable[[dict[str, Any]], None]]

    def __post_init__(self) -> None:
        self._duplicates = Duplicates(self.settings.threshold)

    def read(self, given: ChainFile, on_bytes: Callable[[int], None]) -> None:
        """Take over the records of one file."""
        rows = 0
        for row in read_rows(given.path, on_bytes=on_bytes):
            rows += 1
            try:
                if isinstance(row, BadRow):
                    raise BadRecordError("unreadable row", row.reason)
                record = read_record(row, given.source)
            except BadRecordError as bad:
                self._reject(given.source, row.where, bad)
                continue
            if not record.source:
                raise UsageError(
                    f"{row.where}: does not say which data set it is of; expected a field 'source' or 'dataset'; "
                    f"say it for the whole file: SOURCE:{given.path}, for example conala:{given.path}"
                )
            self._take(record, row.where)
        self.report.inputs.append({"name": given.path.name, "source": given.source, "rows": rows} | _hash(given.path))

    def _take(self, record: Record, where: str) -> None:
        try:
            if record.fields.get("split") == TEST:
                raise BadRecordError("test split")
            self._require_new(record)
            self._require_clean(record)
        except BadRecordError as bad:
            self._reject(record.source, where, bad, record)
            return
        split = split_of(record.id, self.settings.validation)
        count = self._count(record.source)
        count.read += 1
        count.splits[split] += 1
        self.out[split](dict(record.fields))

    def _require_new(self, record: Record) -> None:
        repeated = self._duplicates.add(record.id, record.question, near=True)
        if repeated is not None:
            raise BadRecordError("near-duplicate" if repeated.is_near else "duplicate", f"of {repeated.of}")

    def _require_clean(self, record: Record) -> None:
        if self.index is None:
            return
        texts = [record.question]
        if self.settings.check_answers:
            texts += [step.answer for step in record.chain.steps]
            texts += [value] if isinstance(value := record.fields.get("output"), str) else []
        overlap = next(filter(None, map(self.index.find, texts)), None)
        if overlap is None:
            return
        kind = "exact" if overlap.is_exact else "near"
        self.report.evaluations[overlap.evaluation.file][kind] += 1
        told = {"id": record.id, "source": record.source, "question": record.question[:_SHOWN]}
        self.out[_OVERLAPS](told | overlap.to_json())
        if not self.settings.keep_contaminated:
            detail = f"{overlap.evaluation.file}: question {overlap.evaluation.id}"
            raise BadRecordError(f"evaluation question, {kind}", detail)

    def _reject(self, source: str, where: str, bad: BadRecordError, record: Record | None = None) -> None:
        count = self._count(source or "(not told)")
        count.read += 1
        count.rejected[bad.reason] += 1
        name, _, line = where.rpartition(":")
        row = {"where": f"{Path(name).name}:{line}" if name else Path(where).name, "source": source}
        row |= {"reason": bad.reason, "detail": bad.detail}
        self.out[_REJECTED](row | ({"id": record.id, "question": record.question[:_SHOWN]} if record else {}))

    def _count(self, source: str) -> MergeCount:
        return self.report.sources.setdefault(source, MergeCount())


def _read_index(against: Sequence[str], overlap: float, report: MergeReport) -> EvaluationIndex | None:
    if not against:
        return None
    questions = []
    for text in against:
        found = list(read_evaluation(text))
        report.evaluations[label_of(text)] = Counter(questions=len(found), exact=0, near=0)
        questions += found
    return EvaluationIndex(questions, overlap)


class _Hashed:
    """A file that knows its hash when it is closed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, text: str) -> None:
        data = text.encode()
        self._file.write(data)
        self._sha256.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


@contextmanager
def _training_files(folder: Path, split: str, report: MergeReport) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Writes each record to SPLIT.jsonl and to SPLIT.json, an array with a record in each line."""
    count = 0
    with (folder / f"{split}.jsonl").open("wb") as one, (folder / f"{split}.json").open("wb") as other:
        lines, array = _Hashed(one), _Hashed(other)

        def write(row: dict[str, Any]) -> None:
            nonlocal count
            # ASCII: no reader takes U+2028 for the end of a line, or Latin-1 for the encoding.
            text = json.dumps(row)
            lines.write(text + "\n")
            array.write((",\n" if count else "[\n") + text)
            count += 1

        yield write
        array.write("\n]\n" if count else "[]\n")
    for ending, file in (("jsonl", lines), ("json", array)):
        report.files[f"{split}.{ending}"] = {"rows": count, "bytes": file.size, "sha256": file.sha256}


@contextmanager
def _lines_file(folder: Path, name: str, report: MergeReport) -> Iterator[Callable[[dict[str, Any]], None]]:
    count = 0
    with (folder / name).open("wb") as opened:
        file = _Hashed(opened)

        def write(row: dict[str, Any]) -> None:
            nonlocal count
            file.write(json.dumps(row) + "\n")
            count += 1

        yield write
    report.files[name] = {"rows": count, "bytes": file.size, "sha256": file.sha256}


def _hash(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
