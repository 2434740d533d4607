"""Reads the stream of a model trained on chains, and overrules it by editing the text and asking again.

Left to itself the model writes the whole chain in one request. A request more is made where feedback ended without
asking for a revision that the policy enforces: whatever its words, by its verdict, by saying nothing, or because the
text just ended (specification of the original, D34). Tokens are never touched (``docs/decisions/0001-*``).
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Iterable, Iterator, Sequence

from selfee.chain.asking import Asker
from selfee.chain.budgets import HEADER_TOKENS, Budgets
from selfee.chain.draft import Draft, Ending
from selfee.chain.format import follower, header, render_prompt, render_steps
from selfee.chain.parser import ChainParser
from selfee.chain.rounds import BUDGET_CUTS, PATIENCE, cut_off, cut_reason, decide_ending, is_spent, no_revisions
from selfee.chain.types import (
    ChainEnd,
    CutReason,
    Event,
    Section,
    SectionEnd,
    SectionStart,
    TextDelta,
    Verdict,
    VerdictSource,
)
from selfee.chain.verdict import find_verdict
from selfee.engines.base import Chunk, Engine, FinishReason, Prediction, Request, SamplingParams
from selfee.engines.stops import StopFilter


def single_pass_events(
    engine: Engine, draft: Draft, asker: Asker, budgets: Budgets, stop: Sequence[str] = ()
) -> Generator[Event, None, Ending]:
    """Write a chain in as few requests as possible. ``stop`` ends answers and revisions (not feedback) early."""
    return _SinglePass(engine, draft, asker, budgets, tuple(stop)).events()


class _More(enum.Enum):
    """The request's own limit was reached, but not the section's: ask on."""

    MORE = "more"


_MORE = _More.MORE


class _SinglePass:
    def __init__(self, engine: Engine, draft: Draft, asker: Asker, budgets: Budgets, stop: tuple[str, ...]) -> None:
        self._engine = engine
        self._draft = draft
        self._asker = asker
        self._budgets = budgets
        self._stop = stop
        self._prompt = render_prompt(draft.instruction)
        self._read = [self._prompt]  # pieces of all that the model has read and written so far
        self._parser = ChainParser()
        self._filter = StopFilter(stop)
        self._prediction = Prediction()
        self._pieces = 0  # that came for the open section
        self._ending: Ending | None = None  # set as soon as the decision is known

    def events(self) -> Generator[Event, None, Ending]:
        if self._draft.steps and (ending := (yield from self._continue())):
            return ending
        yield from self._take(self._parser.feed(""))  # the first section begins
        while True:
            outcome = yield from self._listen()
            if self._ending is None and outcome is not _MORE:
                yield from self._end_section(outcome)
            if self._ending is not None:
                return self._ending

    def _continue(self) -> Generator[Event, None, Ending | None]:
        """Stand where the chain stands: the next section is a feedback, or a revision if the last one asks for it."""
        draft = self._draft
        section, number, last = Section.FEEDBACK, len(draft.steps), draft.steps[-1]
        if last.feedback is not None:
            wants = last.verdict is not None and last.verdict.needed
            if ending := decide_ending(draft, wants):
                return ending
            if not wants:
                yield draft.overrule()
            section = Section.REVISION
        self._read = [self._prompt, render_steps(draft.steps, check=False), header(section, number)]
        self._parser = ChainParser(section, number)
        return None

    def _listen(self) -> Generator[Event, None, CutReason | _More | None]:
        """Read one request's stream until it ends or a decision falls; returns what cut the open section off."""
        draft, budgets = self._draft, self._budgets
        limit = budgets.ahead(self._parser.section, self._parser.number, draft.policy) - draft.tokens
        self._read = ["".join(self._read)]
        asked = self._asker.ask(self._open, max(1, limit), self._read[0])
        draft.note(asked)
        came = 0
        try:
            for chunk in asked:
                if chunk.text or chunk.finish_reason is None:
                    came += 1
                    self._pieces += 1
                    draft.tokens += self._asker.count(chunk.text)
                self._read.append(chunk.text)
                yield from self._take(self._parser.feed(chunk.text))
                if self._ending is not None or self._filter.matched is not None:
                    return None
                if asked.ending is None and self._left() <= 0:
                    draft.tokens = self._asker.recount(draft.text + self._parser.held, draft.tokens)
                    if self._left() <= 0 or self._pieces > PATIENCE * (budgets.of(self._parser.section) + 1):
                        return CutReason.LENGTH
                if asked.ending is None and is_spent(draft, self._asker, self._pieces, self._parser.held):
                    return CutReason.SPENT
        finally:
            asked.close()
            draft.settle(asked)
        full = (asked.lowered and self._asker.knows_context) or asked.rationed
        if asked.ending is FinishReason.LENGTH and came and self._left() > 0 and not full:
            return _MORE
        return cut_reason(asked)

    def _left(self) -> int:
        """Tokens that the open section may still use; a header that may be on its way is not its own."""
        own = self._budgets.of(self._parser.section) - self._draft.tokens
        return own + HEADER_TOKENS if self._parser.held else own

    def _open(self, params: SamplingParams, limit: int) -> Iterator[Chunk]:
        return self._engine.stream(Request(self._read[0], params, limit, prediction=self._prediction))

    def _take(self, events: Iterable[Event]) -> Generator[Event, None, None]:
        """Pass the parser's events on; a section that ends here is followed by a header: the model goes on."""
        for event in events:
            if isinstance(event, SectionStart):
                self._filter = StopFilter(self._stop if event.section.is_answer else ())
                self._pieces = 0
                self._prediction.begin(self._draft.prediction(event.section))
                yield self._draft.begin(event.section, event.number)
            elif isinstance(event, TextDelta):
                if text := self._filter.feed(event.text):
                    yield self._draft.write(text)
                if self._filter.matched is not None:
                    return
            elif isinstance(event, SectionEnd):
                yield from self._flush()
                asks = Verdict(needed=True, source=VerdictSource.HEADER)
                is_feedback = event.section is Section.FEEDBACK
                yield self._draft.end(verdict=(event.verdict or asks) if is_feedback else None)
                follows = Section.REVISION if is_feedback else Section.FEEDBACK
                if is_feedback:
                    ending = decide_ending(self._draft, wants_revision=True)
                else:
                    ending = (yield from self._draft.examine()) or self._after_answer()
                self._ending = ending or self._draft.afford(follows)
                if self._ending is not None:
                    return

    def _flush(self) -> Generator[Event, None, None]:
        if rest := self._filter.finish():
            yield self._draft.write(rest)

    def _end_section(self, cut: CutReason | None) -> Generator[Event, None, None]:
        """The text ended, or was cut off, within the open section: decide, and write the next header ourselves."""
        if self._filter.matched is None:
            yield from self._take(list(self._parser.finish())[:-1])
            if self._ending is not None:
                return
            yield from self._flush()
        section, number = self._parser.section, self._parser.number
        if section is Section.FEEDBACK:
            yield from self._end_feedback(cut)
        else:
            yield from self._end_answer(cut)
        if self._ending is None:
            section, number = follower(section, number)
            self._read = [self._prompt, render_steps(self._draft.steps, check=False), header(section, number)]
            self._parser = ChainParser(section, number)
            yield from self._take(self._parser.feed(""))

    def _end_feedback(self, cut: CutReason | None) -> Generator[Event, None, None]:
        place = f"feedback {self._parser.number}"
        verdict = find_verdict(self._draft.text)
        enforced = self._draft.num_revisions < self._draft.policy.min_revisions
        gone = cut is not None and cut not in BUDGET_CUTS
        if cut is not None and (gone or (verdict is None and not enforced)):
            yield self._draft.end(finished=False, verdict=verdict)
            self._ending = cut_off(cut, place)  # its verdict never came: silence is no consent
            return
        verdict = verdict or Verdict(needed=False, source=VerdictSource.SILENCE)
        yield self._draft.end(finished=cut is None, verdict=verdict)
        self._ending = decide_ending(self._draft, verdict.needed) or self._draft.afford(Section.REVISION)
        if self._ending is None and not verdict.needed:
            yield self._draft.overrule()

    def _end_answer(self, cut: CutReason | None) -> Generator[Event, None, None]:
        place = self._draft.place().removeprefix("in ")
        yield self._draft.end(finished=cut is None)
        if cut is not None:
            self._ending = cut_off(cut, place)
            return
        self._ending = (yield from self._draft.examine()) or self._after_answer()
        made = self._draft.num_revisions
        if self._ending is None and self._filter.matched is None and made >= self._draft.policy.min_revisions:
            self._ending = Ending(ChainEnd.ACCEPTED, f"the model ended after {place} without feedback")
        self._ending = self._ending or self._draft.afford(Section.FEEDBACK)

    def _after_answer(self) -> Ending | None:
        return no_revisions() if not self._draft.policy.criticises else self._draft.repeats()
