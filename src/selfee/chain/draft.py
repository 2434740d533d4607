"""A chain while it is written: every driver reports here what it writes, and gets the events to pass on."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

from selfee.chain.allowance import Allowance, Purse
from selfee.chain.asking import Asked, Stopwatch
from selfee.chain.checkers.base import Checker, Signal, run_check
from selfee.chain.parser import add_section
from selfee.chain.policy import RevisionPolicy
from selfee.chain.types import (
    Chain,
    ChainEnd,
    Check,
    Checked,
    Cost,
    CutReason,
    Event,
    Instruction,
    Overrule,
    Overruled,
    Section,
    SectionEnd,
    SectionStart,
    Step,
    TextDelta,
    Verdict,
)
from selfee.chain.verdict import find_verdict, overrule


@dataclass(frozen=True)
class Ending:
    """Why a driver stopped."""

    end: ChainEnd
    status: str
    cut: CutReason | None = None


class Draft:
    """The sections finished so far, the one under way, and what they cost."""

    def __init__(
        self,
        instruction: Instruction,
        policy: RevisionPolicy,
        *,
        seed: int,
        mode: str,
        engine: str,
        settings: Any,
        purse: Purse | None = None,
        checker: Checker | None = None,
        until_passed: bool = False,
        start: Sequence[Step] = (),
        schema: str | None = None,
    ) -> None:
        self.instruction = instruction
        self.policy = policy
        self._checker = checker
        self._until_passed = until_passed
        self._schema = schema
        self.purse = purse or Purse(Allowance())
        self.steps: list[Step] = list(start)
        self._tokens = 0
        self._labels: Mapping[str, Any] = {"seed": seed, "mode": mode, "engine": engine, "settings": settings}
        self._open: tuple[Section, int] | None = None
        self._text: list[str] = []
        self._watch = Stopwatch()
        self._cost = Cost()
        self._asked: Asked | None = None  # the request under way
        self._heard = 0  # of its log-probabilities, those taken
        self._logprobs: list[float] = []  # of the section under way

    @property
    def num_revisions(self) -> int:
        """Revisions begun so far."""
        return max(0, len(self.steps) - 1)

    @property
    def tokens(self) -> int:
        """Tokens of the section under way; what is added is taken from the purse."""
        return self._tokens

    @tokens.setter
    def tokens(self, tokens: int) -> None:
        self.purse.tokens += tokens - self._tokens
        self._tokens = tokens

    @property
    def text(self) -> str:
        """Text of the section under way."""
        return "".join(self._text)

    def begin(self, section: Section, number: int) -> SectionStart:
        """A section begins."""
        self._open, self._text, self._tokens = (section, number), [], 0
        return SectionStart(section, number)

    def prediction(self, section: Section) -> str:
        """What a section that begins now probably repeats: a revision the answer before it."""
        return self.steps[-1].answer if section is Section.REVISION and self.steps else ""

    def schema(self, section: Section) -> str | None:
        """The JSON schema that a section's text must satisfy: answers alone have one."""
        return self._schema if section.is_answer else None

    def write(self, text: str) -> TextDelta:
        """The section's next piece."""
        self._text.append(text)
        return TextDelta(text)

    def note(self, asked: Asked) -> None:
        """A request began."""
        self._hear()
        self._asked, self._heard = asked, 0
        self._cost = replace(self._cost, seeds=(*self._cost.seeds, asked.seed))

    def _hear(self) -> None:
        """Take what the request under way has told of its tokens since it was last asked."""
        if self._asked is not None:
            told = self._asked.logprobs[self._heard :]
            self._heard += len(told)
            self._logprobs += told

    def settle(self, asked: Asked) -> None:
        """A request ended: what it read counts for the section under way (or the next one)."""
        if asked.usage is not None:
            self._cost = replace(
                self._cost,
                prompt_tokens=self._cost.prompt_tokens + asked.usage.prompt_tokens,
                cached_tokens=self._cost.cached_tokens + asked.usage.cached_tokens,
                drafted_tokens=self._cost.drafted_tokens + asked.usage.drafted_tokens,
                accepted_tokens=self._cost.accepted_tokens + asked.usage.accepted_tokens,
            )

    def end(self, finished: bool = True, verdict: Verdict | None = None) -> SectionEnd:
        """The section under way is over."""
        assert self._open is not None, "a section begins before it ends"
        section, number = self._open
        self._hear()
        mean = fsum(self._logprobs) / len(self._logprobs) if self._logprobs else None
        self._logprobs = []
        cost = replace(self._cost, tokens=self.tokens, seconds=self._watch.lap(), mean_logprob=mean)
        event = SectionEnd(section, number, self.text, finished, verdict, cost)
        add_section(self.steps, event)
        self.purse.tokens += max(0, 1 - self.tokens)  # an engine that says nothing must not be asked for ever
        self._open, self._cost = None, Cost()
        return event

    def break_off(self) -> SectionEnd | None:
        """End the section under way, if there is one, as cut off."""
        return None if self._open is None else self.end(finished=False)

    def overrule(self) -> Overruled:
        """Make the last feedback ask for a revision."""
        step = self.steps[-1]
        said = step.feedback or ""
        verdict = step.verdict or Verdict(needed=False)
        kind = Overrule.APPENDED if find_verdict(said) is None else Overrule.REPLACED
        feedback = overrule(said)
        self.steps[-1] = replace(step, feedback=feedback, overruled=said, verdict=replace(verdict, forced=True))
        return Overruled(len(self.steps), feedback, kind)

    def afford(self, section: Section) -> Ending | None:
        """Whether what is left of the allowance holds a section of this kind, judged by the last one like it."""
        if not self.purse.allowance.is_limited:
            return None
        costs = [step.answer_cost if section.is_answer else step.feedback_cost for step in self.steps]
        size = next((cost for cost in reversed(costs) if cost is not None), Cost())
        if self.purse.holds(size):
            return None
        number = len(self.steps)
        about = f"; {section.value} {number} would take about {size.tokens} tokens" if size.tokens > 1 else ""
        return Ending(ChainEnd.SPENT, f"{self.purse} of {self.purse.allowance} are spent{about}")

    def examine(self) -> Generator[Event, None, Ending | None]:
        """Let the checker, if there is one, look at the answer that has just ended; that may end the chain."""
        number = self.num_revisions
        step = self.steps[number]
        if self._checker is None or not step.is_deliverable:
            return None
        check = run_check(self._checker, self.instruction, step.answer)
        self.steps[number] = replace(step, check=check)
        self._watch.lap()  # time for checking is the check's, not the next section's
        yield Checked(number, check)
        if not (self._until_passed and check.passed):
            return None
        which = f"revision {number}" if number else "the first answer"
        known = ", which knows the right answer" if self._checker.signal is Signal.GOLD else ""
        return Ending(ChainEnd.PASSED, f"{which} passed the check ({self._checker.name}{known})")

    def repeats(self) -> Ending | None:
        """Whether the last revision says the same as an earlier answer, and the policy ends the chain for it."""
        number = self.num_revisions
        if not self.policy.stop_repeats or number == 0:
            return None
        last = self.steps[-1].answer.strip()
        earlier = [index for index in range(number) if self.steps[index].answer.strip() == last]
        if not earlier:
            return None
        if earlier[-1] == number - 1:
            return Ending(ChainEnd.UNCHANGED, f"revision {number} changes nothing")
        which = f"revision {earlier[-1]}" if earlier[-1] else "the first answer"
        return Ending(ChainEnd.REPEATED, f"revision {number} repeats {which} word for word")

    def finish(self, ending: Ending) -> Chain:
        """The chain as it stands, ended thus; its status says so if fewer revisions than enforced were made."""
        made, enforced = sum(step.answer_finished for step in self.steps[1:]), self.policy.min_revisions
        status = ending.status
        if made < enforced:
            status += f"; {enforced} revision{'s were' if enforced > 1 else ' was'} enforced, {made} made"
        status += _checks_text([step.check for step in self.steps if step.check is not None])
        return Chain(self.instruction, tuple(self.steps), ending.end, status, ending.cut, **self._labels)

    def snapshot(self) -> Chain:
        """The chain so far, as if it were cancelled now."""
        steps = list(self.steps)
        if self._open is not None:
            section, number = self._open
            cost = replace(self._cost, tokens=self.tokens)
            add_section(steps, SectionEnd(section, number, self.text, False, None, cost))
        ending = Ending(ChainEnd.CUT_OFF, f"cancelled {self.place()}", CutReason.CANCELLED)
        return replace(self.finish(ending), steps=tuple(steps))

    def place(self) -> str:
        """Where the chain stands, in words."""
        if self._open is None:
            return "between two sections" if self.steps else "before the first answer"
        section, number = self._open
        return f"in {section.value} {number}" if number else "in the first answer"


def _checks_text(checks: Sequence[Check]) -> str:
    """What a status says about checks that failed themselves, or that no answer passed."""
    failed = [check for check in checks if check.failed]
    if failed:
        return f"; {len(failed)} of {len(checks)} checks failed themselves: {failed[-1].reason}"
    if checks and all(check.passed is False for check in checks):
        return "; no answer passed the check"
    return ""
