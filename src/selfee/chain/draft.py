"""A chain while it is written: every driver reports here what it writes, and gets the events to pass on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from selfee.chain.asking import Asked, Stopwatch
from selfee.chain.parser import add_section
from selfee.chain.policy import RevisionPolicy
from selfee.chain.types import (
    Chain,
    ChainEnd,
    Cost,
    CutReason,
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
        self, instruction: Instruction, policy: RevisionPolicy, *, seed: int, mode: str, engine: str, settings: Any
    ) -> None:
        self.instruction = instruction
        self.policy = policy
        self.steps: list[Step] = []
        self.tokens = 0  # of the section under way
        self._labels: Mapping[str, Any] = {"seed": seed, "mode": mode, "engine": engine, "settings": settings}
        self._open: tuple[Section, int] | None = None
        self._text: list[str] = []
        self._watch = Stopwatch()
        self._cost = Cost()

    @property
    def num_revisions(self) -> int:
        """Revisions begun so far."""
        return max(0, len(self.steps) - 1)

    @property
    def text(self) -> str:
        """Text of the section under way."""
        return "".join(self._text)

    def begin(self, section: Section, number: int) -> SectionStart:
        """A section begins."""
        self._open, self._text, self.tokens = (section, number), [], 0
        return SectionStart(section, number)

    def prediction(self, section: Section) -> str:
        """What a section that begins now probably repeats: a revision the answer before it."""
        return self.steps[-1].answer if section is Section.REVISION and self.steps else ""

    def write(self, text: str) -> TextDelta:
        """The section's next piece."""
        self._text.append(text)
        return TextDelta(text)

    def note(self, asked: Asked) -> None:
        """A request began."""
        self._cost = replace(self._cost, seeds=(*self._cost.seeds, asked.seed))

    def settle(self, asked: Asked) -> None:
        """A request ended: what it read counts for the section under way (or the next one)."""
        if asked.usage is not None:
            self._cost = replace(
                self._cost,
                prompt_tokens=self._cost.prompt_tokens + asked.usage.prompt_tokens,
                cached_tokens=self._cost.cached_tokens + asked.usage.cached_tokens,
            )

    def end(self, finished: bool = True, verdict: Verdict | None = None) -> SectionEnd:
        """The section under way is over."""
        assert self._open is not None, "a section begins before it ends"
        section, number = self._open
        cost = replace(self._cost, tokens=self.tokens, seconds=self._watch.lap())
        event = SectionEnd(section, number, self.text, finished, verdict, cost)
        add_section(self.steps, event)
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
