"""A chain as a text with headings, while it is made: what clients show as reasoning, or raw as the model writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from selfee.chain.format import header
from selfee.chain.types import (
    Chain,
    ChainFinished,
    CutReason,
    Event,
    Overruled,
    Section,
    SectionEnd,
    SectionStart,
    TextDelta,
    Verdict,
)
from selfee.serve.native.telling import count_forced, is_truncated, stop_cause, verdict_word

PIECE = 2000  # characters of a text that is known already which are sent at a time


@dataclass(frozen=True)
class Told:
    """A piece of text, and where in the chain it belongs."""

    text: str
    mark: dict[str, Any]


class ReasoningText:
    """All sections with headings; the pieces joined are the same however the model's text came in pieces."""

    def __init__(self) -> None:
        self._where: dict[str, Any] = {}
        self._count = 0
        self._verdict: Verdict | None = None

    def tell(self, event: Event) -> Iterator[Told]:
        """The pieces that an event adds."""
        if isinstance(event, SectionStart):
            yield from self._close_feedback(forced=False)
            self._where = {"seg": f"seg_{self._count}", "type": event.section.value, "index": event.number}
            self._count += 1
            gap = "\n\n" if self._count > 1 else ""
            yield self._told(f"{gap}**{heading(event.section, event.number)}**\n\n", "start")
        elif isinstance(event, TextDelta):
            yield self._told(event.text, "delta")
        elif isinstance(event, SectionEnd):
            if event.section is Section.FEEDBACK:
                self._verdict = event.verdict
            else:
                yield self._told("", "end", "none")
        elif isinstance(event, Overruled):
            yield from self._close_feedback(forced=True)
        elif isinstance(event, ChainFinished):
            yield from self._close_feedback(forced=False)

    def _close_feedback(self, *, forced: bool) -> Iterator[Told]:
        verdict, self._verdict = self._verdict, None
        if verdict is not None:
            word = "forced" if forced else verdict_word(verdict)
            yield self._told(f"\n\n*{_VERDICTS[word]}*", "end", word)

    def _told(self, text: str, event: str, verdict: str | None = None) -> Told:
        mark = self._where | {"event": event}
        return Told(text, mark if verdict is None else mark | {"verdict": verdict})


_VERDICTS = {
    "needed": "→ revision needed",
    "not_needed": "→ revision not needed",
    "forced": "→ revision not needed, but asked for",
}


def heading(section: Section, number: int) -> str:
    """What a section is called."""
    return section.value.capitalize() + (f" {number}" if number else "")


class RawText:
    """The exact text that the model reads and writes, with headers; feedback comes whole, because it may be edited."""

    def __init__(self) -> None:
        self._feedback: str | None = None
        self._is_feedback = False

    def tell(self, event: Event) -> Iterator[Told]:
        """The pieces that an event adds."""
        if isinstance(event, SectionStart):
            yield from self._flush()
            self._is_feedback = event.section is Section.FEEDBACK
            yield Told(header(event.section, event.number), {})
        elif isinstance(event, TextDelta):
            if not self._is_feedback:
                yield Told(event.text, {})
        elif isinstance(event, SectionEnd):
            if self._is_feedback:
                self._feedback = event.text
        elif isinstance(event, Overruled):
            self._feedback = event.feedback
        elif isinstance(event, ChainFinished):
            yield from self._flush()

    def _flush(self) -> Iterator[Told]:
        if self._feedback is not None:
            yield Told(self._feedback, {})
            self._feedback = None


class AnswerText:
    """The first answer alone, for chains that are not revised."""

    def tell(self, event: Event) -> Iterator[Told]:
        """The pieces that an event adds."""
        if isinstance(event, TextDelta):
            yield Told(event.text, {})


def finish_reason(chain: Chain) -> str:
    """``length`` if a budget, or the context, ended the chain within a section."""
    return "length" if chain.cut in (CutReason.LENGTH, CutReason.SPENT, CutReason.CONTEXT) else "stop"


def usage_of(chains: list[Chain]) -> dict[str, Any]:
    """What chains cost, in the words of chat completions; injected and replaced texts apart."""
    prompt = sum(chain.cost.prompt_tokens for chain in chains)
    cached = sum(chain.cost.cached_tokens for chain in chains)
    completion = sum(chain.cost.tokens for chain in chains)
    reasoning = completion - sum(final_tokens(chain) for chain in chains)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": max(0, reasoning),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "selfee": {
            "enforced": sum(map(count_forced, chains)),
            "revisions": sum(chain.num_revisions for chain in chains),
        },
    }


def final_tokens(chain: Chain) -> int:
    """Tokens of the answer that is delivered."""
    if not chain.steps:
        return 0
    cost = chain.steps[0 if chain.delivered is None else chain.delivered].answer_cost
    return cost.tokens if cost else 0


def about(chain: Chain) -> dict[str, Any]:
    """What a client that knows us may want to know of a chain; no chain without its texts."""
    segments: list[dict[str, Any]] = []
    for number, step in enumerate(chain.steps):
        kind = "revision" if number else "answer"
        cost = step.answer_cost
        segments.append(
            {"type": kind, "index": number, "text": step.answer, "finished": step.answer_finished, "verdict": "none"}
            | {"tokens": cost.tokens if cost else None, "seconds": round(cost.seconds, 3) if cost else None}
        )
        if step.feedback is not None:
            cost = step.feedback_cost
            segments.append(
                {"type": "feedback", "index": number + 1, "text": step.feedback, "finished": step.feedback_finished}
                | {"verdict": verdict_word(step.verdict), "tokens": cost.tokens if cost else None}
                | {"seconds": round(cost.seconds, 3) if cost else None}
            )
    return {
        "chain": segments,
        "final": chain.delivered,
        "stop_cause": stop_cause(chain),
        "enforced": count_forced(chain),
        "truncated": is_truncated(chain),
        "status": chain.status,
        "seed": chain.seed,
    }


def pieces(text: str) -> Iterator[str]:
    """A text that is known in pieces."""
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]


def inline(chain: Chain) -> str:
    """The final answer as it follows its chain where both are one text."""
    return f"\n\n---\n\n{chain.final}"
