"""The log of a run: a line for each thing that happened, kept through interruptions; and the same for TensorBoard."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfee.jsonl import read_jsonl
from selfee.train.events import EventFile

LOG = "log.jsonl"

Row = dict[str, Any]
"""A line of the log: its field "kind" is "begin", "step", "validation", "saved" or "end"."""

_CURVES = ("loss", "rate", "gradient", "tokens_per_second", "mfu")


@contextmanager
def open_log(out: Path, step: int, on_row: Callable[[Row], None], tensorboard: bool) -> Iterator[Callable[[Row], None]]:
    """A function that appends a line; lines of steps that will be made again are removed first."""
    path = out / LOG
    kept = [row for _, row in _whole_lines(path) if row.get("step", 0) <= step and row.get("kind") != "end"]
    events = EventFile(out / "tensorboard", time.time()) if tensorboard else None
    with path.open("w", encoding="utf-8") as file:

        def put(row: Row) -> None:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            if events is not None and (values := _scalars(row)):
                events.scalars(values, row["step"], row.get("time", 0.0))

        def write(row: Row) -> None:
            put({**row, "time": round(time.time(), 3)})
            on_row(row)

        try:
            for row in kept:
                put(row)
            os.fsync(file.fileno())
            yield write
        finally:
            if events is not None:
                events.close()


def _scalars(row: Row) -> dict[str, float]:
    """What of a line TensorBoard draws, by the name of the curve."""
    if row.get("kind") not in ("step", "validation"):
        return {}
    kind = "train" if row["kind"] == "step" else "validation"
    values = {f"{kind}/{name}": row[name] for name in _CURVES if name in row}
    return values | {f"{kind}/loss of {part}": loss for part, loss in row["parts"].items()}


def _whole_lines(path: Path) -> Iterator[tuple[int, Row]]:
    """The log's lines; one that a killed process left unfinished ends them."""
    if not path.exists():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    yield from read_jsonl(path)
