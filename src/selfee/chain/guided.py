"""Any completion model writes a chain: we write the headers, it writes what stands under them.

Every section is one request that ends where the next header would begin. The verdict is a constrained choice between
two sentences, so that also a model that never heard of verdicts gives one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import partial

from selfee.chain.asking import Asked, Asker
from selfee.chain.budgets import Budgets
from selfee.chain.draft import Draft, Ending
from selfee.chain.format import header, render_prompt, render_steps, stop_strings
from selfee.chain.judging import Judge, sentence_of
from selfee.chain.parser import ChainParser
from selfee.chain.prompts import GuidedPrompt
from selfee.chain.rounds import BUDGET_CUTS, Events, end_answer, end_feedback, read_words, run_rounds, write_text
from selfee.chain.types import CutReason, Event, Section, Verdict, VerdictSource
from selfee.chain.verdict import STEM, find_verdict, joint
from selfee.engines.base import Chunk, Engine, Prediction, Request, SamplingParams
from selfee.errors import ContextOverflowError

_OWN_VERDICT = (STEM, "No revision")
"""Where feedback begins to give its verdict, we take over."""

_VERDICT_TOKENS = 12


def guided_events(
    engine: Engine, draft: Draft, asker: Asker, budgets: Budgets, prompt: GuidedPrompt, stop: Sequence[str] = ()
) -> Generator[Event, None, Ending]:
    """Write a chain section by section. ``stop`` ends answers and revisions (not feedback) early."""
    return run_rounds(_Guided(engine, draft, asker, budgets, prompt, tuple(stop)), draft)


class _Guided:
    def __init__(
        self,
        engine: Engine,
        draft: Draft,
        asker: Asker,
        budgets: Budgets,
        prompt: GuidedPrompt,
        stop: tuple[str, ...],
    ) -> None:
        self._engine = engine
        self._draft = draft
        self._asker = asker
        self._budgets = budgets
        examples = (render_prompt(instruction) + render_steps(steps) for instruction, steps in prompt.examples)
        self._opening = "\n\n".join((*examples, render_prompt(draft.instruction)))
        self._stop = stop
        self._judge = Judge(engine)
        self._prediction = Prediction()
        self._forgotten = 0  # rounds at the beginning that no longer fit into the context window

    def answer(self) -> Events:
        cut = yield from self._write(Section.ANSWER, 0, self._stop)
        return (yield from end_answer(self._draft, cut))

    def revise(self, number: int) -> Events:
        cut = yield from self._write(Section.REVISION, number, self._stop)
        return (yield from end_answer(self._draft, cut))

    def criticise(self, number: int) -> Events:
        cut = yield from self._write(Section.FEEDBACK, number, _OWN_VERDICT)
        words = self._draft.text
        verdict = find_verdict(words)
        if verdict is None and cut in (None, *BUDGET_CUTS):
            prompt = self._text(Section.FEEDBACK, number)
            verdict = self._judge.choose(prompt, words) or self._ask(prompt, words)
            if verdict.source is not VerdictSource.SILENCE:
                yield self._draft.write(joint(words) + sentence_of(verdict))
        return (yield from end_feedback(self._draft, cut, verdict))

    def _write(self, section: Section, number: int, stop: tuple[str, ...]) -> Generator[Event, None, CutReason | None]:
        yield self._draft.begin(section, number)
        asked = self._open(section, number, stop)
        parser = ChainParser(section, number, any_header=True)
        return (yield from write_text(self._draft, self._asker, asked, parser))

    def _open(self, section: Section, number: int, stop: tuple[str, ...]) -> Asked:
        """Ask for a section; forgets the oldest round as long as the section's whole budget does not fit."""
        limit = self._budgets.of(section)
        self._prediction.begin(self._draft.prediction(section))
        while True:
            prompt = self._text(section, number)
            may_forget = self._forgotten < len(self._draft.steps) - 1  # the answer worked on must stay
            room = self._asker.room(prompt)
            if may_forget and room is not None and room < limit:
                self._forgotten += 1
                continue
            stops = (*stop_strings(), *stop)
            try:
                return self._asker.ask(partial(self._stream, prompt, stops, self._draft.schema(section)), limit, prompt)
            except ContextOverflowError:
                if not may_forget:
                    raise
                self._forgotten += 1

    def _stream(
        self, prompt: str, stops: tuple[str, ...], schema: str | None, params: SamplingParams, limit: int
    ) -> Iterator[Chunk]:
        return self._engine.stream(Request(prompt, params, limit, stops, prediction=self._prediction, schema=schema))

    def _text(self, section: Section, number: int) -> str:
        steps = self._draft.steps[self._forgotten :]
        return self._opening + render_steps(steps, check=False) + header(section, number - self._forgotten)

    def _ask(self, prompt: str, words: str) -> Verdict:
        """Let the model finish "Revision is"."""
        if self._draft.purse.is_empty:
            return Verdict(needed=False, source=VerdictSource.SILENCE)
        prompt += words.rstrip() + joint(words) + STEM

        asked = self._asker.ask(partial(self._stream, prompt, ("\n", "."), None), _VERDICT_TOKENS, prompt)
        said = read_words(self._draft, self._asker, asked)
        found = find_verdict(f"{STEM}{said}.")
        if found is None:
            return Verdict(needed=False, source=VerdictSource.SILENCE)
        return Verdict(found.needed, VerdictSource.ASKED, found.phrase)
