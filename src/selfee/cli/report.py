"""``selfee report``: what a folder of judgments says, as figures here, and as one page and one Markdown file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.places import require_writable
from selfee.cli.shared_options import Colored, Quiet
from selfee.cli.table import Column, render_table

if TYPE_CHECKING:
    from selfee.eval.reporting.report import Report

EXAMPLES = """Examples:

\b
  selfee report run/
  selfee report run/ --out results/vicuna80
  selfee report run/ --baseline chatgpt --allow-gaps
  selfee report selfee/review
  selfee report run/ --people labels.jsonl --json

\b
DIR is the folder that selfee judge wrote, or a folder of review files of 2023 (SelFee, FastChat, QLoRA); their answers
and questions are found in answer/ and template/question.jsonl beside it. Exit code 1 means that a comparison was not
summed up, because judgments are missing or unreadable; everything else is written all the same.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_MARKERS = ('<meta name="generator" content="selfee report">', "<!-- selfee report -->")
"""What our own pages and Markdown files begin with: only these are written over."""
_HEAD = 2000  # bytes of a file that must hold its marker


@app.command("report", epilog=EXAMPLES)
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Judgments or review files; or one such file.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="NAME", help="Write NAME.html and NAME.md; default: report, here."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="What others are compared with; default: what most were.")
    ] = None,
    allow_gaps: Annotated[
        bool, typer.Option("--allow-gaps", help="Leave out questions with missing or unreadable judgments.")
    ] = False,
    answers: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Answers that lie elsewhere; a file or a folder.")
    ] = None,
    questions: Annotated[Path | None, typer.Option(metavar="FILE", help="Questions that lie elsewhere.")] = None,
    people: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Labels by people, to hold the judges against.")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, max=1_000_000, help="Draws of questions for intervals.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of these draws.")] = 0,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON; files only with --out.")] = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Read the folder, sum it up, write the files, print the figures."""
    from selfee.eval.reporting.folder import read_folder
    from selfee.eval.reporting.report import Settings, make_report
    from selfee.eval.scoring.estimates import Resampling

    stdout, stderr = screen_of(sys.stdout, color), screen_of(sys.stderr, color)
    names = () if out is None and as_json else _names(out or Path("report"))
    for path in names:
        require_writable(path)
        _require_ours(path)
    material = read_folder(folder, answers=answers or (), questions=questions, people=people or ())
    made = make_report(material, Settings(baseline, allow_gaps, Resampling(draws, seed), title))
    _write(made, names)
    if as_json:
        stdout.write_json(made.as_json())
    else:
        _show(made, stdout)
    if not quiet:
        _tell(made, names, stderr)
    if not made.is_whole:
        raise typer.Exit(1)


def _names(out: Path) -> tuple[Path, ...]:
    bare = out.with_suffix("") if out.suffix in (".html", ".md") else out
    return bare.with_name(bare.name + ".html"), bare.with_name(bare.name + ".md")


def _require_ours(path: Path) -> None:
    """A file that is there is written over only if an earlier report wrote it."""
    from selfee.errors import UsageError

    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); expected a file that can be replaced") from error
    if head and not any(marker.encode() in head for marker in _MARKERS):
        raise UsageError(f"{path}: is there and not a report; expected a free name; choose one with --out")


def _write(made: Report, names: tuple[Path, ...]) -> None:
    from selfee.errors import ResourceError
    from selfee.eval.reporting.markdown import render_markdown
    from selfee.eval.reporting.page import render_page

    for path, render in zip(names, (render_page, render_markdown), strict=False):
        try:
            path.write_text(render(made), encoding="utf-8")
        except OSError as error:
            raise ResourceError(
                f"{path}: cannot be written ({error.strerror}); expected a folder of yours with room; choose another "
                "name with --out"
            ) from error


_COLUMNS = (
    Column("MODEL"),
    Column("BASELINE"),
    Column("JUDGE"),
    Column("SCORE %", True),
    Column("95 %", True),
    Column("WIN/TIE/LOSS", True),
    Column("WIN %", True),
    Column("EQUAL LENGTH %", True),
    Column("P", True),
    Column("ORDERS AGREE", True),
)


def _show(made: Report, stdout: Screen) -> None:
    """The main figures as a table, columns that say nothing left out."""
    from selfee.eval.reporting.words import interval, number, p_value

    rows = []
    judges = {pair.said_by for pair in made.figures.pairs}
    for pair in made.figures.pairs:
        if pair.scores is None:
            continue
        scores, equal = pair.scores, pair.length.win_rate.value if pair.length else None
        scored = scores.relative.value is not None
        rows.append(
            [
                pair.model,
                pair.baseline,
                pair.said_by if len(judges) > 1 else "",
                number(scores.relative.value, 2),
                interval(scores.relative) if scored else interval(scores.win_rate.scaled(100.0)),
                f"{scores.wins}/{scores.ties}/{scores.losses}",
                number((scores.win_rate.value or 0.0) * 100.0),
                "" if equal is None else number(equal * 100.0),
                p_value(pair.holm_p),
                f"{pair.agreement.hits} of {pair.agreement.count}" if pair.agreement.count else "",
            ]
        )
    used = [place for place in range(len(_COLUMNS)) if any(row[place] for row in rows)]
    if rows:
        cells = [[row[place] or "–" for place in used] for row in rows]
        stdout.write(render_table([_COLUMNS[place] for place in used], cells, stdout))


def _tell(made: Report, names: tuple[Path, ...], stderr: Screen) -> None:
    """What a reader of the figures must know, and where the files are."""
    from selfee.eval.reporting.contents import contents_of

    for section in contents_of(made).sections:
        for warning in section.warnings:
            stderr.write(stderr.style("note: ", "yellow") + for_terminal(warning) + "\n")
    if made.suspects:
        files = f"{len(made.suspects)} stored scores are repaired by hand, differ from their texts or cannot be read"
        stderr.write(stderr.style("note: ", "yellow") + files + "; see the page\n")
    if names:
        stderr.write(stderr.style(for_terminal("written: " + ", ".join(map(str, names))) + "\n", "dim"))
