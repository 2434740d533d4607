"""``selfee doctor``: what this machine has, what fits, what is missing and how to get it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.cli.doctoring.finding import Finding, Level
from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.shared_options import AsJson, Colored

if TYPE_CHECKING:
    from selfee.eval.fitting import FileFit, Fit
    from selfee.weights.quantization.recipes import FileType

EXAMPLES = """Examples:

\b
  selfee doctor
  selfee doctor model.gguf --context 4096
  selfee doctor --type q5_K_M --json
  selfee doctor --online

\b
Exit code 0: all that is needed works; 1: something does not. Nothing is sent anywhere without --online, and names,
passwords and keys are never shown.
"""

_MARKS = {Level.OK: ("ok", "green"), Level.NOTE: ("note", "yellow"), Level.BROKEN: ("broken", "red")}
_TOPIC, _MARK = 14, 8  # columns
_BESIDE = 60  # columns from which a finding stands beside its topic

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("doctor", epilog=EXAMPLES)
def doctor(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Model files that are to fit; else those on this disk."),
    ] = None,
    context: Annotated[int, typer.Option("-c", "--context", min=1, help="Tokens of context to plan for.")] = 2048,
    type_name: Annotated[str, typer.Option("--type", metavar="TYPE", help="The file type to plan for.")] = "q4_K_M",
    online: Annotated[bool, typer.Option("--online", help="Also ask the package index and the model hub.")] = False,
    as_json: AsJson = False,
    color: Colored = Color.AUTO,
) -> None:
    """Look at everything, say it, and end with 1 if something that is needed is broken."""
    stdout = screen_of(sys.stdout, color)
    findings = list(software())
    shapes: list[Fit] = []
    models: list[tuple[Path, FileFit | str]] = []
    if _is_well(findings):  # nothing else can be looked at without the packages that it is written with
        from selfee.cli.model_file import local_file
        from selfee.weights.quantization.recipes import file_type

        kind, asked = file_type(type_name), [local_file(name) for name in files or []]
        findings += examine(os.environ, color, online=online)
        have = next(finding.facts["usable"] for finding in findings if finding.topic == "memory")
        if have is not None:
            shapes, models = _shapes(kind, context, have), _models(asked or _models_here(), context, have)
        unusable = [path.name for path, fit in models if asked and isinstance(fit, str)]
        if unusable:
            findings.append(Finding("files", f"cannot be run: {', '.join(unusable)}", Level.BROKEN, "see below"))
    _show(findings, shapes, models, stdout, as_json)
    if not _is_well(findings):
        raise typer.Exit(1)


def _is_well(findings: list[Finding]) -> bool:
    return all(finding.level is not Level.BROKEN for finding in findings)


def _show(
    findings: list[Finding],
    shapes: list[Fit],
    models: list[tuple[Path, FileFit | str]],
    stdout: Screen,
    as_json: bool,
) -> None:
    if as_json:
        from selfee.cli.doctoring.fits import file_rows, shape_rows

        value: dict[str, Any] = {
            "ok": _is_well(findings),
            "findings": [finding.as_json() for finding in findings],
            "fits": shape_rows(shapes),
            "models": file_rows(models),
        }
        stdout.write_json(value, indent=2)
        return
    stdout.write("".join(_line(finding, stdout) for finding in findings))
    stdout.write(_fits_text(shapes, models, stdout))
    stdout.write("\n" + _verdict(findings, stdout))


def software() -> Iterator[Finding]:
    """What can be checked with Python alone."""
    from selfee.cli.doctoring import packages

    found = packages.requirements()
    yield packages.version()
    yield packages.packages(found)
    yield packages.extras(found)


def examine(environ: Mapping[str, str], color: Color, *, online: bool = False) -> Iterator[Finding]:
    """Every other check, one after the other."""
    from selfee.cli.chat import chats_folder
    from selfee.cli.doctoring import processor, room, sources, terminal
    from selfee.cli.settings import model_store, models_folder
    from selfee.weights.fetch.builtin import DEFAULT_MODEL

    models = models_folder(environ)
    yield processor.instructions(environ)
    yield processor.threads()
    yield room.memory()
    yield room.disk(models, environ, has_default=DEFAULT_MODEL in {name for name, _ in _stored(environ)})
    yield room.folders(models, chats_folder(environ), environ)
    addresses = sources.addresses(environ)
    yield addresses
    if online and addresses.level is not Level.BROKEN:
        yield from sources.reach(model_store(environ).config)
    yield sources.keys(environ)
    yield terminal.language(environ)
    yield terminal.terminal(environ, color)


def _stored(environ: Mapping[str, str]) -> list[tuple[str, Path]]:
    """Names and files of the models that are here, whole; none where the folder or pip's settings cannot be read."""
    from selfee.cli.settings import models_folder
    from selfee.errors import SelfeeError
    from selfee.weights.fetch.store import ModelStore, StoreConfig, StoredModel

    try:
        models = ModelStore(StoreConfig(models_folder(environ))).models()
    except (SelfeeError, OSError):
        return []
    return [(model.name, model.path) for model in models if isinstance(model, StoredModel)]


