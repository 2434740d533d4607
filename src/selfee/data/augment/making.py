"""One row: a sample goes in; a record with its provenance comes out, or the reason why there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfee.chain.asking import derive_seed
from selfee.chain.continuing import steps_of
from selfee.chain.run import stream_chain
from selfee.chain.types import Chain, ChainEnd, CutReason, Section, SectionEnd, Step, VerdictSource
from selfee.data.augment.cleaning import is_refusal
from selfee.data.augment.leaks import find_leaks
from selfee.data.augment.record import Made, make_record
from selfee.data.augment.settings import AugmentSettings, OnLeak, OnTrouble
from selfee.data.augment.wording import Wording
from selfee.data.sample import Sample
from selfee.engines.paid.journalled import Call, JournalledEngine
from selfee.errors import ContextOverflowError, EngineError, SelfeeError, StoppedError, UsageError

_REASKED = 2  # times that a critic who tells the answer is asked anew


@dataclass(frozen=True)
class Failure:
    """Why a row brought no record."""

    kind: str  # an engine's failure ("timeout", "server" …), or "cut", "refusal", "leak", "silence", "context", "empty"
    message: str
    by_engine: bool  # the teacher could not be asked: asking again may help; else its words were no good

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))


class _RefusedRowError(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message, by_engine=False)


@dataclass(frozen=True)
class Outcome:
    """What came of a row."""

    record: dict[str, Any] | None
    failure: Failure | None
    calls: Sequence[Call]  # all that were made for it, or replayed


class Maker:
    """Makes chains of samples."""

    def __init__(self, settings: AugmentSettings, wording: Wording) -> None:
        self._settings = settings
        self._wording = wording

    def make(self, sample: Sample, engine: JournalledEngine, tries: int = 0) -> Outcome:
        """The record of a sample, asked of this teacher; ``tries`` is how often its words were no good before.

        Raises StoppedError if the run was stopped meanwhile, UsageError for what no row could do.
        """
        calls: list[Call] = []
        making = _Making(self._settings, self._wording, sample, engine.recorded(calls), tries)
        try:
            made = making.make()
        except (StoppedError, UsageError):
            raise
        except _RefusedRowError as error:
            return Outcome(None, error.failure, calls)
        except ContextOverflowError as error:
            return Outcome(None, Failure("context", str(error), by_engine=False), calls)
        except SelfeeError as error:
            kind = error.kind if isinstance(error, EngineError) else "engine"
            return Outcome(None, Failure(kind, str(error), by_engine=True), calls)
        return Outcome(make_record(made, self._settings, engine, calls), None, calls)


def row_seed(seed: int, sample: Sample, tries: int) -> int:
    """The seed of a row's chain: it depends on the row alone, not on its place in the file or its shard."""
    text = f"{seed}/{sample.id}/{tries}" if tries else f"{seed}/{sample.id}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).digest(), "big") >> 1


@dataclass
class _Making:
    settings: AugmentSettings
    wording: Wording
    sample: Sample
    engine: JournalledEngine
    tries: int

    def __post_init__(self) -> None:
        self._seed = row_seed(self.settings.seed, self.sample, self.tries)
        self._prompts = self.wording.of(self.sample)
        self._reference = (self.sample.reference or "") if self.settings.with_reference else ""

    def make(self) -> Made:
        start = () if self.sample.answer is None else (Step(self.sample.answer),)
        chain = self._run(start, self._seed)
        for attempt in range(_REASKED + 1):
            self._refuse_incomplete(chain)
            place = self._leaking_step(chain)
            if place is None or self.settings.on_leak not in (OnLeak.REASK, OnLeak.REJECT):
                break
            if self.settings.on_leak is OnLeak.REJECT or attempt == _REASKED:
                raise _RefusedRowError(
                    "leak", f"feedback {place + 1} tells the right answer: {chain.steps[place].feedback}"
                )
            kept = (*chain.steps[:place], Step(chain.steps[place].answer))
            chain = self._run(kept, derive_seed(self._seed, attempt + 1, "leak"))
        chain, note = self._without_bad_revisions(chain)
        return Made(self.sample, chain, self._prompts, self._seed, self.tries, self._reference, note)

    def _run(self, start: Sequence[Step], seed: int) -> Chain:
        stream = stream_chain(
            self.engine,
            self.sample.question,
            self.settings.policy,
            self.settings.params(seed),
            mode="turns",
            budgets=self.settings.budgets,
            prompts=self._prompts,
            reference=self._reference,
            start=start,
        )
        with stream:
            for event in stream:
                # An unfinished one may be the engine's failure, which is raised next.
                if isinstance(event, SectionEnd) and event.section is Section.ANSWER and event.finished:
                    self._refuse_first(event.text)  # before its critique is paid for
        return stream.chain

    def _refuse_first(self, answer: str) -> None:
        """Fail a row whose first answer is of no use."""
        if not answer.strip():
            raise _RefusedRowError("empty", "the teacher answered nothing")
        if is_refusal(answer) and self.settings.on_refusal is OnTrouble.REJECT:
            raise _RefusedRowError("refusal", f"the teacher refused to answer: {answer[:200]}")

    def _refuse_incomplete(self, chain: Chain) -> None:
        """Fail a row whose first answer was cut off, or which ends without a verdict."""
        settings = self.settings
        if not chain.steps or not chain.steps[0].answer.strip():
            raise _RefusedRowError("empty", "the teacher answered nothing")
        if not chain.steps[0].answer_finished and settings.on_cut is OnTrouble.REJECT:
            raise _RefusedRowError("cut", f"the first answer was cut off after {settings.answer_tokens} tokens")
        if ends_silently(chain) and self.settings.on_silence is OnTrouble.REJECT:
            raise _RefusedRowError("silence", "the last feedback gives no verdict, also when asked for one")

    def _leaking_step(self, chain: Chain) -> int | None:
        for number, step in enumerate(chain.steps):
            leaks = find_leaks(step.feedback or "", self._reference, step.answer, self.sample.question.question)
            if any(leak.reveals for leak in leaks):
                return number
        return None

    def _without_bad_revisions(self, chain: Chain) -> tuple[Chain, str | None]:
        """The chain up to a revision that was cut off, refuses or says nothing; and which of these it was."""
        for number, step in enumerate(chain.steps[1:], start=1):
            why = None
            if not step.answer_finished:
                why = f"revision {number} was cut off"
            elif is_refusal(step.answer):
                why = f"revision {number} is a refusal"
            elif not step.answer.strip():
                why = f"revision {number} is empty"
            if why is not None:
                status = f"{why} and was left out"
                kept = replace(chain, steps=chain.steps[:number], end=ChainEnd.CUT_OFF, status=status, selected=None)
                return replace(kept, cut=chain.cut or CutReason.CANCELLED), why
        if chain.cut is CutReason.CONTEXT and chain.steps:
            return replace(chain, steps=steps_of(chain), selected=None), "the context window was full"
        return chain, None


def ends_silently(chain: Chain) -> bool:
    """Whether the chain ended because its last feedback gave no verdict: that is no consent."""
    verdict = chain.steps[-1].verdict if chain.steps else None
    return verdict is not None and verdict.source is VerdictSource.SILENCE
