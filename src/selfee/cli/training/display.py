"""How far a training run is: a line that is rewritten on a terminal, and notes that stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfee.cli.chunk_progress import ChunkDisplay
from selfee.cli.output import Screen, for_terminal


class TrainDisplay:
    """Shows the rows of a run's log on ``screen``."""

    def __init__(self, screen: Screen, steps: int) -> None:
        self._screen = screen
        self._steps = steps
        self._line: ChunkDisplay | None = None
        self._saved = self._first = 0

    def row(self, row: dict[str, Any]) -> None:
        """A row was written."""
        if row["kind"] == "begin":
            self._first = self._saved = row["step"]
            self._line = ChunkDisplay(self._screen, self._steps - self._first, unit="steps")
            if self._first:
                self._line.note(f"going on after step {self._first:,}")
            self._line.begin("training")
        elif self._line is None:
            return
        elif row["kind"] == "step":
            figure = f"loss {row['loss']:.3f}, {row['tokens_per_second']:,.0f} tokens/s"
            self._line.step("training", row["step"] - self._first, figure=figure)
        elif row["kind"] == "validation":
            parts = ", ".join(f"{name} {loss:.3f}" for name, loss in row["parts"].items())
            self._line.note(f"step {row['step']:,}: validation loss {row['loss']:.3f} ({parts})")
        elif row["kind"] == "saved":
            self._saved = row["step"]
        elif row["kind"] == "end":
            self._tell_end(row)

    def _tell_end(self, row: dict[str, Any]) -> None:
        assert self._line is not None
        reasons = ", ".join(f"{reason} ({count})" for reason, count in row["data"]["refused"].items())
        self._line.note(f"loss {row['loss']:.3f} after step {row['step']:,}" if "loss" in row else "nothing left to do")
        if reasons:
            self._line.note(f"refused: {reasons}")

    def stopped(self, out: Path) -> None:
        """The user gave up."""
        self.end()
        state = f"step {self._saved:,} is saved" if self._saved else "nothing was saved yet"
        self._screen.write(for_terminal(f"stopped: {state} in {out}; the same command goes on from there\n"))

    def end(self) -> None:
        """Take the line away."""
        if self._line is not None:
            self._line.clear()