def _models_here() -> list[Path]:
    return [path for _, path in _stored(os.environ)]


def _shapes(kind: FileType, context: int, have: int) -> list[Fit]:
    from selfee.eval.fitting import SHAPES, fit_shape

    return [fit_shape(shape, kind, context, have) for shape in SHAPES]


def _models(paths: list[Path], context: int, have: int) -> list[tuple[Path, FileFit | str]]:
    """What fits of each file, or why it cannot be run."""
    from selfee.errors import SelfeeError
    from selfee.eval.fitting import fit_file

    found: list[tuple[Path, FileFit | str]] = []
    for path in paths:
        try:
            found.append((path, fit_file(path, context, have)))
        except SelfeeError as error:
            found.append((path, str(error)))
    return found


def _line(finding: Finding, screen: Screen) -> str:
    word, hue = _MARKS[finding.level]
    advice = f"→ {for_terminal(finding.advice)}" if finding.advice else ""
    if screen.width < _BESIDE:
        head = f"{screen.style(finding.topic, 'dim')}  {screen.style(word, hue)}\n"
        return head + _wrapped(for_terminal(finding.text), screen, 2) + (_wrapped(advice, screen, 2) if advice else "")
    head = screen.style(f"{finding.topic:<{_TOPIC}}", "dim") + screen.style(f"{word:<{_MARK}}", hue)
    said = _wrapped(for_terminal(finding.text), screen, _TOPIC + _MARK).lstrip(" ")
    return head + said + (_wrapped(advice, screen, _TOPIC + _MARK) if advice else "")


def _wrapped(text: str, screen: Screen, indent: int = 0) -> str:
    """Lines from a column on."""
    from selfee.cli.wrapping import WrappingText

    wrapper = WrappingText(screen.width, indent)
    return wrapper.feed(text + "\n") + wrapper.finish()


def _fits_text(shapes: list[Fit], models: list[tuple[Path, FileFit | str]], screen: Screen) -> str:
    from selfee.cli.doctoring.fits import file_advice, nearest, shape_advice, shape_table

    parts = []
    if models:
        told = (f"{path.name}: {fit if isinstance(fit, str) else file_advice(fit)}" for path, fit in models)
        parts.append("".join(_wrapped(for_terminal(line), screen) for line in told))
    if shapes:
        parts.append(shape_table(shapes, screen))
        if (first := nearest(shapes)) is not None:
            parts.append(_wrapped(shape_advice(first), screen))
    return "".join("\n" + part for part in parts)


def _verdict(findings: list[Finding], screen: Screen) -> str:
    broken = [finding.topic for finding in findings if finding.level is Level.BROKEN]
    notes = [finding.topic for finding in findings if finding.level is Level.NOTE]
    if broken:
        said, hue = f"broken: {', '.join(broken)}", "red"
    else:
        said, hue = "all is well" + (f"; notes on {', '.join(notes)}" if notes else ""), "green"
    return screen.style(_wrapped(said, screen).rstrip("\n"), hue) + "\n"
