"""A job that is done again somewhere else: what was delivered already is compared and not delivered twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from selfee.chain.parser import add_section
from selfee.chain.run import Mode
from selfee.chain.types import (
    ChainFinished,
    Event,
    Overruled,
    Section,
    SectionEnd,
    SectionStart,
    Step,
    TextDelta,
    Verdict,
)
from selfee.engines.base import Chunk
from selfee.errors import EngineError
from selfee.serve.engine.jobs import ChainJob, Job, Outcome

_SEEDS = 1 << 32


class ReplayMismatchError(EngineError):
    """Another worker, given the same job, says something else than was delivered."""


@dataclass
class _Text:
    """Text delivered in one piece or many."""

    text: str


_Entry = _Text | Event


class Replay:
    """One job, and what came of it so far. ``job`` is what the next worker is to do.

    The seed is fixed before the first worker hears of the job, so all of them are to say the same. Where the text does
    not depend on where a request began (chains made section by section, or greedily), finished steps are not made
    again; otherwise all is made again, which costs time and nothing else.
    """

    def __init__(self, job: Job, mode: Mode) -> None:
        if job.params.seed is None:
            job = replace(job, params=replace(job.params, seed=random.randrange(_SEEDS)))
        self.job: Job = job
        self._original: Job = job
        self._mode = mode
        self._told: list[_Entry] = []
        self._index = 0  # the entry that must come next; beyond the last: everything is new
        self._offset = 0  # within it, where it is text
        self._logprobs_told = 0
        self._logprobs_seen = 0

    @property
    def has_told(self) -> bool:
        """Whether anything was delivered."""
        return bool(self._told)

    def restart(self) -> None:
        """The worker is lost: the next one begins."""
        self.job, self._index = self._shortened()
        self._offset = self._logprobs_seen = 0

    def take(self, outcome: Outcome) -> Iterator[Outcome]:
        """Pass on what is new. Raises ReplayMismatchError where it is not what was delivered."""
        if isinstance(outcome, TextDelta):
            if fresh := self._take_text(outcome.text):
                yield TextDelta(fresh)
        elif isinstance(outcome, Chunk):
            yield from self._take_chunk(outcome)
        elif isinstance(outcome, ChainFinished):
            self._require_end("the chain ends")
            yield outcome
        else:
            yield from self._take_event(outcome)

    def _take_chunk(self, chunk: Chunk) -> Iterator[Chunk]:
        fresh = self._take_text(chunk.text)
        known = max(0, self._logprobs_told - self._logprobs_seen)
        self._logprobs_seen += len(chunk.logprobs)
        self._logprobs_told = max(self._logprobs_told, self._logprobs_seen)
        logprobs = tuple(chunk.logprobs)[known:]
        if chunk.finish_reason is not None:
            self._require_end("the text ends")
        if fresh or logprobs or chunk.finish_reason is not None or self._index >= len(self._told):
            yield replace(chunk, text=fresh, logprobs=logprobs)

    def _take_event(self, event: Event) -> Iterator[Event]:
        if self._index < len(self._told) and isinstance(entry := self._told[self._index], _Text):
            if self._offset < len(entry.text):
                raise _mismatch(f"{type(event).__name__} comes before the text delivered is at its end")
            self._index, self._offset = self._index + 1, 0
        if self._index >= len(self._told):
            self._told.append(event)
            yield event
        elif self._told[self._index] != event:
            raise _mismatch(f"{type(event).__name__} differs")
        self._index += 1

    def _take_text(self, text: str) -> str:
        """What of the text is new."""
        while text and self._index < len(self._told):
            entry = self._told[self._index]
            if not isinstance(entry, _Text):
                raise _mismatch("text goes on where a section ended")
            rest = entry.text[self._offset :]
            if not rest and self._index + 1 == len(self._told):
                break  # it goes on where the other worker broke off
            count = min(len(rest), len(text))
            if rest[:count] != text[:count]:
                raise _mismatch("the text differs")
            text = text[count:]
            self._offset += count
            if self._offset == len(entry.text) and self._index + 1 < len(self._told):
                self._index, self._offset = self._index + 1, 0
        if text:
            self._append(text)
        return text

    def _append(self, text: str) -> None:
        last = self._told[-1] if self._told else None
        if isinstance(last, _Text):
            last.text += text
        else:
            last = _Text(text)
            self._told.append(last)
        self._index, self._offset = len(self._told) - 1, len(last.text)

    def _require_end(self, what: str) -> None:
        if self._index >= len(self._told):
            return
        entry = self._told[self._index]
        is_last = self._index + 1 == len(self._told)
        if not (is_last and isinstance(entry, _Text) and self._offset == len(entry.text)):
            raise _mismatch(f"{what} before all that was delivered came")

    def _shortened(self) -> tuple[Job, int]:
        """The job without the steps that are finished, and where in what was delivered it begins."""
        job = self._original
        if not isinstance(job, ChainJob) or job.allowance.is_limited or not self._is_resumable(job):
            return job, 0
        steps, kept, at = list(job.start), job.start, 0
        overruled: Overruled | None = None
        for index, entry in enumerate(self._told):
            if isinstance(entry, SectionStart):  # only now is it certain that the chain went on after what was finished
                kept, at = tuple(steps), index - (overruled is not None)
                if overruled is not None:  # whoever goes on from here says so again; later steps were made after it
                    steps[-1] = overruled_step(steps[-1], overruled)
                    overruled = None
            elif isinstance(entry, Overruled):
                overruled = entry
            elif isinstance(entry, SectionEnd):
                if not entry.finished or (entry.section is Section.FEEDBACK and entry.verdict is None):
                    break
                add_section(steps, entry)
        return replace(job, start=kept), at

    def _is_resumable(self, job: ChainJob) -> bool:
        mode = self._mode if job.mode == "auto" else job.mode
        return mode in ("turns", "guided") or job.params.temperature == 0


def _mismatch(found: str) -> ReplayMismatchError:
    return ReplayMismatchError(
        f"worker: it was lost, and another does not continue its text ({found}); expected the same model, settings and "
        "version on all workers; ask again"
    )


def overruled_step(step: Step, event: Overruled) -> Step:
    """The step with its feedback as the model saw it when it went on."""
    verdict = step.verdict or Verdict(needed=False)
    return replace(step, feedback=event.feedback, overruled=step.feedback, verdict=replace(verdict, forced=True))
