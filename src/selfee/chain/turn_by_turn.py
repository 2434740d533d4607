"""Any chat model writes a chain through its own template: an answerer, a critic and a reviser take turns.

Contents are passed as messages and never spliced into markup, so nothing in a question or an answer can pose as the
template's own words.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from selfee.chain.asking import Asked, Asker
from selfee.chain.budgets import Budgets
from selfee.chain.draft import Draft, Ending
from selfee.chain.judging import Judge, critique_prompt, sentence_of
from selfee.chain.prompts import PromptSet, Turn, fields_of
from selfee.chain.rounds import BUDGET_CUTS, Events, end_answer, end_feedback, read_words, run_rounds, write_text
from selfee.chain.types import CutReason, Event, Section, Step, Verdict, VerdictSource
from selfee.chain.verdict import find_verdict, joint, overrule
from selfee.engines.base import ChatEngine, ChatRequest, Chunk, Message, Prediction, SamplingParams
from selfee.errors import ContextOverflowError, UsageError

_VERDICT_TOKENS = 16
_MARKS = "<|role|>\n"
"""Stands for a template's marks around a message where tokens are counted before a template is applied."""


def turn_events(
    engine: ChatEngine,
    draft: Draft,
    asker: Asker,
    budgets: Budgets,
    prompts: PromptSet,
    stop: Sequence[str] = (),
    reference: str = "",
) -> Generator[Event, None, Ending]:
    """Write a chain turn by turn. ``stop`` ends answers and revisions (not feedback) early; ``reference`` is a good
    answer that only the critic sees, in prompt sets that have a place for it."""
    return run_rounds(_Turns(engine, draft, asker, budgets, prompts, tuple(stop), reference), draft)


