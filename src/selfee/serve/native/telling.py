"""From the events of a chain to those of the native API (``selfee.serve.protocol.native``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from selfee.chain.changes import compare, edits
from selfee.chain.record import to_json
from selfee.chain.types import (
    Chain,
    ChainEnd,
    CutReason,
    Event,
    Overruled,
    Section,
    SectionEnd,
    SectionStart,
    Step,
    TextDelta,
    Verdict,
)

Told = tuple[str, dict[str, Any]]
"""An event's name and what it says."""

_ENDS = {
    ChainEnd.ACCEPTED: "autonomous",
    ChainEnd.CAPPED: "max_revisions",
    ChainEnd.UNCHANGED: "stalled",
    ChainEnd.REPEATED: "stalled",
    ChainEnd.PASSED: "autonomous",
    ChainEnd.SPENT: "allowance",
}
_CUTS = {
    CutReason.LENGTH: "length",
    CutReason.CONTEXT: "length",
    CutReason.SPENT: "allowance",
    CutReason.CANCELLED: "cancelled",
    CutReason.ERROR: "error",
}


def stop_cause(chain: Chain) -> str:
    """Why a chain ended, in the words of the API."""
    return _ENDS[chain.end] if chain.cut is None else _CUTS[chain.cut]


def verdict_word(verdict: Verdict | None) -> str:
    """A verdict in one word."""
    if verdict is None:
        return "none"
    if verdict.forced:
        return "forced"
    return "needed" if verdict.needed else "not_needed"


class Teller:
    """Follows one chain; ``steps`` are those it goes on from."""

    def __init__(self, number_of_segments: int = 0) -> None:
        self._count = number_of_segments
        self._id = ""
        self._feedback_id = ""
        self._answers: dict[int, str] = {}

    @property
    def count(self) -> int:
        """Segments so far: the ids of those to come are others."""
        return self._count

    def begin(self, steps: tuple[Step, ...]) -> None:
        """A chain with these steps is gone on with."""
        self._answers = {number: step.answer for number, step in enumerate(steps)}

    def tell(self, event: Event) -> Iterator[Told]:
        """What a client hears of an event; of the last one nothing, because a control may follow."""
        if isinstance(event, TextDelta):
            yield "segment.delta", {"segment_id": self._id, "text": event.text}
        elif isinstance(event, SectionStart):
            self._id = f"seg_{self._count}"
            self._count += 1
            yield "segment.started", {"segment": self._segment(event.section, event.number)}
        elif isinstance(event, SectionEnd):
            yield "segment.completed", {"segment": self._completed(event)}
        elif isinstance(event, Overruled):
            yield (
                "segment.overruled",
                {"segment_id": self._feedback_id, "text": event.feedback, "verdict": "forced"},
            )

    def tell_feedback(self, number: int, step: Step) -> Iterator[Told]:
        """A person's own feedback as a segment."""
        yield from self.tell(SectionStart(Section.FEEDBACK, number))
        yield from self.tell(SectionEnd(Section.FEEDBACK, number, step.feedback or "", True, step.verdict))

    def _segment(self, section: Section, number: int) -> dict[str, Any]:
        return {"id": self._id, "type": section.value, "index": number}

    def _completed(self, event: SectionEnd) -> dict[str, Any]:
        words = diff = None
        if event.section is Section.FEEDBACK:
            self._feedback_id = self._id
        else:
            before = self._answers.get(event.number - 1)
            self._answers[event.number] = event.text
            if before is not None:
                changes = compare(before, event.text)
                words = {"added": changes.added, "removed": changes.removed, "kept": changes.kept}
                pieces = edits(before, event.text)
                diff = None if pieces is None else [{"kind": piece.kind, "text": piece.text} for piece in pieces]
        cost, verdict = event.cost, event.verdict
        return self._segment(event.section, event.number) | {
            "text": event.text,
            "finished": event.finished,
            "verdict": verdict_word(verdict),
            "phrase": verdict.phrase if verdict else None,
            "probability": verdict.probability if verdict else None,
            "source": verdict.source.value if verdict else None,
            "tokens": cost.tokens if cost else None,
            "seconds": round(cost.seconds, 3) if cost else None,
            "prompt_tokens": cost.prompt_tokens if cost else None,
            "cached_tokens": cost.cached_tokens if cost else None,
            "words": words,
            "diff": diff,
            "score": _score(verdict),
            "mean_logprob": cost.mean_logprob if cost else None,
        }


def _score(verdict: Verdict | None) -> float | None:
    """How content the critic is, from 0 to 1, where that was measured."""
    return None if verdict is None or verdict.probability is None else 1.0 - verdict.probability


def tell_end(chain: Chain, cause: str) -> Told:
    """The event of a chain's end."""
    return "chain.completed", {
        "final": chain.final,
        "delivered": chain.delivered,
        "stop_cause": cause,
        "enforced": count_forced(chain),
        "truncated": is_truncated(chain),
        "status": chain.status,
        "usage": usage_of(chain),
        "chain": to_json(chain),
    }


def count_forced(chain: Chain) -> int:
    """Revisions that were made although the model was content."""
    return sum(step.verdict is not None and step.verdict.forced for step in chain.steps)


def is_truncated(chain: Chain) -> bool:
    """Whether a section was begun and not finished."""
    return any(not (step.answer_finished and step.feedback_finished) for step in chain.steps)


def usage_of(chain: Chain) -> dict[str, Any]:
    """What a chain cost."""
    cost = chain.cost
    return {
        "prompt_tokens": cost.prompt_tokens,
        "completion_tokens": cost.tokens,
        "total_tokens": cost.prompt_tokens + cost.tokens,
        "cached_tokens": cost.cached_tokens,
        "seconds": round(cost.seconds, 3),
    }
