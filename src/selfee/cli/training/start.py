"""Starts a planned run and shows it: alone, or as one of the processes that ``torchrun`` started."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.errors import UsageError
from selfee.train.config import TrainConfig
from selfee.train.processes import Processes

if TYPE_CHECKING:
    from selfee.train.run import Plan


def processes_here() -> Processes:
    """What ``torchrun`` says of the processes it started; without it, there is one."""
    names = {"rank": "RANK", "count": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_count": "LOCAL_WORLD_SIZE"}
    given = {field: os.environ[name] for field, name in names.items() if os.environ.get(name)}
    try:
        processes = Processes(**{field: int(value) for field, value in given.items()})
    except ValueError:
        raise UsageError(f"train: was started with {given}; expected numbers, as torchrun gives them") from None
    if processes.count > 1 and not os.environ.get("MASTER_ADDR"):
        raise UsageError(
            f"train: is one of {processes.count} processes that do not know each other; expected torchrun to start "
            "them, or no WORLD_SIZE in the environment"
        )
    return processes


def start(
    model: Path,
    data: Path,
    out: Path,
    config: TrainConfig,
    validation: Path | None,
    *,
    as_json: bool,
    quiet: bool,
    color: Color,
) -> None:
    """Train, and print where the model is. Of several processes only the first is heard, unless one fails."""
    from selfee.train.run import plan as make_plan

    processes = processes_here()
    made = make_plan(model, data, out, config, validation, processes)
    if not processes.is_first:
        from selfee.train.run import train

        train(made)
        return
    stdout, stderr = screen_of(sys.stdout, color), screen_of(sys.stderr, color)
    if not quiet:
        _tell_plan(stderr, made)
    end = _train(made, stdout, stderr, as_json, quiet)
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
