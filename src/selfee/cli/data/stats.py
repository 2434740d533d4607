"""``selfee data stats``: what a file of chains is like."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.shared_options import Colored, Quiet
from selfee.cli.table import Column, render_table

if TYPE_CHECKING:
    from selfee.data.statistics import SourceStatistics

app = typer.Typer(rich_markup_mode=None)

_EXAMPLES = (
    "Examples:\n\n\b\n"
    "  selfee data stats training/train.jsonl -o stats.html\n"
    "  selfee data stats conala:feedback_gpt_3.5_turbo_conala.jsonl --all\n"
    "  selfee data stats chains/ --json > stats.json"
)
_FILES = "Files or folders of chains, ours or SelFee's; SOURCE:PATH where the records do not say what they are of."
_SHOWN = 5  # disagreements of each kind on the screen


@app.command(epilog=_EXAMPLES)
def stats(
    inputs: Annotated[list[str], typer.Argument(metavar="FILE...", help=_FILES)],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write a page with pictures (HTML) here.")] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="List every disagreement, not the first of each kind.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, disagreements included.")] = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Show lengths of chains, verdicts, scores and sizes by source, and where verdicts are missing or contradictory."""
    from selfee.cli.data.reading import reading_display, require_apart, size_of
    from selfee.data.merge import chain_files
    from selfee.data.page import render_page
    from selfee.data.statistics import disagreements_of, read_statistics
    from selfee.errors import BadFileError

    given = chain_files(inputs)
    if out is not None:
        require_apart([out], [one.path for one in given])
    with reading_display("reading", size_of([one.path for one in given]), quiet, color) as on_bytes:
        found = read_statistics(given, on_bytes)
    if not any(one.records for one in found.values()):
        reasons = ", ".join(reason for one in found.values() for reason in one.unreadable)
        raise BadFileError(f"{', '.join(inputs)}: holds no chain ({reasons}); expected records with 'outputs'")
    if out is not None:
        out.write_text(render_page(found, [path.path.name for path in given]), encoding="utf-8")
    stdout = screen_of(sys.stdout, color)
    if as_json:
        rows = list(disagreements_of(found))
        stdout.write_json(
            {"sources": {name: one.to_json() for name, one in found.items()}, "disagreements": rows}, indent=2
        )
        return
    stdout.write("\n".join(_tables(found, stdout, show_all)))
    if out is not None and not quiet:
        screen_of(sys.stderr, color).write(for_terminal(f"pictures: {out}\n"))


def _tables(found: Mapping[str, SourceStatistics], screen: Screen, show_all: bool) -> Iterator[str]:
    named = {name or "(not told)": one for name, one in found.items()}
    yield _lengths(named, screen)
    yield _verdicts(named, screen)
    yield _numbers(
        screen,
        ("scores", "scored", "mean", "content", "content under 9", "revise from 9"),
        [
            (name, one.scores.total(), _mean(one), one.scored_content, one.low_but_content, one.high_but_revise)
            for name, one in named.items()
        ],
    )
    parts = ("question", "answer", "feedback")
    yield _numbers(
        screen,
        ("words (median, 90 % below)", *parts),
        [(name, *(_words(one, part) for part in parts)) for name, one in named.items()],
    )
    yield from _disagreements(found, screen, show_all)


def _lengths(named: Mapping[str, SourceStatistics], screen: Screen) -> str:
    longest = max((length for one in named.values() for length in one.lengths), default=1)
    lengths = range(1, longest + 1)
    return _numbers(
        screen,
        ("source", "chains", "questions", "unreadable", "capped", *(f"{n} answer{'s' * (n > 1)}" for n in lengths)),
        [
            (name, one.records, len(one.ids), one.unreadable.total(), one.capped, *(one.lengths[n] for n in lengths))
            for name, one in named.items()
        ],
    )


def _verdicts(named: Mapping[str, SourceStatistics], screen: Screen) -> str:
    from selfee.data.statistics import VERDICTS

    return _numbers(
        screen,
        ("feedback", "all", *VERDICTS, *(f"last: {verdict}" for verdict in VERDICTS), "reference told"),
        [
            (
                name,
                one.verdicts.total(),
                *(one.verdicts[verdict] for verdict in VERDICTS),
                *(one.endings[verdict] for verdict in VERDICTS),
                one.leaks,
            )
            for name, one in named.items()
        ],
    )


def _disagreements(found: Mapping[str, SourceStatistics], screen: Screen, show_all: bool) -> Iterator[str]:
    from selfee.data.statistics import KINDS, disagreements_of

    yield _numbers(
        screen,
        ("SelFee's stop rule and the verdict", *KINDS),
        [(name or "(not told)", *one.to_json()["disagreements"].values()) for name, one in found.items()],
    )
    rows = list(disagreements_of(found))
    counted: Counter[str] = Counter()
    shown = []
    for row in rows:
        counted[row["kind"]] += 1
        if show_all or counted[row["kind"]] <= _SHOWN:
            line = row["where"].rpartition(":")[2]
            shown.append((row["id"], row["source"], line, str(row["step"]), row["kind"], row["ending"][-60:]))
    if shown:
        heads = [
            Column(name, name in ("line", "feedback")) for name in ("id", "source", "line", "feedback", "kind", "ends")
        ]
        yield render_table(heads, shown, screen)
    if len(shown) < len(rows):
        yield screen.style(f"{len(rows) - len(shown):,} more disagreements: --all lists them, --json too", "dim") + "\n"


def _mean(one: SourceStatistics) -> str:
    if not one.scores:
        return "–"
    return f"{sum(score * count for score, count in one.scores.items()) / one.scores.total():.2f}"


def _words(one: SourceStatistics, part: str) -> str:
    from selfee.data.statistics import percentiles

    values = percentiles(one.sizes[part])
    return f"{values['p50']}, {values['p90']}" if values else "–"


def _numbers(screen: Screen, heads: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    columns = [Column(heads[0]), *(Column(head, is_number=True) for head in heads[1:])]
    return render_table(columns, [[f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in rows], screen)
