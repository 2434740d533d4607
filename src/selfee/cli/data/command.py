"""``selfee data``: sources in, a training set out. Each subcommand is a file of its own and holds its ``app``."""

from __future__ import annotations

import typer

from selfee.cli.data import augment, collect, journals, merge, retry, stats

app = typer.Typer(
    name="data",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    epilog="Examples:\n\n\b\n  selfee data collect gsm8k:train.jsonl alpaca:alpaca_data.json -o samples.jsonl\n"
    "  selfee data merge chains/*.jsonl -o training/\n  selfee data stats training/train.jsonl",
)
for part in (collect, augment, retry, merge, stats):
    app.add_typer(part.app)
app.add_typer(journals.app, name="journal")
