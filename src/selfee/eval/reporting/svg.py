"""Drawings as SVG that stands in a page: colours are the page's, so that they are right in light and in dark.

Nothing but coordinates is computed here. Every text is escaped; every drawing has a title and a description.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

SERIES = 7
"""Colours (``--s0`` … ``--s6`` of the page's style) and marks that tell series apart; more repeat."""


@dataclass(frozen=True)
class Scale:
    """Numbers to coordinates."""

    low: float
    high: float
    start: float  # coordinate of ``low``
    end: float

    def __call__(self, value: float) -> float:
        """The coordinate of a value; values outside stand at the edge."""
        if self.high == self.low:
            return (self.start + self.end) / 2
        part = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round numbers within the range."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        rough = span / wanted
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [step * number for number in range(first, last + 1)]


def scale_for(values: Sequence[float], start: float, end: float, pad: float = 0.08) -> Scale:
    """A scale that holds all values with some room around them."""
    low, high = min(values), max(values)
    room = (high - low) * pad or max(abs(high), 1.0) * 0.05
    return Scale(low - room, high + room, start, end)


@dataclass
class Drawing:
    """Shapes in the making."""

    title: str
    description: str
    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "axis") -> None:
        """A straight line of a class of the page's style."""
        self.parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def path(self, points: Sequence[tuple[float, float]], series: int, dashed: bool = False) -> None:
        """A line through points."""
        steps = " ".join(f"{'L' if number else 'M'}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(points))
        self.parts.append(f'<path class="curve s{series % SERIES}{" dashed" if dashed else ""}" d="{steps}"/>')

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """A filled rectangle."""
        self.parts.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}"/>'
        )

    def text(self, x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> None:
        """Words."""
        style = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def mark(self, x: float, y: float, series: int, tip: str = "") -> None:
        """A point of a series: its own colour, and its own shape for those who cannot tell colours apart."""
        shape = series % SERIES
        size = 4.5
        shapes = (
            f'<circle class="mark s{shape}" cx="{x:.1f}" cy="{y:.1f}" r="{size}"/>',
            _polygon(shape, x, y, [(-1, -1), (1, -1), (1, 1), (-1, 1)], size * 0.9),
            _polygon(shape, x, y, [(0, -1.25), (1.15, 0.85), (-1.15, 0.85)], size),
            _polygon(shape, x, y, [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)], size),
            _polygon(shape, x, y, [(0, 1.25), (1.15, -0.85), (-1.15, -0.85)], size),
            _polygon(shape, x, y, [(-1.2, -0.4), (1.2, -0.4), (1.2, 0.4), (-1.2, 0.4)], size),
            _polygon(shape, x, y, _CROSS, size),
        )
        told = f"<title>{escape(tip)}</title>" if tip else ""
        self.parts.append(f"<g>{told}{shapes[shape]}</g>")

    def whisker(self, x1: float, y1: float, x2: float, y2: float, series: int) -> None:
        """An interval, with a short stroke at each end."""
        self.line(x1, y1, x2, y2, f"whisker s{series % SERIES}")
        for x, y in ((x1, y1), (x2, y2)):
            dx, dy = (0.0, 4.0) if y1 == y2 else (4.0, 0.0)
            self.line(x - dx, y - dy, x + dx, y + dy, f"whisker s{series % SERIES}")

    def axis_below(self, scale: Scale, y: float, label: str, top: float, form: str = "g") -> None:
        """A horizontal axis with grid lines up to ``top``."""
        for tick in scale.ticks():
            self.line(scale(tick), top, scale(tick), y, "grid")
            self.text(scale(tick), y + 15, _tick(tick, form), "middle", "tick")
        self.line(scale.start, y, scale.end, y)
        self.text((scale.start + scale.end) / 2, y + 32, label, "middle", "label")

    def axis_left(self, scale: Scale, x: float, label: str, right: float, form: str = "g") -> None:
        """A vertical axis with grid lines as far as ``right``; its label stands above it."""
        for tick in scale.ticks():
            self.line(x, scale(tick), right, scale(tick), "grid")
            self.text(x - 6, scale(tick) + 4, _tick(tick, form), "end", "tick")
        self.line(x, scale.start, x, scale.end)
        self.text(2, min(scale.start, scale.end) - 10, label, "start", "label")

    def legend(self, names: Sequence[str], x: float, y: float) -> None:
        """Names of the series, one below the other."""
        for number, name in enumerate(names):
            self.mark(x + 5, y + number * 17 - 4, number)
            self.text(x + 16, y + number * 17, name, "start", "label")

    def render(self) -> str:
        """The whole drawing."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-label="{escape(self.title)}. {escape(self.description)}" style="max-width:{self.width * 1.2:g}px">'
        )
        return head + "".join(self.parts) + "</svg>"


_ARM, _THICK = 1.2, 0.4
_CROSS = [
    *((-_THICK, -_ARM), (_THICK, -_ARM), (_THICK, -_THICK), (_ARM, -_THICK), (_ARM, _THICK), (_THICK, _THICK)),
    *((_THICK, _ARM), (-_THICK, _ARM), (-_THICK, _THICK), (-_ARM, _THICK), (-_ARM, -_THICK), (-_THICK, -_THICK)),
]


def _polygon(series: int, x: float, y: float, corners: Sequence[tuple[float, float]], size: float) -> str:
    points = " ".join(f"{x + dx * size:.1f},{y + dy * size:.1f}" for dx, dy in corners)
    return f'<polygon class="mark s{series}" points="{points}"/>'


def _tick(value: float, form: str) -> str:
    return f"{value:{form}}".replace("-", "−") if abs(value) > 1e-12 else "0"


def short(text: str, longest: int = 34) -> str:
    """A name that fits; what is cut is cut in the middle, where names differ least."""
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}…{text[-(longest - 1 - half) :]}"
