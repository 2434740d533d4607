"""The chat itself: entries in, chains on the screen; it goes on whatever one entry did."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selfee.chain.budgets import Budgets
from selfee.chain.changes import compare
from selfee.chain.continuing import steps_of, with_feedback
from selfee.chain.format import render_prompt, render_steps
from selfee.chain.policy import RevisionPolicy
from selfee.chain.run import Mode, choose_mode, stream_chain
from selfee.chain.templates import mode_for, name_template, use_template
from selfee.chain.types import (
    Chain,
    ChainFinished,
    Event,
    Instruction,
    Section,
    SectionEnd,
    SectionStart,
    Step,
    TextDelta,
)
from selfee.cli.chain_view import ChainView, changed_words, final_rule, wrapped
from selfee.cli.chatting.commands import Call, help_text, number_in, parse, question_of
from selfee.cli.chatting.conversation import Conversation, Shelf, try_to_save
from selfee.cli.chatting.folded import FoldedView
from selfee.cli.chatting.reading import Reader
from selfee.cli.interrupts import TerminatedError
from selfee.cli.output import Screen, for_terminal
from selfee.engines.base import SamplingParams
from selfee.errors import SelfeeError, UsageError

_MOST_REVISIONS = 99


@dataclass
class Settings:
    """How answers are made."""

    policy: RevisionPolicy
    params: SamplingParams
    budgets: Budgets
    mode: Mode = "auto"
    prompts: str | None = None


@dataclass
class Opened:
    """An engine, how it is called, and what suits it."""

    engine: Any
    name: str
    settings: Settings


@dataclass
class Total:
    """What a chat has cost so far."""

    tokens: int = 0
    seconds: float = 0.0
    drafted: int = 0
    accepted: int = 0


@dataclass
class Talk:
    """One chat. ``open_model`` opens another model by name and closes nothing."""

    opened: Opened
    open_model: Callable[[str], Opened]
    conversation: Conversation
    screen: Screen
    shelf: Shelf
    path: Path | None = None  # where the conversation is kept; None = not yet
    keeps: bool = True
    folded: bool = False
    hushed: Callable[[], AbstractContextManager[None]] = nullcontext  # within it, keys are not shown
    total: Total = field(default_factory=Total)

    def run(self, reader: Reader) -> None:
        """Read entries until the user leaves."""
        leaving = False
        while True:
            try:
                if leaving:
                    self._say("Ctrl-C once more, or Ctrl-D, leaves.")
                entry = reader.read()
            except TerminatedError:
                raise  # not the user's Ctrl-C
            except KeyboardInterrupt:  # also one that comes before the line editor is there to take it
                if leaving:
                    return
                leaving = True
                continue
            if entry is None:
                return
            leaving = False
            try:
                if not self.take(entry):
                    return
            except SelfeeError as error:
                self._complain(str(error))
            except TerminatedError:
                raise
            except KeyboardInterrupt:
                self.screen.write("\n")

    def take(self, entry: str) -> bool:
        """Do what one entry says; False if it ends the chat. Raises SelfeeError where that cannot be done."""
        self.screen = self.screen.fitted()
        call = parse(entry)
        if call is None:
            if question := question_of(entry):
                self._make(self.conversation.ask(question), self.opened.settings.policy, (), None)
            return True
        if call.name == "quit":
            return False
        getattr(self, f"_do_{call.name}")(call)
        return True

    # Commands.

    def _do_help(self, call: Call) -> None:
        self.screen.write(wrapped(help_text(), self.screen.width) + "\n")

    def _do_rev(self, call: Call) -> None:
        settings = self.opened.settings
        if call.argument == "auto":
            settings.policy = RevisionPolicy()
        elif call.argument == "off":
            settings.policy = RevisionPolicy(0, 0)
        elif call.argument:
            number = number_in(call, "number of revisions", 0, _MOST_REVISIONS)
            settings.policy = RevisionPolicy(number, max(number, RevisionPolicy().max_revisions or 0))
        self._say(_policy_text(settings.policy))

    def _do_more(self, call: Call) -> None:
        chain = self._last()
        made = len(steps_of(chain))
        self._go_on(chain, steps_of(chain), RevisionPolicy(made, made, always_criticise=False))

    def _do_feedback(self, call: Call) -> None:
        chain = self._last()
        start = with_feedback(chain, call.argument, chain.delivered)
        made = len(start)
        self._go_on(chain, start, RevisionPolicy(made, made, always_criticise=False))

    def _do_accept(self, call: Call) -> None:
        chain = self._last()
        number = chain.delivered if not call.argument else number_in(call, "answer", 0, len(chain.steps) - 1)
        if number is None or not chain.steps[number].is_deliverable:
            raise UsageError(f"/accept: answer {number} was not finished; expected one that was; /more or ask again")
        self._replace(replace(chain, selected=number))
        self._show_final(chain.steps[number].answer)

    def _do_regen(self, call: Call) -> None:
        chain, policy = self._last(), self.opened.settings.policy
        self._make(chain.instruction, policy, (), random.getrandbits(32), replaces=chain)

    def _do_chain(self, call: Call) -> None:
        view = ChainView(self.screen)
        for event in _told(self._last()):
            view.show(event)

    def _do_diff(self, call: Call) -> None:
        chain = self._last()
        finished = [number for number, step in enumerate(chain.steps) if step.is_deliverable]
        if len(finished) < 2:
            raise UsageError("/diff: the last chain has one answer; expected two or more; /more makes another")
        first, last = finished[0], finished[-1]
        if call.argument:
            words = call.argument.split()
            if len(words) != 2:
                raise UsageError("/diff: expected two numbers of answers, as in /diff 0 1")
            first, last = (number_in(Call("diff", word), "answer", 0, len(chain.steps) - 1) for word in words)
        changes = compare(chain.steps[first].answer, chain.steps[last].answer)
        self.screen.write(changed_words(self.screen, changes) + "\n")
        self._say(f"answer {first} → {last}: {changes.summary}")

    def _do_raw(self, call: Call) -> None:
        chain = self._last()
        text = render_prompt(chain.instruction) + render_steps(chain.steps, check=False)
        self.screen.write(for_terminal(text) + "\n")

    def _do_fold(self, call: Call) -> None:
        self.folded = not self.folded
        self._say("only final answers; /chain shows the last chain" if self.folded else "chains are shown live")

    def _do_system(self, call: Call) -> None:
        if call.argument:
            self.conversation.system = "" if call.argument == "-" else call.argument
        self._say(f"system: {self.conversation.system or '(none)'}")

    def _do_model(self, call: Call) -> None:
        if call.argument:
            opened = self.open_model(call.argument)  # first, so that an error changes nothing
            opened.settings.policy = self.opened.settings.policy  # /rev is about the conversation
            old, self.opened = self.opened, opened
            self.conversation.model = opened.name
            old.engine.close()
        self._say(f"model: {self.opened.name}")

    def _do_template(self, call: Call) -> None:
        settings, engine = self.opened.settings, self.opened.engine
        if call.argument:
            mode = mode_for(call.argument)
            use_template(engine, call.argument)
            settings.mode = choose_mode(engine, mode)
            settings.prompts = None  # words for one mode mean nothing in another
        self._say(f"template: {name_template(engine, settings.mode) or 'that of the server'}")

    def _do_save(self, call: Call) -> None:
        path = Path(call.argument).expanduser() if call.argument else (self.path or self.shelf.new_path())
        self.conversation.save(path)
        self._say(f"saved: {path}")

    def _do_load(self, call: Call) -> None:
        path = Path(call.argument).expanduser()
        self.conversation = Conversation.load(path)
        self.path = path
        self._say(f"{path}: {_count(len(self.conversation.chains), 'question')}")

    def _do_clear(self, call: Call) -> None:
        self.conversation = Conversation(self.conversation.system, self.conversation.model)
        self.path = None
        self._say("a new conversation")

    def _do_stats(self, call: Call) -> None:
        total, context = self.total, getattr(self.opened.engine, "context_length", None)
        speed = f", {total.tokens / total.seconds:.0f} tokens/s" if total.seconds else ""
        lines = [f"{_count(total.tokens, 'token')} in {total.seconds:.1f} s{speed}"]
        if total.drafted:
            lines.append(f"{total.accepted} of {_count(total.drafted, 'guess', 'guesses')} right: no pass of their own")
        counter = getattr(self.opened.engine, "count_tokens", None)
        if context is not None:
            used = counter(render_prompt(self.conversation.ask(""))) if counter else None
            lines.append(f"context: {f'about {used} of ' if used is not None else ''}{context} tokens")
        if self.conversation.chains:
            chain = self.conversation.chains[-1]
            lines.append(f"last chain: {_count(chain.num_revisions, 'revision')}, {chain.cost.tokens} tokens")
        for line in lines:
            self._say(line)

    # Making chains.

    def _go_on(self, chain: Chain, start: Sequence[Step], policy: RevisionPolicy) -> None:
        self._make(chain.instruction, replace(policy, stop_repeats=False), start, chain.seed, replaces=chain)

    def _make(
        self,
        instruction: Instruction,
        policy: RevisionPolicy,
        start: Sequence[Step],
        seed: int | None,
        replaces: Chain | None = None,
    ) -> None:
        settings = self.opened.settings
        params = settings.params if seed is None else replace(settings.params, seed=seed)
        before = start[-1].answer if start else None
        view = FoldedView(self.screen) if self.folded else ChainView(self.screen, before)
        stream = stream_chain(
            self.opened.engine,
            instruction,
            policy,
            params,
            mode=settings.mode,
            budgets=settings.budgets,
            prompts=settings.prompts,
            start=start,
        )
        started = time.monotonic()
        try:
            with closing(stream), self.hushed():
                for event in stream:
                    view.show(event)
        except KeyboardInterrupt as stopped:
            view.interrupt(stream.chain)
            if isinstance(stopped, TerminatedError):
                raise
        finally:
            self._keep(stream.chain, replaces, time.monotonic() - started, len(start))
        shown_last = len(stream.chain.steps) - 1
        if stream.chain.delivered is None:
            why = f" ({stream.chain.status})" if self.folded else ""  # else it stands right above
            self._complain(f"no answer was finished{why}; /regen asks again")
        elif self.folded or stream.chain.delivered != shown_last:
            self._show_final(stream.chain.final)

    def _keep(self, chain: Chain, replaces: Chain | None, seconds: float, known: int) -> None:
        """Keep what was made, also what was broken off; a chain is replaced only by one with a finished answer."""
        new = [cost for step in chain.steps[known:] for cost in (step.answer_cost, step.feedback_cost) if cost]
        self.total.tokens += sum(cost.tokens for cost in new)
        self.total.drafted += sum(cost.drafted_tokens for cost in new)
        self.total.accepted += sum(cost.accepted_tokens for cost in new)
        self.total.seconds += seconds
        if replaces is not None and chain.delivered is not None:
            self.conversation.chains.pop()
        if chain.delivered is not None or (replaces is None and chain.steps):
            self._replace(chain, append=True)

    def _replace(self, chain: Chain, *, append: bool = False) -> None:
        if append:
            self.conversation.chains.append(chain)
        else:
            self.conversation.chains[-1] = chain
        if self.keeps:
            self.path = self.path or self.shelf.new_path()
            if problem := try_to_save(self.conversation, self.path):
                self._complain(problem)

    def _last(self) -> Chain:
        if not self.conversation.chains:
            raise UsageError("no answer yet; expected one for this command; ask something first")
        return self.conversation.chains[-1]

    def _show_final(self, answer: str) -> None:
        self.screen.write(
            ("" if self.folded else final_rule(self.screen)) + wrapped(answer, self.screen.width) + "\n\n"
        )

    def _say(self, text: str) -> None:
        self.screen.write(self.screen.style(for_terminal(text), "dim") + "\n")

    def _complain(self, text: str) -> None:
        self.screen.write(self.screen.style(wrapped(text, self.screen.width), "red") + "\n")


def _told(chain: Chain) -> list[Event]:
    """The events that a finished chain would have given."""
    events: list[Event] = []
    for index, step in enumerate(chain.steps):
        section = Section.REVISION if index else Section.ANSWER
        events += [SectionStart(section, index), TextDelta(step.answer)]
        events.append(SectionEnd(section, index, step.answer, step.answer_finished, None, step.answer_cost))
        if step.feedback is not None:
            said = step.overruled or step.feedback
            events += [SectionStart(Section.FEEDBACK, index + 1), TextDelta(said)]
            events.append(
                SectionEnd(Section.FEEDBACK, index + 1, said, step.feedback_finished, step.verdict, step.feedback_cost)
            )
    return [*events, ChainFinished(chain)]


def _policy_text(policy: RevisionPolicy) -> str:
    if policy.max_revisions == 0:
        return "revisions: off, one answer only"
    if policy.min_revisions == 0:
        return f"revisions: the model decides, at most {policy.max_revisions}"
    return f"revisions: at least {policy.min_revisions}, at most {policy.max_revisions}"


def _count(number: int, what: str, many: str = "") -> str:
    return f"{number} {what if number == 1 else many or what + 's'}"
