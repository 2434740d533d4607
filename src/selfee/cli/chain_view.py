"""A chain on the screen while it is made: what each section says, what the verdict is, what a revision changed."""

from __future__ import annotations

import re

from rich.cells import cell_len

from selfee.chain.changes import Changes, compare
from selfee.chain.types import (
    Chain,
    ChainFinished,
    Check,
    Checked,
    Cost,
    Event,
    Overruled,
    Section,
    SectionEnd,
    SectionStart,
    TextDelta,
    Verdict,
    VerdictSource,
)
from selfee.cli.output import Screen, for_terminal
from selfee.cli.wrapping import WrappingText

_LABEL = 13  # columns: "feedback 10" and two spaces
_BETWEEN = " · "
_COLOR = re.compile("\x1b\\[[0-9;]*m")
_SHOWS_DIFF_FROM = 0.35  # part of the words kept; below that a diff is harder to read than both texts


class ChainView:
    """Shows events on ``screen`` as they come; nothing is redrawn, so that it can be scrolled and copied.

    ``answer`` is the one that the first revision is compared with, where the chain goes on.
    """

    def __init__(self, screen: Screen, answer: str | None = None) -> None:
        self._screen = screen
        self._wrapping = WrappingText(screen.width, _LABEL)
        self._section = Section.ANSWER
        self._answer = answer  # the latest finished one
        self._verdict_line: str | None = None  # held back: the policy may overrule it

    def show(self, event: Event) -> None:
        """Show the next event."""
        if isinstance(event, Overruled):
            self._show_forced(event)
            return
        self._show_verdict()
        if isinstance(event, SectionStart):
            self._start(event)
        elif isinstance(event, TextDelta):
            self._write(self._wrapping.feed(for_terminal(event.text)))
        elif isinstance(event, SectionEnd):
            self._end(event)
        elif isinstance(event, Checked):
            self._show_check(event.check)
        elif isinstance(event, ChainFinished):
            self._finish(event.chain)

    def flush(self) -> None:
        """Show what was held back; nothing more comes."""
        self._show_verdict()

    def interrupt(self, chain: Chain) -> None:
        """The user stopped it."""
        self._show_verdict()
        self._write(self._wrapping.finish())
        self._screen.write("\n\n")
        self._finish(chain)

    def _start(self, event: SectionStart) -> None:
        label = event.section.value + (f" {event.number}" if event.number else "")
        self._section = event.section
        self._screen = self._screen.fitted()
        self._wrapping = WrappingText(self._screen.width, _LABEL, after_label=True)
        names = ("dim",) if event.section is Section.FEEDBACK else ("bold", "cyan")
        self._screen.write(self._screen.style(label, *names) + " " * (_LABEL - len(label)))

    def _write(self, text: str) -> None:
        if text:
            self._screen.write(self._dim(text) if self._section is Section.FEEDBACK else text)

    def _end(self, event: SectionEnd) -> None:
        self._write(self._wrapping.finish())
        self._screen.write("\n")
        is_persons = event.verdict is not None and event.verdict.source is VerdictSource.USER
        cost = "" if is_persons else _cost_text(event.cost)
        cut_off = "" if event.finished else self._screen.style("cut off", "yellow")
        if cut_off and event.verdict is None:
            self._line(cut_off + self._dim(_after(cost)))
            self._screen.write("\n")
            return
        if event.section is Section.FEEDBACK:
            self._verdict_line = (
                self._chip(event.verdict) + (self._dim(_BETWEEN) + cut_off if cut_off else "") + self._dim(_after(cost))
            )
            return
        if event.finished and self._answer is not None:
            changes = compare(self._answer, event.text)
            self._show_changes(changes)
            self._line(self._dim(changes.summary + _after(cost)))
        elif event.finished:
            self._line(self._dim(cost))
        self._answer = event.text
        self._screen.write("\n")

    def _chip(self, verdict: Verdict | None) -> str:
        if verdict is None:
            return self._screen.style("● no verdict", "yellow")
        if verdict.source is VerdictSource.SILENCE:
            return self._screen.style("● asks for no revision", "yellow")
        if verdict.source is VerdictSource.USER:
            return self._screen.style("● your feedback", "magenta")
        share = _probability(verdict)
        if verdict.needed:
            return self._screen.style("● revision needed", "yellow") + self._dim(share)
        return self._screen.style("● revision not needed", "green") + self._dim(share)

    def _show_check(self, check: Check) -> None:
        if check.failed:
            chip = self._screen.style("● the check failed itself", "red")
        elif check.passed is None:
            chip = self._screen.style("● checked" if check.score is not None else "● cannot be checked", "yellow")
        else:
            chip = self._screen.style(
                "● passed" if check.passed else "● not passed", "green" if check.passed else "yellow"
            )
        score = "" if check.score is None else f" with a score of {check.score:g}"
        self._line(chip + self._dim(score))
        wrapping = WrappingText(self._screen.width, _LABEL)
        if reason := wrapping.feed(for_terminal(check.reason)) + wrapping.finish():
            self._screen.write(self._dim(reason) + "\n")
        self._screen.write("\n")

    def _show_forced(self, event: Overruled) -> None:
        line, self._verdict_line = self._verdict_line or "", None
        forced = self._screen.style("forced", "bold", "magenta")
        self._line(line)
        self._line(forced + self._dim(" – the model is content, a revision is enforced"))
        self._screen.write("\n")

    def _show_verdict(self) -> None:
        if self._verdict_line is not None:
            line, self._verdict_line = self._verdict_line, None
            self._line(line)
            self._screen.write("\n")

    def _show_changes(self, changes: Changes) -> None:
        """The difference in colour; without colour its numbers say enough."""
        if not self._screen.has_color or changes.kept_share < _SHOWS_DIFF_FROM or not changes.pieces:
            return
        if not (changes.added or changes.removed):
            return
        self._screen.write(changed_words(self._screen, changes, _LABEL) + "\n")

    def _finish(self, chain: Chain) -> None:
        cost = chain.cost
        # A section that was cancelled has no time.
        timing = f" in {cost.seconds:.1f} s, {cost.tokens / cost.seconds:.0f} tokens/s" if cost.seconds > 0 else ""
        seed = f" · seed {chain.seed}" if chain.seed is not None else ""
        total = f"{cost.tokens} tokens{timing}" if cost.tokens else ""
        parts = [part for part in (for_terminal(chain.status), total) if part]
        self._screen.write(self._dim(wrapped(" · ".join(parts) + seed, self._screen.width)) + "\n")

    def _line(self, text: str) -> None:
        """A line of facts, broken between them where it does not fit."""
        room = max(1, self._screen.width - _LABEL)
        lines: list[str] = []
        for fact in text.split(_BETWEEN):
            joined = f"{lines[-1]}{_BETWEEN}{fact}" if lines else fact
            if lines and cell_len(_COLOR.sub("", joined)) > room:
                lines.append(fact)
            else:
                lines[-1:] = [joined]
        if text:
            self._screen.write("".join(" " * _LABEL + line + "\n" for line in lines))

    def _dim(self, text: str) -> str:
        return self._screen.style(text, "dim")


