"""``selfee data collect``: questions of published data sets, checked, without repetitions, in one file."""

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
from selfee.data.collect import CollectSettings
from selfee.data.sources import SOURCES, SourceSettings

if TYPE_CHECKING:
    from selfee.data.collect import SourceCount

app = typer.Typer(rich_markup_mode=None)

_SOURCES = "Sources:\n\n\b\n" + "\n".join(f"  {source.name:13} {source.about}" for source in SOURCES.values())
_EXAMPLES = (
    "Examples:\n\n\b\n"
    "  selfee data collect gsm8k@train:train.jsonl mbpp:mbpp.jsonl -o samples.jsonl\n"
    "  selfee data collect sharegpt:sg_90k_part1.json sharegpt:sg_90k_part2.json -o sharegpt.jsonl\n"
    "  selfee data collect math@train:MATH/train gsm8k:hf:openai/gsm8k@main#train -o math.jsonl --json"
)
_INPUTS = "SOURCE:PATH or SOURCE@SPLIT:PATH; PATH is a file, a folder, or hf:NAME[@CONFIGURATION]#SPLIT."


@app.command(epilog=f"{_SOURCES}\n\n{_EXAMPLES}")
@with_flags(
    FlagGroup(SourceSettings, has_variables=False), FlagGroup(CollectSettings, omit=("reading",), has_variables=False)
)
def collect(
    reading: SourceSettings,
    settings: CollectSettings,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help=_INPUTS)],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file of samples to write.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Collect the questions of published data sets: checked, without repetitions, each with id, source and reference.

    Beside OUT it writes the rejected rows, each with its reason, and the counts.
    """
    from dataclasses import replace

    from selfee.cli.data.reading import reading_display, require_apart, size_of
    from selfee.data.collect import parse_input, rejects_path, report_path, require_inputs, write_collection

    given = [parse_input(text) for text in inputs]
    require_inputs(given)
    files = [Path(one.path) for one in given if not one.is_hub]
    require_apart([out, rejects_path(out), report_path(out)], files)
    started = time.monotonic()
    with reading_display("reading", size_of(files), quiet, color) as on_bytes:
        counts = write_collection(given, out, replace(settings, reading=reading), on_bytes)
    stdout = screen_of(sys.stdout, color)
    if as_json:
        stdout.write_json({name: count.to_json() for name, count in counts.items()} | {"samples": str(out)}, indent=2)
        return
    stdout.write(_tables(counts, stdout))
    if not quiet:
        _tell(screen_of(sys.stderr, color), counts, out, rejects_path(out), time.monotonic() - started)


def _tables(counts: dict[str, SourceCount], screen: Screen) -> str:
    columns = [Column("source"), *(Column(name, is_number=True) for name in ("rows", "kept", "rejected", "reference"))]
    lines = [
        (name, f"{one.read:,}", f"{one.kept:,}", f"{one.read - one.kept:,}", f"{one.with_reference:,}")
        for name, one in counts.items()
    ]
    if len(lines) > 1:
        all_of = list(counts.values())
        total = [sum(one.read for one in all_of), sum(one.kept for one in all_of)]
        referenced = sum(one.with_reference for one in all_of)
        lines.append(("total", f"{total[0]:,}", f"{total[1]:,}", f"{total[0] - total[1]:,}", f"{referenced:,}"))
    text = render_table(columns, lines, screen)
    reasons = [
        (name, reason, f"{count:,}") for name, one in counts.items() for reason, count in one.rejected.most_common()
    ]
    if reasons:
        heads = (Column("source"), Column("rejected because"), Column("rows", is_number=True))
        text += "\n" + render_table(heads, reasons, screen)
    return text


def _tell(screen: Screen, counts: dict[str, SourceCount], out: Path, rejects: Path, seconds: float) -> None:
    kept = sum(one.kept for one in counts.values())
    rows = sum(one.read for one in counts.values())
    screen.write(
        for_terminal(f"{kept:,} samples in {out}, {rows - kept:,} rejected rows in {rejects}; {seconds:.1f} s\n")
    )
    untold = [name for name, one in counts.items() if one.splits[""] and SOURCES[name].has_splits]
    if untold:
        advice = f"split not told: {', '.join(untold)}; say it where you know it, for example {untold[0]}@train:PATH"
        screen.write(screen.style(advice, "dim") + "\n")
