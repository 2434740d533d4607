"""``selfee models``: what can be used by name, what is on this disk, and how to get or remove it."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.shared_options import AsJson, Colored, Quiet
from selfee.cli.table import Column, render_table
from selfee.weights.fetch.builtin import BUILTIN_MODELS, DEFAULT_MODEL

app = typer.Typer(
    name="models",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    epilog="Examples:\n\n\b\n  selfee models list\n  selfee models pull smollm2-135m",
)
NAME_HELP = "A built-in name, hf:org/repo/file.gguf, or an address ending in .gguf."


@app.command("list", epilog="Examples:\n\n\b\n  selfee models list\n  selfee models list --json")
def list_models(
    as_json: AsJson = False,
    color: Colored = Color.AUTO,
) -> None:
    """List the built-in models and those on this disk, with size, licence and path."""
    from selfee.cli.settings import model_store

    stdout = screen_of(sys.stdout, color)
    rows = _rows(model_store(os.environ).models())
    if as_json:
        stdout.write_json(rows, indent=2)
        return
    stdout.write(_table(rows, stdout))


@app.command(epilog="Examples:\n\n\b\n  selfee models pull smollm2-135m\n  selfee models pull hf:org/repo/model.gguf")
def pull(
    name: Annotated[str, typer.Argument(help=NAME_HELP)] = DEFAULT_MODEL,
    again: Annotated[bool, typer.Option("--again", help="Fetch it even if it is here and undamaged.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Fetch a model, or check the one here; goes on where an earlier attempt was interrupted."""
    from selfee.cli.progress import DownloadDisplay, QuietDisplay
    from selfee.cli.settings import model_store
    from selfee.weights.fetch.store import require_remote

    display = QuietDisplay() if quiet else DownloadDisplay(screen_of(sys.stderr, color))
    model = model_store(os.environ).pull(require_remote(name), display, again=again)
    stdout = screen_of(sys.stdout, color)
    if as_json:
        stdout.write_json(_row(model))
    else:
        stdout.write(f"{for_terminal(str(model.path))}\n")
        if not quiet:
            sure = "verified" if model.is_verified else "computed; nobody announced one to compare with"
            screen_of(sys.stderr, color).write(f"{for_terminal(model.name)} is here; sha256 {model.sha256} ({sure})\n")


@app.command(epilog="Examples:\n\n\b\n  selfee models remove smollm2-135m")
def remove(
    name: Annotated[str, typer.Argument(help="The name that `selfee models list` shows.")],
    quiet: Quiet = False,
) -> None:
    """Delete a downloaded model, or what has arrived of one."""
    from selfee.cli.settings import model_store
    from selfee.weights.disk import human_size

    freed = model_store(os.environ).remove(name)
    if not quiet:
        screen_of(sys.stderr, Color.AUTO).write(f"{for_terminal(name)}: removed, {human_size(freed)} are free again\n")


@app.command(
    epilog='Examples:\n\n\b\n  selfee models path smollm2-135m\n  selfee inspect "$(selfee models path smollm2-135m)"'
)
def path(
    name: Annotated[str | None, typer.Argument(help="A downloaded model; without it, the folder of all.")] = None,
) -> None:
    """Print where a downloaded model lies, or the folder where models are kept."""
    from selfee.cli.settings import model_store, models_folder
    from selfee.errors import UsageError
    from selfee.weights.fetch.store import require_remote

    stdout = screen_of(sys.stdout, Color.NEVER)
    if name is None:
        stdout.write(f"{models_folder(os.environ)}\n")
        return
    found = model_store(os.environ).find(require_remote(name))
    if found is None:
        raise UsageError(f"{name}: not on this disk; fetch it with: selfee models pull {name}")
    stdout.write(f"{found.path}\n")


def _rows(found: list[Any]) -> list[dict[str, Any]]:
    """Built-in models first, then everything else on this disk."""
    by_name = {model.name: _row(model) for model in found}
    rows = []
    for name, builtin in BUILTIN_MODELS.items():
        absent = {
            "name": name,
            "status": "not downloaded",
            "size": builtin.size,
            "path": None,
            "sha256": builtin.sha256,
        }
        row = absent | by_name.pop(name, {})
        rows.append(row | {"title": builtin.title, "licence": builtin.licence, "is_default": name == DEFAULT_MODEL})
    return rows + [{"title": None, "licence": None, "is_default": False} | row for row in by_name.values()]


def _row(model: Any) -> dict[str, Any]:
    from selfee.weights.fetch.store import StoredModel

    if isinstance(model, StoredModel):
        row = {"name": model.name, "status": "downloaded", "size": model.size, "path": str(model.path)}
        return row | {"sha256": model.sha256, "is_verified": model.is_verified, "licence": model.licence}
    return {"name": model.name, "status": "interrupted", "done": model.done}


def _table(rows: list[dict[str, Any]], screen: Screen) -> str:
    from selfee.weights.disk import human_size

    lines = []
    for row in rows:
        size = human_size(row["size"]) if "size" in row else f"{human_size(row['done'])} so far"
        name = row["name"] + (" (default)" if row["is_default"] else "")
        where = row.get("path") or row["status"]
        if row["status"] == "interrupted":
            where = "interrupted; pull it again to go on"
        lines.append((name, size, row["licence"] or "–", where))
    columns = (Column("model"), Column("size", is_number=True), Column("licence"), Column("where"))
    return render_table(columns, lines, screen)