def final_rule(screen: Screen) -> str:
    """A line that says: what follows is the answer."""
    title = " final answer "
    return "\n" + screen.style(f"──{title}" + "─" * max(0, screen.width - len(title) - 2), "bold") + "\n"


def changed_words(screen: Screen, changes: Changes, indent: int = 0) -> str:
    """The words of a difference; without colour, what was added and removed stands in brackets."""
    styles = {"kept": ("dim",), "gap": ("dim",), "added": ("added",), "removed": ("removed",)}
    marks = {"added": "[+{}]", "removed": "[-{}]"} if not screen.has_color else {}
    wrapping = WrappingText(screen.width, indent)
    written = []
    for piece in changes.pieces:
        words = marks.get(piece.kind, "{}").format(for_terminal(piece.text))
        written.append(_style_lines(screen, wrapping.feed(words + " "), styles[piece.kind]))
    return "".join(written) + wrapping.finish()


def wrapped(text: str, width: int) -> str:
    """A text made to fit a terminal."""
    wrapping = WrappingText(width, 0)
    return wrapping.feed(for_terminal(text)) + wrapping.finish()


def _style_lines(screen: Screen, text: str, names: tuple[str, ...]) -> str:
    """Colour words, not the indent and the line breaks between them."""
    lines = []
    for line in text.split("\n"):
        words = line.lstrip(" ")
        lines.append(line[: len(line) - len(words)] + screen.style(words, *names))
    return "\n".join(lines)


def _probability(verdict: Verdict) -> str:
    if verdict.probability is None:
        return ""
    return f" ({verdict.probability if verdict.needed else 1 - verdict.probability:.0%} sure)"


def _cost_text(cost: Cost | None) -> str:
    return "" if cost is None else f"{cost.tokens} tokens, {cost.seconds:.1f} s"


def _after(text: str) -> str:
    return f"{_BETWEEN}{text}" if text else ""
