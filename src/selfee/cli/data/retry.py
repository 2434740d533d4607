"""``selfee data retry``: try the failed rows of an augmentation again, told as it was told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfee.cli.output import Color
from selfee.cli.shared_options import ApiKeysFile, Colored, Quiet

app = typer.Typer(rich_markup_mode=None)

_EXAMPLES = """Examples:

\b
  selfee data retry chains.jsonl
  selfee data retry chains.jsonl --kind timeout --kind server
  selfee data retry chains.jsonl --max-cost 40"""


@app.command(epilog=_EXAMPLES)
def retry(
    out: Annotated[Path, typer.Argument(help="The file of chains that `selfee data augment` wrote, or was to write.")],
    kind: Annotated[list[str] | None, typer.Option(help="Only rows that failed thus; several may be given.")] = None,
    journal: Annotated[Path | None, typer.Option(help="The journal; without it, OUT with the ending .journal.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="A new limit in dollars, earlier runs included.")] = None,
    api_key_file: ApiKeysFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Try failed rows again, with the flags of the run they failed in.

    Rows whose teacher could not be asked are asked the same again; rows whose words were no good (cut off, refusing,
    telling the answer, without a verdict) get another seed.
    """
    from dataclasses import replace

    from selfee.cli.data.augment import Telling, command_from_json, execute
    from selfee.errors import UsageError
    from selfee.journal import Journal

    path = journal or out.with_suffix(".journal")
    if not path.is_file():
        raise UsageError(f"{path}: no such journal; expected the one of `selfee data augment`; give it with --journal")
    with Journal(path) as opened:
        row = opened.read_note("run", "command")
    if row is None:
        raise UsageError(f"{path}: holds no run; expected the journal of `selfee data augment`")
    command = command_from_json(row)
    if max_cost is not None:
        command = replace(command, pacing=replace(command.pacing, max_cost=max_cost))
    execute(command, Telling(api_key_file, as_json, quiet, color), forget=kind or ())
