"""``selfee data augment``: questions in, chains of answer, feedback and revision out, through any teacher."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.cli.data.teaching import TEACHER_HELP, Pacing
from selfee.cli.options import FlagGroup, with_flags
from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.shared_options import ApiKeysFile, Colored, Quiet
from selfee.data.augment.settings import AugmentSettings
from selfee.errors import UsageError

if TYPE_CHECKING:
    from selfee.data.augment.job import Job, Progress, Shard
    from selfee.data.sample import Sample
    from selfee.engines.paid.journalled import JournalledEngine

app = typer.Typer(rich_markup_mode=None)

_EXAMPLES = """Examples:

\b
  selfee data augment samples.jsonl -o chains.jsonl -m smollm2-135m --limit 20
  selfee data augment samples.jsonl -o chains.jsonl -m https://host/v1#model --dry-run
  selfee data augment samples.jsonl -o chains.jsonl -m https://host/v1#model --rpm 500 --tpm 200000 --max-cost 25
  selfee data augment samples.jsonl -o part1.jsonl -m http://cluster:8000/v1 --shard 1/2
  selfee data retry chains.jsonl

Killed or stopped, run the same command again: it goes on inside the chain and asks nothing twice. Keys: a file with one
a line, SELFEE_API_KEYS with commas, or SELFEE_API_KEY."""
AUGMENT_FLAGS = FlagGroup(AugmentSettings, has_variables=False)
PACING_FLAGS = FlagGroup(Pacing, has_variables=False)
_NOTE_SPACE, _NOTE_NAME = "run", "command"


@dataclass(frozen=True)
class Command:
    """What a run was told, so that it can be told again."""

    samples: Path
    out: Path
    teachers: tuple[str, ...]
    settings: AugmentSettings
    pacing: Pacing
    journal: Path
    shard: str = "1/1"
    limit: int | None = None
    parallel: int = 1
    batch: bool = False
    poll: float = 30.0

    def to_json(self) -> dict[str, Any]:
        """As plain values; keys are not among them."""
        paths = {name: str(getattr(self, name).resolve()) for name in ("samples", "out", "journal")}
        return asdict(self) | paths | {"teachers": list(self.teachers), "settings": self.settings.to_json()}


def command_from_json(row: dict[str, Any]) -> Command:
    """The command that ``to_json`` described."""
    from selfee.data.augment.settings import settings_from_json

    paths = {name: Path(row[name]) for name in ("samples", "out", "journal")}
    settings, pacing = settings_from_json(row["settings"]), Pacing(**row["pacing"])
    return Command(**row | paths | {"teachers": tuple(row["teachers"]), "settings": settings, "pacing": pacing})


@dataclass(frozen=True)
class Telling:
    """Where and how to tell what happens."""

    key_file: Path | None = None
    as_json: bool = False
    quiet: bool = False
    color: Color = Color.AUTO


@app.command(epilog=_EXAMPLES)
@with_flags(AUGMENT_FLAGS, PACING_FLAGS)
def augment(
    settings: AugmentSettings,
    pacing: Pacing,
    samples: Annotated[Path, typer.Argument(help="The samples, as `selfee data collect` writes them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file of chains to write, when all rows are settled.")],
    teacher: Annotated[list[str], typer.Option("-m", "--model", help=TEACHER_HELP)],
    journal: Annotated[
        Path | None, typer.Option(help="The file that keeps every reply; without it, OUT with the ending .journal.")
    ] = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Only part I of N of the rows: for several machines.")] = (
        "1/1"
    ),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many samples.")] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Chains at a time through a model on this machine.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask nothing; say what it would take.")] = False,
    batch: Annotated[bool, typer.Option("--batch", help="Ask through the server's Batch API, a file a round.")] = False,
    poll: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks at a batch.")] = 30.0,
    api_key_file: ApiKeysFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Make chains of answer, feedback and revision for every sample, through any teacher.

    Every reply is in the journal before it is used, so nothing paid for is lost and nothing is paid for twice.
    """
    from selfee.cli.data.reading import require_apart

    if not samples.is_file():  # before a journal is made for nothing
        raise UsageError(f"{samples}: no such file; expected samples; make them with `selfee data collect`")
    kept = journal or out.with_suffix(".journal")
    require_apart([out, kept], [samples])
    command = Command(samples, out, tuple(teacher), settings, pacing, kept, shard, limit, parallel, batch, poll)
    telling = Telling(api_key_file, as_json, quiet, color)
    if dry_run:
        from selfee.cli.data.estimating import show_estimate

        show_estimate(command, telling)
        return
    execute(command, telling)


def execute(command: Command, telling: Telling, forget: Sequence[str] | None = None) -> None:
    """Do it; ``forget`` names kinds of failures to try again first (empty = all, None = none)."""
    from selfee.journal import Journal

    started = time.monotonic()
    stderr = None if telling.quiet else screen_of(sys.stderr, telling.color)
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(command.journal))
        journal.note(_NOTE_SPACE, _NOTE_NAME, command.to_json())
        engines, job, workers = open_job(command, telling, journal, stack)
        if forget is not None:
            count = job.forget_failures(forget)
            if stderr is not None:
                stderr.write(f"{count:,} failed rows are tried again\n")
        progress = _run(command, job, engines, workers, stderr)
        outcome = _write(command, job, progress, engines, time.monotonic() - started)
    stdout = screen_of(sys.stdout, telling.color)
    if telling.as_json:
        stdout.write_json(outcome, indent=2)
    elif stderr is not None:
        _tell(stderr, command, outcome)
    if progress.stopped is not None:
        raise typer.Exit(1)