@dataclass
class _Turns:
    engine: ChatEngine
    draft: Draft
    asker: Asker
    budgets: Budgets
    prompts: PromptSet
    stop: tuple[str, ...]
    reference: str

    def __post_init__(self) -> None:
        self._judge = Judge(self.engine)
        self._prediction = Prediction()
        self._words: list[str] = []  # each feedback as the critic said it, without a verdict that we added
        self._author: list[Message] = []  # the answerer's and reviser's conversation
        self._critic: list[Message] = []
        self._takes_prefix = True
        self._is_continued = bool(self.draft.steps)
        if self._is_continued:
            self._continue(self.draft.steps[-1])

    def _continue(self, step: Step) -> None:
        """Stand where the chain stands; of the conversations only the last round is told again."""
        self._author = [*self._asked(), Message("assistant", step.answer)]
        if step.feedback is not None:
            words = step.overruled or step.feedback
            self._words.append(words)
            fresh = self._fill(self.prompts.critique, step.answer, with_history=True)
            self._critic = [*fresh, Message("assistant", words)]

    def _keeps(self, index: int) -> bool:
        return self.prompts.keeps_round(index) and not self._is_continued

    def answer(self) -> Events:
        self._author = self._asked()
        cut = yield from self._write(Section.ANSWER, 0, [self._author], self.stop)
        self._author = [*self._author, Message("assistant", self.draft.text)]
        return (yield from end_answer(self.draft, cut))

    def criticise(self, number: int) -> Events:
        answer = self.draft.steps[-1].answer
        fresh = self._fill(self.prompts.critique, answer, with_history=True)
        attempts = [fresh]
        if self._keeps(number - 1):
            again = self._fill(self.prompts.critique_again or self.prompts.critique, answer)
            attempts.insert(0, self._critic + again)
        prefix = self.prompts.critique_prefix
        cut = yield from self._write(Section.FEEDBACK, number, attempts, self.prompts.critique_stop, prefix)
        words = self.draft.text
        self._words.append(words)
        self._critic = [*self._used, Message("assistant", words)]
        verdict = find_verdict(words)
        if verdict is None and cut in (None, *BUDGET_CUTS):
            verdict = self._judge.choose(critique_prompt(self.draft.instruction, answer), words) or self._ask()
            if verdict.source is not VerdictSource.SILENCE:
                yield self.draft.write(joint(words) + sentence_of(verdict))
        return (yield from end_feedback(self.draft, cut, verdict))

    def revise(self, number: int) -> Events:
        words = self._words[-1]
        verdict = self.draft.steps[-1].verdict
        if verdict is not None and verdict.forced and find_verdict(words) is not None:
            words = overrule(words)
            self._critic = [*self._critic[:-1], Message("assistant", words)]
        answer = self.draft.steps[-1].answer
        kept = self._keeps(number - 1)
        later = self.prompts.revise_later if not kept and number > 1 else ()
        turns = self._fill(later or self.prompts.revise, answer, words)
        if self.prompts.one_conversation:
            alone = [*self._fill(self.prompts.critique, answer, with_history=True), Message("assistant", words), *turns]
            attempts = [self._critic + turns, alone]
        else:
            alone = [*self._asked(), Message("assistant", answer), *turns]
            attempts = [self._author + turns, alone] if kept else [alone]
        cut = yield from self._write(Section.REVISION, number, attempts, self.stop)
        self._author = [*self._used, Message("assistant", self.draft.text)]
        if self.prompts.one_conversation:
            self._critic = self._author
        return (yield from end_answer(self.draft, cut))

    def _write(
        self, section: Section, number: int, attempts: Sequence[list[Message]], stop: tuple[str, ...], prefix: str = ""
    ) -> Generator[Event, None, CutReason | None]:
        """Write a section; of several conversations, the first that fits into the context window is used."""
        self._prediction.begin(self.draft.prediction(section))
        yield self.draft.begin(section, number)
        limit = self.budgets.of(section)
        for messages in attempts[:-1]:
            room = self.asker.room(_as_text(messages))
            if room is not None and room < limit:
                continue
            try:
                asked = self._ask_chat(messages, stop, limit, prefix, self.draft.schema(section))
                break
            except ContextOverflowError:
                continue
        else:
            asked = self._ask_chat(attempts[-1], stop, limit, prefix, self.draft.schema(section))
        if prefix and self._takes_prefix:
            yield self.draft.write(prefix)
        return (yield from write_text(self.draft, self.asker, asked, keep_start=bool(prefix and self._takes_prefix)))

    def _ask_chat(
        self, messages: list[Message], stop: tuple[str, ...], limit: int, prefix: str = "", schema: str | None = None
    ) -> Asked:
        self._used = messages
        prompt = _as_text(messages)
        if prefix and self._takes_prefix:
            try:
                return self.asker.ask(partial(self._stream, messages, stop, prefix, schema), limit, prompt)
            except UsageError:  # servers refuse a prefix; the section then begins as the model likes
                self._takes_prefix = False
        return self.asker.ask(partial(self._stream, messages, stop, "", schema), limit, prompt)

    def _stream(
        self,
        messages: list[Message],
        stop: tuple[str, ...],
        prefix: str,
        schema: str | None,
        params: SamplingParams,
        limit: int,
    ) -> Iterator[Chunk]:
        asked = ChatRequest(tuple(messages), params, limit, stop, prefix, self._prediction, schema=schema)
        return self.engine.stream_chat(asked)

    def _asked(self) -> list[Message]:
        """The answerer's conversation up to its answer: what was said before stands between system and question."""
        instruction, messages = self.draft.instruction, self._fill(self.prompts.answer)
        opening = [message for message in messages if message.role == "system"]
        if instruction.system:
            opening = [Message("system", instruction.system)]
        told = [
            message
            for turn in instruction.history
            for message in (Message("user", turn.question), Message("assistant", turn.answer))
        ]
        return [*opening, *told, *(message for message in messages if message.role != "system")]

    def _fill(
        self, turns: Sequence[Turn], answer: str = "", feedback: str = "", *, with_history: bool = False
    ) -> list[Message]:
        fields = fields_of(self.draft.instruction, answer, feedback, self.reference, with_history=with_history)
        return [turn.fill(fields) for turn in turns if self.reference or not turn.with_reference]

    def _ask(self) -> Verdict:
        """Ask the critic once more, for the verdict alone."""
        if self.draft.purse.is_empty:
            return Verdict(needed=False, source=VerdictSource.SILENCE)
        messages = [*self._critic, Message("user", self.prompts.ask_verdict)]
        asked = self._ask_chat(messages, (), _VERDICT_TOKENS)
        found = find_verdict(read_words(self.draft, self.asker, asked))
        if found is None:
            return Verdict(needed=False, source=VerdictSource.SILENCE)
        return replace(found, source=VerdictSource.ASKED)


def _as_text(messages: Sequence[Message]) -> str:
    return "\n".join(f"{_MARKS}{message.content}{_MARKS}" for message in messages)
