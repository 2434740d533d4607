"""The roofline picture of docs/explanation/kernels.md, from the recorded runs of batch.py on this machine.

    python benchmarks/roofline.py --scratch FOLDER -o docs/explanation/roofline.svg

x: multiply-adds for each byte of weights read (one token: little; 512 tokens: much). y: multiply-adds a second. Under
the slope memory is the limit, under the flat part the machine's byte products; a point on the line cannot be improved.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from math import prod
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.models import model_file
from benchmarks.results import RESULTS, cpu_model

from selfee.weights.open import open_checkpoint

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 440, 70, 50, 30, 190
X, Y = (0.7, 2000.0), (15.0, 1000.0)
COLORS = {"selfee": "#0b6e4f", "ik": "#c1666b", "llama.cpp": "#7a7a7a", "xllamacpp": "#b8b8b8"}
MARKS = {1: "n = 1", 8: "n = 8", 512: "n = 512"}

Point = tuple[str, str, int, float, float]  # engine, model, tokens, multiply-adds a byte, G multiply-adds a second


def last_figures(path: Path) -> dict[str, float]:
    """Figures of all recorded runs of batch.py; of those measured twice, the later."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    figures: dict[str, float] = {}
    for row in rows:
        if row["benchmark"] == "batch":
            figures |= row["figures"]
    if not any(name.startswith("1.1b-") for name in figures):
        sys.exit(f"{path}: holds no run of batch.py; expected one; run it with --tokens 8 --tokens 512 first")
    return figures


def points(figures: dict[str, float], scratch: Path) -> list[Point]:
    """What was measured with two threads."""
    found: list[Point] = []
    sizes: dict[str, tuple[int, int, int]] = {}
    for name, milliseconds in figures.items():
        match = re.fullmatch(r"(1\.1b-(\w+)) 2t n=(\d+) (\S+) ms", name)
        if match is None:
            continue
        model, type, tokens, engine = match[1], match[2], int(match[3]), match[4]
        if model not in sizes:
            path = model_file(scratch, "1.1b", type)
            with open_checkpoint(path) as checkpoint:
                counts = {key: prod(tensor.shape) for key, tensor in checkpoint.tensors.items()}
            layers = sum(count for key, count in counts.items() if key.startswith("blk."))
            sizes[model] = layers, counts["output.weight"], path.stat().st_size
        layers, head, size = sizes[model]
        products = layers * tokens + head
        found.append((engine, model, tokens, products / size, products / milliseconds / 1e6))
    return found


def x_of(value: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / X[0]) / math.log(X[1] / X[0])


def y_of(value: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * math.log(value / Y[0]) / math.log(Y[1] / Y[0])


def text(x: float, y: float, words: str, anchor: str = "start", color: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{words}</text>'


def picture(found: list[Point], memory: float, peak: float) -> str:
    """The drawing, as SVG."""
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for value in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000):
        parts.append(text(x_of(value), HEIGHT - BOTTOM + 18, f"{value}", "middle"))
        parts.append(f'<path d="M{x_of(value):.1f} {TOP} V{HEIGHT - BOTTOM}" stroke="#eee"/>')
    for value in (20, 50, 100, 200, 500, 1000):
        parts.append(text(LEFT - 8, y_of(value) + 4, f"{value}", "end"))
        parts.append(f'<path d="M{LEFT} {y_of(value):.1f} H{WIDTH - RIGHT}" stroke="#eee"/>')
    corner = peak / memory
    parts.append(
        f'<path d="M{x_of(X[0]):.1f} {y_of(max(Y[0], memory * X[0])):.1f} L{x_of(corner):.1f} {y_of(peak):.1f} '
        f'H{WIDTH - RIGHT}" fill="none" stroke="#333" stroke-width="2"/>'
    )
    parts.append(text(x_of(corner) + 6, y_of(peak) - 8, f"byte products: {peak:.0f} G multiply-adds/s"))
    parts.append(text(x_of(0.8), y_of(memory * 2.6), f"memory: {memory:.0f} GB/s"))
    for engine, model, tokens, intensity, rate in sorted(found, key=lambda point: point[0] == "selfee"):
        color = COLORS.get(engine, "#999")
        radius = 4.5 if engine == "selfee" else 3
        place = f'cx="{x_of(intensity):.1f}" cy="{y_of(rate):.1f}" r="{radius}"'
        title = f"<title>{engine} {model} n={tokens}: {rate:.0f} G multiply-adds/s</title>"
        parts.append(f'<circle {place} fill="{color}" fill-opacity="0.8">{title}</circle>')
    for tokens, words in MARKS.items():
        xs = [x_of(point[3]) for point in found if point[2] == tokens and point[0] == "selfee"]
        if xs:
            parts.append(text(sum(xs) / len(xs), HEIGHT - BOTTOM - 8, words, "middle", "#0b6e4f"))
    for number, (engine, color) in enumerate(COLORS.items()):
        y = TOP + 30 + 20 * number
        parts.append(f'<circle cx="{WIDTH - RIGHT + 20}" cy="{y}" r="4" fill="{color}"/>')
        parts.append(text(WIDTH - RIGHT + 30, y + 4, engine))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "multiply-adds for each byte of weights", "middle"))
    parts.append(
        text(LEFT - 50, TOP - 12, "G multiply-adds a second, two threads, LLaMA of 1.1 billion weights, ten types")
    )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scratch", type=Path, required=True, help="folder of benchmarks/models.py")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    figures = last_figures(RESULTS / (re.sub(r"[^a-z0-9]+", "-", cpu_model().lower()).strip("-") + ".jsonl"))
    memory = max(value for name, value in figures.items() if name.endswith("2t memory GB/s"))
    peak = max(value for name, value in figures.items() if name.endswith("2t byte dot GMAC/s"))
    drawing = picture(points(figures, given.scratch), memory, peak)
    given.output.write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main()
