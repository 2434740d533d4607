"""The pictures of docs/explanation/drafting.md, from recorded runs.

    python benchmarks/drafting_pictures.py acceptance -o docs/explanation/acceptance.svg          # of drafting.py
    python benchmarks/drafting_pictures.py cost -o docs/explanation/verification-cost.svg         # of batch.py

Acceptance: by place in a draft, how likely a guess and all before it were said to be right, and how often they were.
Cost: by tokens in a pass, what it costs in passes of one token, for each type, with the logits of all tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results import RESULTS, cpu_model

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 440, 60, 50, 30, 170
COLORS = ("#0b6e4f", "#c1666b", "#3d5a80", "#d4a017", "#7a5195", "#2a9d8f", "#8d5524", "#7a7a7a", "#e07a5f", "#111111")
TYPE = re.compile(r"1\.1b-(\w+) (\d+)t n=(\d+) selfee all logits ms")
PLACE = re.compile(r"(\S+) place (\d+) (said|right|guesses)")
FEWEST = 200  # guesses at a place: of fewer, a share says little


@dataclass(frozen=True)
class Line:
    """What is drawn: points (x, y) in order, dashed or not."""

    name: str
    points: Sequence[tuple[float, float]]
    color: str
    dashed: bool = False


@dataclass(frozen=True)
class Axes:
    """x is logarithmic, y is not; both with the values that are written beside them."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_values: Sequence[float]
    y_values: Sequence[float]
    x_name: str
    title: str
    unit: str = ""  # after the values of y

    def place(self, point: tuple[float, float]) -> tuple[float, float]:
        """Where a point lies on the paper."""
        x = math.log(point[0] / self.x[0]) / math.log(self.x[1] / self.x[0])
        y = (point[1] - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + (WIDTH - LEFT - RIGHT) * x, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * y


def recorded(path: Path, benchmark: str) -> dict[str, float]:
    """Figures of all recorded runs of a benchmark, whatever was asked of selfee; of those measured twice, the later."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    figures: dict[str, float] = {}
    for row in rows:
        if row["benchmark"].split()[0] == benchmark:
            figures |= row["figures"]
    if not figures:
        sys.exit(f"{path}: holds no run of {benchmark}.py; expected one; run it first, without --no-record")
    return figures


def acceptance(figures: Mapping[str, float]) -> tuple[Axes, list[Line]]:
    """What was said and what was right, for each file that was replayed."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for name, value in figures.items():
        if match := PLACE.fullmatch(name):
            found.setdefault(match[1], {}).setdefault(match[3], {})[int(match[2])] = value
    lines = []
    for color, (file, kinds) in zip(COLORS, sorted(found.items()), strict=False):
        places = sorted(place for place, count in kinds["guesses"].items() if count >= FEWEST)
        label = file.removeprefix("selfee_13b_").removesuffix("_revisions").replace("_", " ")
        for kind, words, dashed in (("right", "right", False), ("said", "predicted", True)):
            points = [(place, 100 * kinds[kind][place]) for place in places]
            lines.append(Line(f"{label}: {words}", points, color, dashed))
    if not any(line.points for line in lines):
        sys.exit(f"drafting.py: no place has {FEWEST} guesses; expected figures of whole files; run it without --quick")
    axes = Axes(
        (1, 64), (0, 100), (1, 2, 4, 8, 16, 32, 64), (0, 20, 40, 60, 80, 100), "place in a draft",
        "guesses that are right together with all before them, of those that were made", " %",
    )  # fmt: skip
    return axes, lines


def cost(figures: Mapping[str, float], threads: int) -> tuple[Axes, list[Line]]:
    """A pass over one of one token, for each type that was measured with so many threads."""
    found: dict[str, dict[int, float]] = {}
    for name, value in figures.items():
        if (match := TYPE.fullmatch(name)) and int(match[2]) == threads:
            found.setdefault(match[1], {})[int(match[3])] = value
    sizes = sorted({size for times in found.values() for size in times if size <= 64})
    if len(sizes) < 3:
        sys.exit(f"batch.py: has passes of {sizes} tokens; expected 1, 2, 4, 8, 16 and 32; run it without --tokens")
    lines = [
        Line(type, [(size, times[size] / times[1]) for size in sizes if size in times], color)
        for color, (type, times) in zip(COLORS, sorted(found.items()), strict=False)
        if 1 in times
    ]
    highest = max(y for line in lines for _, y in line.points)
    step = 1 if highest <= 6 else 2 if highest <= 12 else 5
    values = [step * number for number in range(math.ceil(highest / step) + 1)]
    title = f"a pass over a pass of one token; {threads} threads, LLaMA of 1.1 billion weights, all logits"
    return Axes((1, sizes[-1]), (0, values[-1]), sizes, values, "tokens in a pass", title), lines


def picture(axes: Axes, lines: Sequence[Line]) -> str:
    """The drawing, as SVG."""
    return "\n".join([*_frame(axes), *_curves(axes, lines), "</svg>", ""])


def _frame(axes: Axes) -> Iterator[str]:
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {box}>'
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    for value in axes.x_values:
        x, _ = axes.place((value, axes.y[0]))
        yield _text(x, HEIGHT - BOTTOM + 18, f"{value:g}", "middle")
        yield f'<path d="M{x:.1f} {TOP} V{HEIGHT - BOTTOM}" stroke="#eee"/>'
    for value in axes.y_values:
        _, y = axes.place((axes.x[0], value))
        yield _text(LEFT - 8, y + 4, f"{value:g}{axes.unit}", "end")
        yield f'<path d="M{LEFT} {y:.1f} H{WIDTH - RIGHT}" stroke="#eee"/>'
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, axes.x_name, "middle")
    yield _text(LEFT - 40, TOP - 12, axes.title)


def _curves(axes: Axes, lines: Sequence[Line]) -> Iterator[str]:
    for number, line in enumerate(lines):
        places = [axes.place(point) for point in line.points]
        path = " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
        yield f'<path d="M{path}" fill="none" stroke="{line.color}" stroke-width="2"{dashes}/>'
        for (x, y), (at, value) in zip(places, line.points, strict=True):
            title = f"<title>{line.name}, {at:g}: {value:.3g}{axes.unit}</title>"
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{line.color}">{title}</circle>'
        y = TOP + 20 + 20 * number
        left = WIDTH - RIGHT + 12
        yield f'<path d="M{left} {y} h18" fill="none" stroke="{line.color}" stroke-width="2"{dashes}/>'
        yield _text(left + 24, y + 4, line.name)


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333">{words}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("acceptance", "cost"))
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2, help="of the passes whose cost is drawn (default: 2)")
    given = parser.parse_args()
    path = RESULTS / (re.sub(r"[^a-z0-9]+", "-", cpu_model().lower()).strip("-") + ".jsonl")
    if given.what == "acceptance":
        axes, lines = acceptance(recorded(path, "drafting"))
    else:
        axes, lines = cost(recorded(path, "batch"), given.threads)
    given.output.write_text(picture(axes, lines), encoding="utf-8")


if __name__ == "__main__":
    main()
