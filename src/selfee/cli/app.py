"""All commands by name."""

from __future__ import annotations

from typing import Annotated

import typer

from selfee import __version__
from selfee.cli import ask, inspect
from selfee.cli.models import models_app

EXAMPLES = """Examples:

\b
  selfee ask "Why is the sky blue?" --revisions 1
  selfee models list
  selfee inspect smollm2-135m

Exit codes: 0 done, 1 it failed, 2 wrong words or a bad file, 130 stopped by Ctrl-C, 141 the reader went away.
Variables: SELFEE_MODELS is the folder for models; SELFEE_API_KEY the key for a server; HF_TOKEN and HF_ENDPOINT the
model hub's; SELFEE_DEBUG=1 shows where an unexpected error came from."""

app = typer.Typer(
    name="selfee",
    help="A language model that answers, criticises its own answer and rewrites it until it is content.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"selfee {__version__}")
        raise typer.Exit


@app.callback()
def selfee(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """A language model that answers, criticises its own answer and rewrites it until it is content."""


app.command("ask", epilog=ask.EXAMPLES)(ask.ask)
app.command("inspect", epilog=inspect.EXAMPLES)(inspect.inspect)
app.add_typer(models_app)
