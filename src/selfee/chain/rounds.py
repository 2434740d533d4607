"""The loop of answer, feedback and revision for drivers that ask for one section at a time."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from selfee.chain.asking import Asked, Asker, Trimmer
from selfee.chain.draft import Draft, Ending
from selfee.chain.parser import ChainParser
from selfee.chain.policy import Action
from selfee.chain.types import ChainEnd, CutReason, Event, Section, SectionEnd, TextDelta, Verdict, VerdictSource
from selfee.chain.verdict import find_score
from selfee.engines.base import FinishReason

Events = Generator[Event, None, Ending | None]
"""Events of a section; returns an Ending if the chain cannot go on."""

_CUTS = {
    FinishReason.LENGTH: CutReason.LENGTH,
    FinishReason.CONTEXT: CutReason.CONTEXT,
    FinishReason.CANCELLED: CutReason.CANCELLED,
}

BUDGET_CUTS = (CutReason.LENGTH, CutReason.SPENT)
"""Feedback that was cut off by these is used as far as it goes: its words may hold a verdict."""

PATIENCE = 8
"""Pieces for each token allowed after which an engine counts as one that ignores limits and is closed."""


class Speaker(Protocol):
    """Writes sections through a model. Each method yields the section's events, from its start to its end."""

    def answer(self) -> Events: ...

    def criticise(self, number: int) -> Events: ...

    def revise(self, number: int) -> Events: ...


def run_rounds(speaker: Speaker, draft: Draft) -> Generator[Event, None, Ending]:
    """Answer, then feedback and revision until the policy or the model ends it; goes on where the draft has steps."""
    if not draft.steps:
        if ending := (yield from speaker.answer()):
            return ending
        if ending := (yield from draft.examine()):
            return ending
        if not draft.policy.criticises:
            return no_revisions()
    while True:
        number = len(draft.steps)
        if draft.steps[-1].feedback is None:
            if ending := draft.afford(Section.FEEDBACK):
                return ending
            if ending := (yield from speaker.criticise(number)):
                return ending
        verdict = draft.steps[-1].verdict
        assert verdict is not None, "a speaker, or who continues a chain, gives every feedback a verdict"
        wants = verdict.needed or draft.policy.doubts(find_score(draft.steps[-1].feedback or ""))
        if ending := decide_ending(draft, wants):
            return unless_silenced(draft, ending)
        if ending := draft.afford(Section.REVISION):
            return ending
        if not verdict.needed:
            yield draft.overrule()
        if ending := (yield from speaker.revise(number)):
            return ending
        if ending := (yield from draft.examine()) or draft.repeats():
            return ending


def unless_silenced(draft: Draft, ending: Ending) -> Ending:
    """The ending after a feedback, unless tokens ran out before its verdict came: that is no consent."""
    step, number = draft.steps[-1], len(draft.steps)
    if step.verdict is None or step.verdict.source is not VerdictSource.SILENCE:
        return ending
    if not step.feedback_finished:
        return cut_off(CutReason.SPENT if draft.purse.is_empty else CutReason.LENGTH, f"feedback {number}")
    if draft.purse.is_empty:
        return Ending(ChainEnd.SPENT, f"the allowance was spent before feedback {number} gave a verdict")
    return ending


def decide_ending(draft: Draft, wants_revision: bool) -> Ending | None:
    """Ask the policy after a feedback; None = revise."""
    made = draft.num_revisions
    action = draft.policy.decide(made, wants_revision)
    if action is Action.STOP:
        return Ending(ChainEnd.CAPPED, f"another revision is wanted, but max_revisions is {draft.policy.max_revisions}")
    if action is Action.FOLLOW and not wants_revision:
        return Ending(ChainEnd.ACCEPTED, f"accepted after {made} revision{'' if made == 1 else 's'}")
    return None


def no_revisions() -> Ending:
    """The ending of a chain that may not revise: its answer is not criticised."""
    return Ending(ChainEnd.CAPPED, "max_revisions is 0: the first answer was not criticised")


def cut_off(reason: CutReason, place: str) -> Ending:
    """The ending of a chain that was cut off at ``place``."""
    why = {
        CutReason.LENGTH: "its token budget was used up",
        CutReason.SPENT: "the allowance of the whole chain is spent",
        CutReason.CONTEXT: "the context window is full",
        CutReason.CANCELLED: "the engine cancelled the request",
        CutReason.ERROR: "the engine failed",
    }[reason]
    return Ending(ChainEnd.CUT_OFF, f"{place} was cut off: {why}", reason)


