"""``selfee train``: a model learns from chains; a run that was interrupted goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from selfee.cli.options import FlagGroup, with_flags
from selfee.cli.output import Color, screen_of
from selfee.cli.shared_options import Colored, Quiet
from selfee.train.config import PRESETS, TrainConfig

EXAMPLES = """Examples:

\b
  selfee train model/ training/ -o run/ --preset 7b
  selfee train model/ chains.jsonl -o run/ --lora-rank 16 --learning-rate 2e-4 --epochs 1
  selfee train model/ chains.jsonl --preview 3 --weights flawed=0
  torchrun --nproc_per_node 4 -m selfee.cli train model/ training/ -o run/ --preset 13b
  selfee convert run/model model.gguf

\b
MODEL is a Hugging Face folder; OUT/model is one again. Call the same command again and an interrupted run goes on from
its last saved state (--save-minutes, --save-every), on any number of processes. --preview shows what is learned, and
neither loads a model nor needs torch. One process on one GPU or on the processor, or as many as torchrun starts, each
with a share of the model; needs pip install 'selfee[train]'.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_PRESET = f"Settings to begin with: {', '.join(PRESETS)}; default: SelFee's published recipe. Other flags win over it."


@app.command("train", epilog=EXAMPLES)
@with_flags(FlagGroup(TrainConfig, has_variables=False, only_given=True))
def train(
    given: dict[str, Any],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The Hugging Face folder of the model to train.")],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Chains: a file, or the folder that `selfee data merge` made.")
    ],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The folder of the run.")] = None,
    preset: Annotated[str, typer.Option(metavar="NAME", help=_PRESET)] = "",
    validation: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Chains to measure on; default: those in DATA's folder.")
    ] = None,
    preview: Annotated[int, typer.Option(min=0, metavar="N", help="Show N examples in colour and end.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print every line of the log as JSON.")] = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Train a model on chains of answer, feedback and revision."""
    from selfee.errors import UsageError
    from selfee.train.config import preset as settings_of

    config = settings_of(preset, **given)
    stdout = screen_of(sys.stdout, color)
    if preview:
        from selfee.cli.training.preview import show_preview

        show_preview(stdout, model, data, config, preview, as_json)
        return
    if out is None:
        raise UsageError("train: no folder for the run was given; expected -o FOLDER, or --preview 3 to look first")
    from selfee.cli.training.start import start

    start(model, data, out, config, validation, as_json=as_json, quiet=quiet, color=color)
