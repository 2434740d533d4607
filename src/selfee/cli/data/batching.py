"""``selfee data augment --batch``: rounds of batches instead of single calls."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from selfee.cli.output import Screen, for_terminal
from selfee.errors import StoppedError, UsageError

if TYPE_CHECKING:
    from selfee.cli.data.augment import Command, Telling
    from selfee.cli.data.augment_display import AugmentDisplay
    from selfee.data.augment.job import Job, Progress
    from selfee.engines.paid.journalled import JournalledEngine

_WORKERS = 8  # chains go only as far as the journal has replies: disk, not network


def open_batch_teacher(spec: str, journal: Any, command: Command, telling: Telling) -> JournalledEngine:
    """An engine whose questions wait for a batch. Raises UsageError for a teacher that is no server."""
    from selfee.cli.data.teaching import is_server, paid_server
    from selfee.engines.paid.batch import BatchDesk
    from selfee.engines.paid.opening import open_paid

    if not is_server(spec):
        raise UsageError(f"--batch: {spec} is no server; expected an address with a Batch API; leave --batch away")
    if len(command.teachers) > 1:
        raise UsageError("--batch: several teachers; expected one; run once for each, with a weight of rows by --shard")
    server = paid_server(spec, command.pacing, telling.key_file)
    folder = command.journal.with_suffix(".batches")
    return open_paid(server, journal, desk=BatchDesk(server, journal, folder))


def run_batches(
    command: Command,
    job: Job,
    engines: list[JournalledEngine],
    workers: int,
    display: AugmentDisplay,
    stderr: Screen | None,
) -> Progress:
    """Round after round until no row waits."""
    from selfee.engines.paid.batch import BatchDesk

    desk = engines[0].desk
    assert isinstance(desk, BatchDesk), "open_batch_teacher has seen to it"

    def tell(text: str) -> None:
        if stderr is not None:
            stderr.write(for_terminal(f"{text}\n"))
            sys.stderr.flush()

    try:
        if count := desk.resume():
            tell(f"{count} batch{'es' if count > 1 else ''} of an earlier run are taken up")
            desk.collect(command.poll, tell)
        number = 0
        while True:
            progress = job.run(_WORKERS, None)
            display.finish(progress)
            if progress.stopped is not None or not desk.num_wanted:
                return progress
            number += 1
            wanted = desk.num_wanted
            count = desk.send()
            tell(f"round {number}: {wanted:,} requests in {count} batch{'es' if count > 1 else ''}")
            desk.collect(command.poll, tell)
    except StoppedError as error:
        job.progress.stopped = str(error)
        return job.progress
