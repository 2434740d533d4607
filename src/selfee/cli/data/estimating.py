"""``selfee data augment --dry-run``: what it would take."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from selfee.cli.data.teaching import is_server, price_of
from selfee.cli.output import for_terminal, screen_of
from selfee.cli.progress import clock_text
from selfee.cli.table import Column, render_table

if TYPE_CHECKING:
    from selfee.cli.data.augment import Command, Telling


def show_estimate(command: Command, telling: Telling) -> None:
    """Calls, tokens, dollars and time for each scenario; asks nobody anything."""
    from selfee.cli.data.augment import parse_shard, sample_source
    from selfee.data.augment.estimate import estimate
    from selfee.data.augment.teachers import split_weight

    specs = [split_weight(text)[0] for text in command.teachers]
    spec = next((spec for spec in specs if is_server(spec)), None)
    address, _, model = (spec or "").partition("#")
    price = (
        price_of(model, address, command.pacing) if spec and (model or command.pacing.price_in is not None) else None
    )
    shard, source = parse_shard(command.shard), sample_source(command)
    total = sum(1 for sample in source() if shard.holds(sample))
    found = estimate((sample for sample in source() if shard.holds(sample)), total, command.settings, price)
    if command.batch and price is not None:
        from dataclasses import replace

        found = tuple(replace(one, cost=None if one.cost is None else one.cost / 2) for one in found)
    pacing = command.pacing
    stdout = screen_of(sys.stdout, telling.color)
    if telling.as_json:
        rows = [vars(one) | {"minutes": one.minutes(pacing.rpm, pacing.tpm)} for one in found]
        stdout.write_json({"price": None if price is None else vars(price), "estimates": rows}, indent=2)
        return
    heads = [Column("teacher"), *(Column(name, is_number=True) for name in ("calls", "tokens in", "out", "$", "time"))]
    lines = []
    for one in found:
        minutes = one.minutes(pacing.rpm, pacing.tpm)
        cost = "?" if one.cost is None else f"{one.cost:,.2f}"
        time_ = "?" if minutes is None else clock_text(60 * minutes)
        lines.append(
            (
                one.scenario,
                f"{one.calls:,.0f}",
                f"{one.prompt_tokens:,.0f}",
                f"{one.completion_tokens:,.0f}",
                cost,
                time_,
            )
        )
    stdout.write(render_table(heads, lines, stdout))
    about = "least: content at once; usual: as SelFee's data, 1.4 revisions a chain; most: never content"
    priced = (
        "no price is known: give --price-in and --price-out"
        if price is None
        else (f"${price.input:g} in, ${price.output:g} out for a million tokens ({price.source})")
    )
    stdout.write(for_terminal(f"{total:,} rows. {about}.\nprice: {priced}\n"))
