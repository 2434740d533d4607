"""A whole run: every sample of a file, in several threads, each row's fate in the journal, the final file in order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from selfee.data.augment.making import Maker, Outcome
from selfee.data.augment.record import VERSION, call_times
from selfee.data.augment.settings import AugmentSettings
from selfee.data.augment.teachers import Teachers
from selfee.data.augment.wording import Wording
from selfee.data.sample import Sample
from selfee.engines.paid.journalled import WaitsForBatchError
from selfee.errors import StoppedError, UsageError
from selfee.journal import Journal, key_of
from selfee.parallel import run_parallel

RECORDS, FAILED, TRIES, TIMES = "records", "failed", "tries", "times"
"""Spaces of the journal's notes: a row's record, why it failed, how often its words were no good, its calls' times."""


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of the rows, by their ids."""

    index: int = 1  # from 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(f"shard: {self.index}/{self.count}; expected 1/N to N/N")

    def holds(self, sample: Sample) -> bool:
        """Whether a row belongs to this part."""
        return self.count == 1 or int(key_of(sample.id)[:12], 16) % self.count == self.index - 1


@dataclass
class Progress:
    """How far a run is."""

    total: int = 0
    done: int = 0
    failed: int = 0
    from_before: int = 0  # of the done and failed, those that earlier runs settled
    failures: Counter[str] = field(default_factory=Counter)
    stopped: str | None = None

    @property
    def left(self) -> int:
        """Rows without a fate."""
        return self.total - self.done - self.failed


class Watcher(Protocol):
    """Is told about rows as they are settled."""

    def settled(self, progress: Progress) -> None: ...


class Job:
    """Chains for samples. ``samples`` is called for each pass over them: nothing is kept in memory."""

    def __init__(
        self,
        samples: Callable[[], Iterable[Sample]],
        teachers: Teachers,
        settings: AugmentSettings,
        journal: Journal,
        *,
        shard: Shard | None = None,
    ) -> None:
        self._samples = samples
        self._teachers = teachers
        self._settings = settings
        self._journal = journal
        self._shard = shard or Shard()
        self._wording = Wording(settings.prompts)
        self._maker = Maker(settings, self._wording)
        self._lock = threading.Lock()
        self._config = key_of([VERSION, settings.to_json(), self._wording.digest])
        self.progress = Progress()

    def rows(self) -> Iterator[Sample]:
        """The rows of this shard, in order."""
        return (sample for sample in self._samples() if self._shard.holds(sample))

    def key(self, sample: Sample) -> str:
        """The name of a row with everything that shapes its record."""
        teacher = self._teachers.of(sample, self._settings.seed).engine.model
        texts = [sample.id, sample.instruction, sample.input, sample.reference, sample.answer]
        return key_of([self._config, teacher, texts, sample.source, sample.split])

    def run(self, workers: int, watcher: Watcher | None = None) -> Progress:
        """Settle every row that is not settled yet. A row that fails stops no other.

        Ends early, with ``progress.stopped`` set, where a limit or a person stopped the calls.
        """
        progress = self.progress = Progress(total=sum(1 for _ in self.rows()))
        for _, fate in run_parallel(self._settle, self._unsettled(progress), workers):
            if fate is None:
                continue
            if isinstance(fate, str):
                progress.stopped = progress.stopped or fate
                self.stop(fate)
            else:
                self._count(progress, None if fate.failure is None else fate.failure.kind)
            if watcher is not None:
                watcher.settled(progress)
        return progress

    def stop(self, why: str) -> None:
        """Make no more calls; those under way come home."""
        for teacher in self._teachers.all:
            teacher.engine.desk.stop(why)

    def records(self) -> Iterator[dict[str, Any]]:
        """Every finished record, in the order of the samples."""
        for sample in self.rows():
            record = self._journal.read_note(RECORDS, self.key(sample))
            if record is not None:
                yield record

    def failures(self) -> Iterator[dict[str, Any]]:
        """Every row that failed, in the order of the samples: a sample again, with its failure."""
        from selfee.data.sample import sample_to_json

        for sample in self.rows():
            key = self.key(sample)
            failure = self._journal.read_note(FAILED, key)
            # In merged journals a row may have failed in one and have been made in another.
            if failure is not None and self._journal.read_note(RECORDS, key) is None:
                yield sample_to_json(sample) | {"failure": failure}

    def times(self) -> Iterator[dict[str, Any]]:
        """When and how long each call of each finished record took."""
        for sample in self.rows():
            yield from self._journal.read_note(TIMES, self.key(sample)) or ()

    def forget_failures(self, kinds: Iterable[str] = ()) -> int:
        """Let failed rows (of these kinds; none = all) be tried again; says how many.

        Rows whose teacher could not be asked are asked the same; rows whose words were no good get another seed.
        """
        wanted, count = set(kinds), 0
        for sample in self.rows():
            key = self.key(sample)
            failure = self._journal.read_note(FAILED, key)
            if failure is None or (wanted and failure["kind"] not in wanted):
                continue
            if not failure["by_engine"]:
                self._journal.note(TRIES, key, (self._journal.read_note(TRIES, key) or 0) + 1)
            self._journal.forget_note(FAILED, key)
            count += 1
        return count

    def _unsettled(self, progress: Progress) -> Iterator[Sample]:
        for sample in self.rows():
            if progress.stopped is not None:
                return
            key = self.key(sample)
            if self._journal.read_note(RECORDS, key) is not None:
                self._count(progress, None, before=1)
            elif (failure := self._journal.read_note(FAILED, key)) is not None:
                self._count(progress, failure["kind"], before=1)
            else:
                yield sample

    def _settle(self, sample: Sample) -> Outcome | str | None:
        """The row's outcome, already in the journal; or why the run is to stop; None: it waits for a batch."""
        teacher = self._teachers.of(sample, self._settings.seed)
        key = self.key(sample)
        try:
            outcome = self._maker.make(sample, teacher.engine, self._journal.read_note(TRIES, key) or 0)
        except WaitsForBatchError:
            return None
        except StoppedError as error:
            return str(error)
        if outcome.failure is not None:
            self._journal.note(FAILED, key, outcome.failure.to_json(), durable=False)
        if outcome.record is not None:
            # If the power fails, these are made again from the replies, which cost nothing.
            self._journal.note(TIMES, key, call_times(outcome.record, outcome.calls), durable=False)
            self._journal.note(RECORDS, key, outcome.record, durable=False)
        return outcome

    def _count(self, progress: Progress, failure: str | None, before: int = 0) -> None:
        with self._lock:  # rows settled before are met in the workers' threads
            progress.from_before += before
            if failure is None:
                progress.done += 1
            else:
                progress.failed += 1
                progress.failures[failure] += 1
