"""What a file of chains is like: how long they are, what their critics decide, and where that makes no sense."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from selfee.chain.types import Step
from selfee.chain.verdict import find_score, stopped_in_2023
from selfee.data.files import BadRow, read_rows
from selfee.data.merge import ChainFile
from selfee.data.records import BadRecordError, Record, read_record

_GOOD_ENOUGH = 9.0  # "Normally, score of less than 9 should be revised" (the critique prompt, appendix A.3)
_MIN_LEAK = 12  # characters: a shorter reference stands in many a feedback by chance
_PERCENTILES = (10, 50, 90)

VERDICTS = ("revise", "content", "no verdict")
"""What a feedback says: a revision is needed, none is, or neither."""

KINDS = {
    "asks, yet stopped": "the feedback asks for a revision; the rule of 2023 took it for content",
    "content, yet went on": "the feedback is content in words that the rule of 2023 did not know",
    "silent, yet stopped": "the feedback states no verdict; the rule of 2023 found one",
    "silent, and went on": "the feedback states no verdict; the rule of 2023 took that for a wish to revise",
}
"""Disagreements between the verdict in a feedback and SelFee's stop rule."""


@dataclass(frozen=True)
class Disagreement:
    """A feedback that SelFee's stop rule read in another way than it is meant."""

    kind: str  # one of KINDS
    id: str
    where: str
    step: int  # the feedback's number, from 1
    is_last: bool
    ending: str  # the end of the feedback


@dataclass
class SourceStatistics:
    """Counts over the chains of one source."""

    records: int = 0
    ids: set[str] = field(default_factory=set)
    unreadable: Counter[str] = field(default_factory=Counter)  # reason -> lines that are no chains
    lengths: Counter[int] = field(default_factory=Counter)  # answers -> chains
    capped: int = 0  # chains that the limit of answers ended
    verdicts: Counter[str] = field(default_factory=Counter)  # of every feedback
    endings: Counter[str] = field(default_factory=Counter)  # of the last feedback of each chain
    scores: Counter[float] = field(default_factory=Counter)
    scored_content: int = 0  # feedback with a score that is content
    low_but_content: int = 0  # … and whose score is under 9
    high_but_revise: int = 0  # asks for a revision at 9 or more
    silent_in_midst: int = 0  # no verdict, and a revision follows
    content_in_midst: int = 0  # content, and yet a revision follows
    empty_feedback: int = 0
    unchanged: int = 0  # revisions equal to the answer before
    leaks: int = 0  # feedback that holds the reference word for word
    sizes: dict[str, list[int]] = field(
        default_factory=lambda: {name: [] for name in ("question", "answer", "feedback")}
    )
    disagreements: list[Disagreement] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        counters = {
            "lengths": {str(key): self.lengths[key] for key in sorted(self.lengths)},
            "verdicts": {key: self.verdicts[key] for key in VERDICTS},
            "endings": {key: self.endings[key] for key in VERDICTS},
            "scores": {f"{key:g}": self.scores[key] for key in sorted(self.scores)},
            "unreadable": dict(sorted(self.unreadable.items())),
        }
        words = {name: percentiles(values) for name, values in self.sizes.items()}
        kinds = Counter(one.kind for one in self.disagreements)
        return (
            {"records": self.records, "questions": len(self.ids), "feedback": self.verdicts.total()}
            | plain
            | counters
            | {"words": words, "disagreements": {kind: kinds[kind] for kind in KINDS}}
        )


def read_statistics(
    inputs: Iterable[ChainFile], on_bytes: Callable[[int], None] = lambda count: None
) -> dict[str, SourceStatistics]:
    """Source -> its counts, over all files; "" where nobody says what the chains are of."""
    found: dict[str, SourceStatistics] = {}
    for given in inputs:
        for row in read_rows(given.path, on_bytes=on_bytes):
            try:
                if isinstance(row, BadRow):
                    raise BadRecordError("unreadable row", row.reason)
                record = read_record(row, given.source)
            except BadRecordError as bad:
                found.setdefault(given.source, SourceStatistics()).unreadable[bad.reason] += 1
                continue
            count_record(found.setdefault(record.source, SourceStatistics()), record, row.where)
    return dict(sorted(found.items()))


def count_record(into: SourceStatistics, record: Record, where: str) -> None:
    """Add one chain."""
    chain = record.chain
    into.records += 1
    into.ids.add(record.id)
    into.lengths[len(chain.steps)] += 1
    into.capped += record.fields.get("iteration_truncated") is True
    into.sizes["question"].append(len(record.question.split()))
    reference = record.fields.get("output")
    for number, step in enumerate(chain.steps):
        into.sizes["answer"].append(len(step.answer.split()))
        into.unchanged += number > 0 and step.answer == chain.steps[number - 1].answer
        if step.feedback is not None:
            _count_feedback(into, record, where, number, reference if isinstance(reference, str) else "")
    last = chain.steps[-1]
    if last.feedback is not None:
        into.endings[verdict_of(last)] += 1


def verdict_of(step: Step) -> str:
    """One of VERDICTS."""
    if step.verdict is None:
        return "no verdict"
    return "revise" if step.verdict.needed else "content"


def percentiles(values: Sequence[int]) -> dict[str, float]:
    """The mean and three percentiles (the smallest value that so many percent do not exceed)."""
    if not values:
        return {}
    ordered = sorted(values)
    at = {f"p{p}": ordered[max(0, math.ceil(p / 100 * len(ordered)) - 1)] for p in _PERCENTILES}
    return {"mean": round(sum(ordered) / len(ordered), 1)} | at


def _count_feedback(into: SourceStatistics, record: Record, where: str, number: int, reference: str) -> None:
    step = record.chain.steps[number]
    feedback = step.feedback or ""
    is_last = number + 1 == len(record.chain.steps)
    verdict, score = verdict_of(step), find_score(feedback)
    into.verdicts[verdict] += 1
    into.sizes["feedback"].append(len(feedback.split()))
    into.empty_feedback += not feedback.strip()
    into.silent_in_midst += verdict == "no verdict" and not is_last
    into.content_in_midst += verdict == "content" and not is_last
    into.leaks += len(reference.strip()) >= _MIN_LEAK and reference.strip() in feedback
    if score is not None:
        into.scores[score] += 1
        into.scored_content += verdict == "content"
        into.low_but_content += verdict == "content" and score < _GOOD_ENOUGH
        into.high_but_revise += verdict == "revise" and score >= _GOOD_ENOUGH
    kind = _disagreement(verdict, stopped_in_2023(feedback))
    if kind:
        ending = " ".join(feedback.split())[-120:]
        into.disagreements.append(Disagreement(kind, record.id, where, number + 1, is_last, ending))


def _disagreement(verdict: str, stopped: bool) -> str:
    if verdict == "no verdict":
        return "silent, yet stopped" if stopped else "silent, and went on"
    if stopped == (verdict == "content"):
        return ""
    return "asks, yet stopped" if stopped else "content, yet went on"


def disagreements_of(found: Mapping[str, SourceStatistics]) -> Iterator[dict[str, Any]]:
    """Every disagreement as one line, in the order of KINDS."""
    for kind in KINDS:
        for source, one in found.items():
            yield from ({"source": source} | asdict(each) for each in one.disagreements if each.kind == kind)