def open_job(
    command: Command, telling: Telling, journal: Any, stack: ExitStack
) -> tuple[list[JournalledEngine], Job, int]:
    """The engines, the job, and how many threads it takes."""
    from selfee.cli.data.teaching import open_teacher, workers_for
    from selfee.data.augment.job import Job
    from selfee.data.augment.teachers import Teacher, Teachers, split_weight

    specs = [split_weight(text) for text in command.teachers]
    workers = workers_for([spec for spec, _ in specs], command.pacing, command.parallel)
    engines: list[JournalledEngine] = []
    for spec, _ in specs:
        if command.batch:
            from selfee.cli.data.batching import open_batch_teacher

            engine = open_batch_teacher(spec, journal, command, telling)
        else:
            engine = open_teacher(
                spec, journal, command.pacing, key_file=telling.key_file, workers=workers, parallel=command.parallel
            )
        stack.callback(engine.close)
        engines.append(engine)
    teachers = Teachers([Teacher(engine, weight) for engine, (_, weight) in zip(engines, specs)])
    job = Job(sample_source(command), teachers, command.settings, journal, shard=parse_shard(command.shard))
    return engines, job, workers


def sample_source(command: Command) -> Callable[[], Iterator[Sample]]:
    """Reads the samples anew each time it is called."""
    from itertools import islice

    from selfee.data.sample import read_samples

    return lambda: islice(read_samples(command.samples), command.limit)


def parse_shard(text: str) -> Shard:
    """``"2/4"``. Raises UsageError for anything else."""
    from selfee.data.augment.job import Shard

    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise UsageError(f"--shard: {text!r}; expected I/N, for example 2/4")
    return Shard(int(index), int(count))


def _run(command: Command, job: Job, engines: list[JournalledEngine], workers: int, stderr: Screen | None) -> Progress:
    from selfee.cli.data.augment_display import AugmentDisplay

    display = AugmentDisplay(stderr, lambda: [engine.read() for engine in engines], max_cost=command.pacing.max_cost)
    with _stopping(job, stderr):
        if command.batch:
            from selfee.cli.data.batching import run_batches

            progress = run_batches(command, job, engines, workers, display, stderr)
        else:
            progress = job.run(workers, display)
    display.finish(progress)
    return progress


@contextmanager
def _stopping(job: Job, stderr: Screen | None) -> Iterator[None]:
    """Within the block, Ctrl-C stops asking and waits for what is under way; a second one does not wait."""
    pressed: list[int] = []

    def stop(number: int, frame: object) -> None:
        pressed.append(number)
        if len(pressed) > 1:
            raise KeyboardInterrupt
        if stderr is not None:
            stderr.write("stopping: waiting for the calls under way; press Ctrl-C again to leave them to the courier\n")
        # In a thread of its own: this one may hold a lock that stopping needs.
        threading.Thread(target=job.stop, args=("stopped by a signal",), daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def beside(out: Path, kind: str) -> Path:
    """``chains.jsonl`` -> ``chains.failed.jsonl``."""
    return out.with_suffix(f".{kind}.jsonl")


def _write(
    command: Command, job: Job, progress: Progress, engines: list[JournalledEngine], seconds: float
) -> dict[str, Any]:
    """Write chains, failures and times whole; what came of it all, as plain values."""
    from selfee.jsonl import write_jsonl

    counts: dict[str, int] = {"records": 0, "answers": 0, "accepted": 0, "leaks": 0}

    def counted() -> Iterator[dict[str, Any]]:
        for record in job.records():
            counts["records"] += 1
            counts["answers"] += record["iteration"]
            counts["accepted"] += record["end"] == "accepted"
            counts["leaks"] += any(flag.startswith("leak:") for flag in record["flags"])
            yield record

    write_jsonl(command.out, counted())
    write_jsonl(beside(command.out, "calls"), job.times())
    failed = beside(command.out, "failed")
    if progress.failed:
        write_jsonl(failed, job.failures())
    else:
        failed.unlink(missing_ok=True)
    return {
        "out": str(command.out),
        "journal": str(command.journal),
        "rows": progress.total,
        "done": progress.done,
        "failed": dict(progress.failures.most_common()),
        "left": progress.left,
        "stopped": progress.stopped,
        "seconds": round(seconds, 2),
        "chains": counts,
        "teachers": [{"model": engine.model} | engine.read().to_json() for engine in engines],
    }


def _tell(screen: Screen, command: Command, outcome: dict[str, Any]) -> None:
    counts = outcome["chains"]
    mean = f", {counts['answers'] / counts['records']:.2f} answers each" if counts["records"] else ""
    screen.write(
        for_terminal(f"{counts['records']:,} chains in {command.out}{mean}; {counts['accepted']:,} accepted\n")
    )
    if outcome["failed"]:
        told = ", ".join(f"{kind} {count:,}" for kind, count in outcome["failed"].items())
        screen.write(for_terminal(f"failed rows: {told}; see {beside(command.out, 'failed')}\n"))
        screen.write(f"try them again with: selfee data retry {command.out}\n")
    orphaned = sum(teacher["orphaned"] for teacher in outcome["teachers"])
    if orphaned:
        screen.write(
            f"{orphaned:,} calls were asked again: a killed process had asked them, and whether they were paid for is "
            "unknown\n"
        )
    if outcome["stopped"]:
        screen.write(screen.style(f"{outcome['stopped']}; {outcome['left']:,} rows are left\n", "yellow"))
        screen.write("everything is kept: run the same command again to go on\n")