def cut_reason(asked: Asked) -> CutReason | None:
    """What a request's end means for the section it wrote; None = the section is finished."""
    if asked.ending is FinishReason.LENGTH and asked.lowered:
        return CutReason.CONTEXT
    if asked.ending is FinishReason.LENGTH and asked.rationed:
        return CutReason.SPENT
    return None if asked.ending is None else _CUTS.get(asked.ending)


def is_spent(draft: Draft, asker: Asker, pieces: int, held: str = "") -> bool:
    """Whether the allowance has run out after so many ``pieces`` of a section whose request is still under way.

    A piece may be less than a token, so they are recounted, with the text that is ``held`` back. A text that takes
    what is left to the token may be finished: the next chunk will tell.
    """
    purse = draft.purse
    if purse.tokens_left is None or purse.tokens_left >= 0:
        return purse.is_late
    if pieces > PATIENCE * ((purse.allowance.tokens or 0) + 1):
        return True
    draft.tokens = asker.recount(draft.text + held, draft.tokens)
    return purse.is_late or purse.tokens_left < 0


def write_text(
    draft: Draft, asker: Asker, asked: Asked, parser: ChainParser | None = None, *, keep_start: bool = False
) -> Generator[Event, None, CutReason | None]:
    """Write a request's text into the open section, without white space at its ends; returns what cut it off.

    With a parser, the text also ends where the next section's header begins. ``keep_start`` keeps white space at its
    start: the section began with other words.
    """
    draft.note(asked)
    opening, closing = Trimmer(start=not keep_start, end=False), Trimmer(start=False)
    over, pieces = False, 0
    try:
        for chunk in asked:
            pieces += 1
            if chunk.text or chunk.finish_reason is None:
                draft.tokens += asker.count(chunk.text)
            text = opening.feed(chunk.text)
            if parser is not None:
                text, over = _until_header(parser, text)
            if text := closing.feed(text):
                yield draft.write(text)
            if over:
                break
            if asked.ending is None and is_spent(draft, asker, pieces, parser.held if parser else ""):
                return CutReason.SPENT
            if max(pieces, draft.tokens) > PATIENCE * (asked.limit + 1):
                return CutReason.SPENT if asked.rationed else CutReason.LENGTH
        if parser is not None and not over:
            rest = "".join(event.text for event in parser.finish() if isinstance(event, TextDelta))
            if rest := closing.feed(rest):
                yield draft.write(rest)
    finally:
        asked.close()
        draft.settle(asked)
    return None if over else cut_reason(asked)


def read_words(draft: Draft, asker: Asker, asked: Asked) -> str:
    """A few words that belong to no section's text, but cost the open one their tokens."""
    draft.note(asked)
    words: list[str] = []
    try:
        for chunk in asked:
            if chunk.text or chunk.finish_reason is None:
                draft.tokens += asker.count(chunk.text)
            words.append(chunk.text)
            if len(words) > PATIENCE * (asked.limit + 1):
                break
    finally:
        asked.close()
        draft.settle(asked)
    return "".join(words)


def _until_header(parser: ChainParser, text: str) -> tuple[str, bool]:
    parts: list[str] = []
    for event in parser.feed(text):
        if isinstance(event, SectionEnd):
            return "".join(parts), True
        if isinstance(event, TextDelta):
            parts.append(event.text)
    return "".join(parts), False


def end_answer(draft: Draft, cut: CutReason | None) -> Events:
    """End an answer or revision; one that was cut off ends the chain."""
    place = draft.place().removeprefix("in ")
    yield draft.end(finished=cut is None)
    return cut_off(cut, place) if cut is not None else None


def end_feedback(draft: Draft, cut: CutReason | None, verdict: Verdict | None) -> Events:
    """End feedback with its verdict; used up its budget, it still counts, otherwise cut off it ends the chain."""
    place = draft.place().removeprefix("in ")
    yield draft.end(finished=cut is None, verdict=verdict)
    return cut_off(cut, place) if cut is not None and cut not in BUDGET_CUTS else None
