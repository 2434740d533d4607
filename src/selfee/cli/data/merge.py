"""``selfee data merge``: chains of several files become one training set."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfee.cli.options import FlagGroup, with_flags
from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.shared_options import Colored, Quiet
from selfee.cli.table import Column, render_table
from selfee.data.merge import MergeSettings

if TYPE_CHECKING:
    from selfee.data.merge import MergeReport

app = typer.Typer(rich_markup_mode=None)

_EXAMPLES = (
    "Examples:\n\n\b\n"
    "  selfee data merge chains.jsonl -o training/ --against vicuna_questions.jsonl --against mbpp@test:mbpp.jsonl\n"
    "  selfee data merge conala:feedback_gpt_3.5_turbo_conala.jsonl mbpp:feedback_mbpp.jsonl -o training/\n"
    "  selfee data merge chains/ -o training/ --validation 0.02 --json"
)
_FILES = "Files or folders of chains, ours or SelFee's; SOURCE:PATH where the records do not say what they are of."
_AGAINST = (
    "Evaluation questions that must not be in the training set: a file of questions (Vicuna's, MT-bench's, yours), or "
    "SOURCE@SPLIT:PATH as in `selfee data collect`. May be given several times."
)


@app.command(epilog=_EXAMPLES)
@with_flags(FlagGroup(MergeSettings, has_variables=False))
def merge(
    settings: MergeSettings,
    inputs: Annotated[list[str], typer.Argument(metavar="FILE...", help=_FILES)],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to make.")],
    against: Annotated[list[str] | None, typer.Option(metavar="QUESTIONS", help=_AGAINST)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is a training set.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Merge chains into one training set: checked, without repetitions and evaluation questions, split, with hashes.

    The folder holds train and validation, each as JSON and as JSON lines, the rejected records with their reasons, and
    a manifest. The same files give the same bytes.
    """
    from selfee.cli.data.reading import reading_display, require_apart, size_of
    from selfee.data.merge import TRAINING_SET, chain_files
    from selfee.data.merge import merge as merge_files
    from selfee.weights.folders import replacing_folder

    given = chain_files(inputs)
    require_apart([out], [one.path for one in given])
    started = time.monotonic()
    total = size_of([one.path for one in given])
    with (
        replacing_folder(out, force=force, kind=TRAINING_SET) as part,
        reading_display("merging", total, quiet, color) as on_bytes,
    ):
        report = merge_files(given, part, against or (), settings, on_bytes)
    stdout = screen_of(sys.stdout, color)
    if as_json:
        stdout.write_json(report.to_json() | {"folder": str(out)}, indent=2)
        return
    stdout.write(_tables(report, stdout))
    if not quiet:
        _tell(screen_of(sys.stderr, color), report, out, time.monotonic() - started)


def _tables(report: MergeReport, screen: Screen) -> str:
    heads = [
        Column("source"),
        *(Column(name, is_number=True) for name in ("records", "train", "validation", "rejected")),
    ]
    counts = sorted(report.sources.items())
    lines = [
        (
            name,
            *(f"{n:,}" for n in (one.read, one.splits["train"], one.splits["validation"], one.rejected.total())),
        )
        for name, one in counts
    ]
    text = render_table(heads, lines, screen)
    reasons = [(name, reason, f"{count:,}") for name, one in counts for reason, count in one.rejected.most_common()]
    if reasons:
        columns = (Column("source"), Column("rejected because"), Column("records", is_number=True))
        text += "\n" + render_table(columns, reasons, screen)
    if report.evaluations:
        counted = (Column(name, is_number=True) for name in ("questions", "found exactly", "nearly"))
        found = [
            (name, *(f"{count[kind]:,}" for kind in ("questions", "exact", "near")))
            for name, count in report.evaluations.items()
        ]
        text += "\n" + render_table([Column("evaluation questions"), *counted], found, screen)
    return text


def _tell(screen: Screen, report: MergeReport, out: Path, seconds: float) -> None:
    kept = sum(one.kept for one in report.sources.values())
    read = sum(one.read for one in report.sources.values())
    screen.write(for_terminal(f"{kept:,} of {read:,} records are in {out}; {seconds:.1f} s\n"))
    if not report.evaluations:
        advice = "not checked for evaluation questions; name those you will judge by: --against QUESTIONS"
        screen.write(screen.style(advice, "yellow") + "\n")
