"""``selfee train``: a model learns from chains; a run that was interrupted goes on."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.cli.options import FlagGroup, with_flags
from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.shared_options import Colored, Quiet
from selfee.train.config import PRESETS, TrainConfig

if TYPE_CHECKING:
    from selfee.train.run import Plan

EXAMPLES = """Examples:

\b
  selfee train model/ training/ -o run/ --preset 7b
  selfee train model/ chains.jsonl -o run/ --lora-rank 16 --learning-rate 2e-4 --epochs 1
  selfee train model/ chains.jsonl --preview 3 --weights flawed=0
  selfee convert run/model model.gguf

\b
MODEL is a Hugging Face folder; OUT/model is one again. Call the same command again and an interrupted run goes on from
its last saved state (--save-minutes). --preview shows what is learned, and neither loads a model nor needs torch.
One process on one GPU, or on the processor; needs pip install 'selfee[train]'.
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
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UsageError("train: was started in several processes; expected one: training on several is not there yet")
    from selfee.train.run import plan as make_plan

    plan = make_plan(model, data, out, config, validation)
    stderr = screen_of(sys.stderr, color)
    if not quiet:
        _tell_plan(stderr, plan)
    end = _train(plan, stdout, stderr, as_json, quiet)
    if not as_json:
        stdout.write(f"{for_terminal(end['folder'])}\n")


def _train(plan: Plan, stdout: Screen, stderr: Screen, as_json: bool, quiet: bool) -> dict[str, Any]:
    from selfee.cli.training.display import TrainDisplay
    from selfee.train.run import train as run

    display = None if quiet else TrainDisplay(stderr, plan.steps)

    def on_row(row: dict[str, Any]) -> None:
        if as_json:
            stdout.write_json(row)
        if display is not None:
            display.row(row)

    try:
        return run(plan, on_row)
    except KeyboardInterrupt:
        if display is not None:
            display.stopped(plan.out)
        raise
    finally:
        if display is not None:
            display.end()


def _tell_plan(screen: Screen, plan: Plan) -> None:
    from selfee.weights.disk import human_size

    counts, memory = plan.dataset.counts, plan.memory
    screen.write(f"{counts.chains:,} chains, {counts.lessons:,} to learn from; {counts.without_end:,} without an end\n")
    for reason, count in counts.refused.most_common():
        screen.write(screen.style(for_terminal(f"  {count:,} refused: {reason}"), "yellow") + "\n")
    rows = len(plan.feed)
    packed = f", packed into {rows:,} rows" if plan.config.pack else ""
    screen.write(
        f"{plan.steps:,} steps of {plan.config.global_batch:,} rows{packed}; {memory.trained / 1e6:,.2f} million "
        f"numbers are trained; about {human_size(memory.total)} are needed ({memory})\n"
    )
