"""Several attempts on the screen while they are made, and in the end how they compare."""

from __future__ import annotations

from selfee.chain.resampling import SampleEvent
from selfee.chain.samples import Sampled, Samples
from selfee.chain.types import ChainFinished
from selfee.cli.chain_view import ChainView, wrapped
from selfee.cli.output import Screen, for_terminal

_MOST_VOTES = 5  # answers shown; the rest is a number
_LONGEST_ANSWER = 40  # characters


class SamplesView:
    """Shows each attempt as a chain of its own, then the votes and which attempt is delivered."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._view: ChainView | None = None  # of the attempt under way

    def show(self, event: SampleEvent) -> None:
        """Show the next event."""
        if not isinstance(event, Sampled):
            self._finish(event.samples)
        elif isinstance(event.event, ChainFinished):
            self._end_attempt(event.event)
        else:
            if self._view is None:
                self._view = ChainView(self._screen)
                self._screen.write(self._screen.style(f"attempt {event.attempt + 1}", "bold") + "\n")
            self._view.show(event.event)

    def interrupt(self, samples: Samples) -> None:
        """The user stopped it."""
        if self._view is not None:
            self._view.interrupt(samples.attempts[-1])
        self._finish(samples)

    def _end_attempt(self, event: ChainFinished) -> None:
        """Why an attempt ended is worth a line only where it was cut off: otherwise it is the same for all."""
        if self._view is not None and not event.chain.is_complete:
            self._view.show(event)
        elif self._view is not None:
            self._view.flush()
        self._view = None

    def _finish(self, samples: Samples) -> None:
        for vote in samples.votes[:_MOST_VOTES]:
            answer = for_terminal(vote.answer).replace("\n", " ")
            shown = answer if len(answer) <= _LONGEST_ANSWER else answer[: _LONGEST_ANSWER - 1] + "…"
            numbers = ", ".join(str(number + 1) for number in vote.attempts)
            self._screen.write(f"{len(vote.attempts):>3} for {shown}" + self._dim(f" (attempts {numbers})") + "\n")
        if len(samples.votes) > _MOST_VOTES:
            self._screen.write(self._dim(f"    and {len(samples.votes) - _MOST_VOTES} other answers") + "\n")
        cost = samples.cost
        timing = f" in {cost.seconds:.1f} s" if cost.seconds > 0 else ""
        parts = [for_terminal(samples.status), f"{cost.tokens} tokens{timing}"]
        if samples.seed is not None:
            parts.append(f"seed {samples.seed}")
        self._screen.write(self._dim(wrapped(" · ".join(parts), self._screen.width)) + "\n")

    def _dim(self, text: str) -> str:
        return self._screen.style(text, "dim")
