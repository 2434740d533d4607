"""``selfee completion``: what a shell needs to complete commands, flags and models with the Tab key."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from selfee.cli.output import Color, screen_of
from selfee.errors import UsageError

EXAMPLES = """Examples:

\b
  selfee completion bash --install
  selfee completion zsh > ~/.zfunc/_selfee
  source <(selfee completion bash)"""


class ShellName(enum.Enum):
    """Shells that can be taught."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("completion", epilog=EXAMPLES)
def completion(
    shell: Annotated[
        ShellName | None, typer.Argument(help="bash, zsh or fish.  [default: the one in SHELL]", metavar="SHELL")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Write it where that shell looks for it, instead of showing it.")
    ] = False,
) -> None:
    """Write the script, to standard output or where it belongs."""
    from selfee.cli.completing import scripts

    chosen = shell or _own_shell(os.environ)
    stdout = screen_of(sys.stdout, Color.NEVER)
    if not install:
        stdout.write(scripts.SCRIPTS[chosen.value].text)
        return
    path, then = scripts.install(chosen.value, Path.home())
    stdout.write(f"written: {path}\n{then}\n")


def _own_shell(environ: Mapping[str, str]) -> ShellName:
    name = Path(environ.get("SHELL", "")).name
    try:
        return ShellName(name)
    except ValueError as error:
        found = f"SHELL names {name!r}" if name else "SHELL is not set"
        raise UsageError(f"completion: {found}; expected bash, zsh or fish; name it: selfee completion bash") from error


def show_candidates(words: list[str]) -> None:
    """Answer a shell: what could stand at the cursor. Says nothing where that cannot be found out."""
    import typer.main

    from selfee.cli.app import app as whole
    from selfee.cli.completing.candidates import complete

    sys.stdout.write(complete(typer.main.get_command(whole), words, _model_names).lines())


def _model_names() -> dict[str, str]:
    from selfee.cli.settings import models_folder
    from selfee.weights.fetch.builtin import BUILTIN_MODELS
    from selfee.weights.fetch.store import ModelStore, StoreConfig, StoredModel

    names = {name: model.title for name, model in BUILTIN_MODELS.items()}
    stored = ModelStore(StoreConfig(models_folder(os.environ))).models()
    return names | {model.name: "on this disk" for model in stored if isinstance(model, StoredModel)}
