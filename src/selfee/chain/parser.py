"""Reads what a model writes after the prompt, piece by piece, and tells where answers, feedback and revisions begin."""

from __future__ import annotations

from collections.abc import Iterator

from selfee.chain.format import MAX_HEADER, follower, is_header, may_become_header
from selfee.chain.types import (
    Chain,
    ChainEnd,
    CutReason,
    Event,
    Instruction,
    Section,
    SectionEnd,
    SectionStart,
    Step,
    TextDelta,
)
from selfee.chain.verdict import find_verdict


class ChainParser:
    """Text in, events out; however the text is cut into pieces, the events are the same up to how deltas are cut.

    Starts within ``section`` ``number``: by default the first answer, else where a text was taken up again. Text is
    passed on at once, except a possible beginning of the next header with the blank line before it (at most some 50
    characters). Time is linear in the text; beside the current section's text, memory is constant.
    """

    def __init__(self, section: Section = Section.ANSWER, number: int = 0, *, any_header: bool = False) -> None:
        """``any_header``: also a feedback or revision header with a wrong kind or number ends the first section.

        That is for models that write one section alone and count badly; what follows that section is then no chain.
        """
        self.section = section
        self.number = number
        self._any_header = any_header
        self._held = ""  # may belong to the next header
        self._at_line_start = True  # whether ``_held`` (or what comes next) begins a line
        self._released: list[str] = []  # the section's text so far
        self._started = False

    @property
    def text(self) -> str:
        """The current section's text so far, without what is held back."""
        return "".join(self._released)

    @property
    def held(self) -> str:
        """Text that is held back because it may begin the next header."""
        return self._held

    def feed(self, text: str) -> Iterator[Event]:
        """Yield what the text so far makes certain."""
        yield from self._start()
        if not self._held and not self._at_line_start and "\n" not in text:  # the usual piece: within a line
            yield from self._release(text)
            return
        buffer = self._held + text
        start = 0
        while (split := self._find_header(buffer, start)) is not None:
            content_end, header_end = split
            yield from self._release(buffer[start:content_end])
            yield self._end(finished=True)
            self.section, self.number = follower(self.section, self.number)
            self._released, self._at_line_start, self._started = [], True, False
            yield from self._start()
            start = header_end
        keep = self._count_held(buffer, start)
        release, self._held = buffer[start : len(buffer) - keep], buffer[len(buffer) - keep :]
        if release:
            self._at_line_start = release.endswith("\n")
        yield from self._release(release)

    def finish(self, finished: bool = True) -> Iterator[Event]:
        """End the last section; ``finished`` is false if the text was cut off and not ended by its writer."""
        yield from self._start()
        line = self._held.lstrip("\n")
        if is_header(line, *self._expected()):  # its line break never came
            yield from self.feed("\n")
        held, self._held = self._held, ""
        yield from self._release(held)
        yield self._end(finished)

    def _expected(self) -> tuple[Section, int | None]:
        section, number = follower(self.section, self.number)
        return section, None if self._any_header else number

    def _start(self) -> Iterator[Event]:
        if not self._started:
            self._started = True
            yield SectionStart(self.section, self.number)

    def _release(self, text: str) -> Iterator[Event]:
        if text:
            self._released.append(text)
            yield TextDelta(text)

    def _end(self, finished: bool) -> SectionEnd:
        text = self.text
        verdict = find_verdict(text) if self.section is Section.FEEDBACK else None
        return SectionEnd(self.section, self.number, text, finished, verdict)

    def _find_header(self, buffer: str, start: int) -> tuple[int, int] | None:
        """(end of the section's text, start of the next one's) around the next header line that is complete."""
        expected = self._expected()
        line_start = start if self._at_line_start else buffer.find("\n", start) + 1
        if line_start == 0 and not self._at_line_start:
            return None
        while True:
            if buffer.startswith("#", line_start):
                line_end = buffer.find("\n", line_start, line_start + MAX_HEADER)
                if line_end >= 0 and is_header(buffer[line_start:line_end], *expected):
                    return line_start - _count_separators(buffer, start, line_start), line_end + 1
            line_start = buffer.find("\n#", line_start) + 1
            if line_start == 0:
                return None

    def _count_held(self, buffer: str, start: int) -> int:
        """How many characters at the end may still belong to the next header."""
        line_start = max(start, buffer.rfind("\n", start) + 1)
        if line_start == start and not self._at_line_start:
            return 0
        if not may_become_header(buffer[line_start : line_start + MAX_HEADER], *self._expected()):
            return 0
        return len(buffer) - line_start + _count_separators(buffer, start, line_start)


def read_chain(target: str, instruction: Instruction, finished: bool | None = None) -> Chain:
    """The chain in what a model wrote after the prompt.

    ``finished`` says whether the model ended it by itself. None = not known: then a text that ends with feedback
    counts as finished, one that ends within an answer as cut off, as SelFee's own reader of its released texts has it.
    """
    parser = ChainParser()
    steps: list[Step] = []
    events = list(parser.feed(target))
    events += parser.finish(parser.section is Section.FEEDBACK if finished is None else finished)
    for event in events:
        if isinstance(event, SectionEnd):
            add_section(steps, event)
    last = steps[-1]
    if not (last.answer_finished and last.feedback_finished):
        return Chain(instruction, tuple(steps), ChainEnd.CUT_OFF, "the text ends within a section", CutReason.LENGTH)
    if last.verdict is not None and last.verdict.needed:
        return Chain(instruction, tuple(steps), ChainEnd.CAPPED, "the last feedback asks for a revision; none follows")
    return Chain(instruction, tuple(steps), ChainEnd.ACCEPTED, "no further revision is asked for")


def add_section(steps: list[Step], end: SectionEnd) -> None:
    """Write a section that ended into the steps: a new step for an answer, the last step's feedback otherwise."""
    if end.section.is_answer:
        steps.append(Step(end.text, answer_finished=end.finished, answer_cost=end.cost))
        return
    answer = steps[-1]
    steps[-1] = Step(
        answer.answer,
        end.text,
        end.verdict,
        answer_finished=answer.answer_finished,
        feedback_finished=end.finished,
        answer_cost=answer.answer_cost,
        feedback_cost=end.cost,
        check=answer.check,
    )


def _count_separators(buffer: str, start: int, line_start: int) -> int:
    """Line breaks before a header that belong to it: the one that ends the line before, and one blank line."""
    before = buffer[max(start, line_start - 2) : line_start]
    return len(before) - len(before.rstrip("\n"))
