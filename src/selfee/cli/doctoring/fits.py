"""What would fit into memory, in words: usual sizes of models, files on this disk, and what to take instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfee.cli.output import Screen
from selfee.cli.table import Column, render_table
from selfee.weights.disk import human_size

if TYPE_CHECKING:
    from selfee.eval.fitting import FileFit, Fit


def shape_rows(fits: Sequence[Fit]) -> list[dict[str, Any]]:
    """Usual sizes as JSON."""
    return [asdict(fit) | {"fits": fit.fits, "text": shape_advice(fit)} for fit in fits]


def file_rows(fits: Sequence[tuple[Path, FileFit | str]]) -> list[dict[str, Any]]:
    """Files as JSON; a text is why one cannot be run."""
    rows: list[dict[str, Any]] = []
    for path, fit in fits:
        if isinstance(fit, str):
            rows.append({"file": path.name, "fits": False, "text": fit})
        else:
            rows.append(asdict(fit) | {"fits": fit.fits, "text": file_advice(fit)})
    return rows


def shape_advice(fit: Fit) -> str:
    """What to do with a model of this size here."""
    what = f"{fit.type} of a {fit.model}"
    if fit.fits:
        better = f"; {fit.best_type} fits too" if fit.best_type not in (fit.type, None) else ""
        return f"{what} needs {human_size(fit.need)} at {fit.context} tokens: it fits{better}"
    instead = [f"{fit.best_type}"] if fit.best_type else []
    instead += [f"-c {fit.longest_context}"] if fit.longest_context else []
    advice = f"take {' or '.join(instead)}" if instead else "take a smaller model"
    return f"{what} needs {human_size(fit.need)} at {fit.context} tokens, you have {human_size(fit.have)}: {advice}"


def file_advice(fit: FileFit) -> str:
    """What to do with a file here."""
    need = f"needs {human_size(fit.need)} at {fit.context} tokens"
    if fit.fits:
        return f"{need}: it fits"
    advice = f"take -c {fit.longest_context}" if fit.longest_context else "take a smaller file"
    return f"{need}, you have {human_size(fit.have)}: {advice}"


def shape_table(fits: Sequence[Fit], screen: Screen) -> str:
    """A line for each usual size."""
    first = fits[0]
    columns = (
        Column("model"),
        Column(f"{first.type} at {first.context} tokens", is_number=True),
        Column("fits"),
        Column("best type that fits"),
        Column(f"context of {first.type}", is_number=True),
    )
    rows = [
        (
            fit.model,
            human_size(fit.need),
            "yes" if fit.fits else "no",
            fit.best_type or "none",
            f"{fit.longest_context:,}" if fit.longest_context else "–",
        )
        for fit in fits
    ]
    return render_table(columns, rows, screen)


def nearest(fits: Sequence[Fit]) -> Fit | None:
    """The smallest size that does not fit as it is, though it may with another type or context."""
    return next((fit for fit in fits if not fit.fits), None)
