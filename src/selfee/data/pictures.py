"""Drawings as SVG that stand within a page and take its colours: bars, stacked bars, ranges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720
_LEFT, _RIGHT, _TOP, _ROW, _FOOT = 130, 24, 34, 26, 26
_COLORS = 6  # classes c0 … c5, whose colours the page's style sheet knows, as those of v0 … v2


@dataclass(frozen=True)
class Bar:
    """One horizontal bar: its name, its pieces by series, and what stands beside it."""

    label: str
    pieces: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True)
class Range:
    """A line from low to high with a mark in the middle."""

    label: str
    low: float
    middle: float
    high: float


def stacked_bars(title: str, bars: Sequence[Bar], series: Sequence[str]) -> str:
    """Bars of equal length, each divided into the shares of its pieces (up to three), with a legend."""
    height = _TOP + 22 + _ROW * len(bars) + 8
    return "\n".join([*_open(title, height), *_legend(series, "v"), *_stacks(bars, series), "</svg>"])


def columns(title: str, groups: Sequence[str], values: Mapping[str, Sequence[float]], unit: str = "%") -> str:
    """Upright columns in groups, one colour for each series of values."""
    height, foot = 240, 28
    top = _TOP + 24
    room = height - top - foot
    highest = _round_up(max((value for series in values.values() for value in series), default=0))
    step = (WIDTH - 60 - _RIGHT) / max(1, len(groups))
    thick = min(28.0, step * 0.8 / max(1, len(values)))
    parts = [*_open(title, height), *_legend(list(values), "c")]
    for share in (0.0, 0.5, 1.0):
        y = top + room * (1 - share)
        parts.append(f'<path class="grid" d="M52 {y:.1f} H{WIDTH - _RIGHT}"/>')
        parts.append(_text(46, y + 4, f"{highest * share:.3g}{unit}", "end"))
    for place, group in enumerate(groups):
        middle = 60 + step * (place + 0.5)
        parts.append(_text(middle, height - 8, group, "middle"))
        for number, (name, series) in enumerate(values.items()):
            tall = room * series[place] / highest
            left = middle + (number - len(values) / 2) * thick
            told = escape(f"{name}, {group}: {series[place]:.3g}{unit}")
            box = f'x="{left:.1f}" y="{top + room - tall:.1f}" width="{thick * 0.92:.1f}" height="{tall:.1f}"'
            parts.append(f'<rect class="c{number % _COLORS}" {box}><title>{told}</title></rect>')
    return "\n".join([*parts, "</svg>"])


def ranges(title: str, lines: Sequence[Range], unit: str) -> str:
    """Lines from the 10th to the 90th percentile with a mark at the median."""
    height = _TOP + _ROW * len(lines) + _FOOT
    highest = _round_up(max((line.high for line in lines), default=0))
    scale = (WIDTH - _LEFT - _RIGHT - 60) / highest
    parts = list(_open(title, height))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _LEFT + share * highest * scale
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP - 4} V{height - _FOOT + 2}"/>')
        parts.append(_text(x, height - 8, f"{share * highest:.3g}", "middle"))
    parts.append(_text(WIDTH - _RIGHT, height - 8, unit, "end"))
    for place, line in enumerate(lines):
        y = _TOP + _ROW * place + 12
        told = f"{line.label}: median {line.middle:g}, 10 % below {line.low:g}, 90 % below {line.high:g} {unit}"
        parts.append(_text(_LEFT - 8, y + 4, line.label, "end"))
        parts.append(
            f'<g><title>{escape(told)}</title><path class="range" d="M{_LEFT + line.low * scale:.1f} {y} '
            f'H{_LEFT + max(line.high, line.low) * scale + 1:.1f}"/>'
            f'<circle class="mark" cx="{_LEFT + line.middle * scale:.1f}" cy="{y}" r="5"/></g>'
        )
    return "\n".join([*parts, "</svg>"])


def _stacks(bars: Sequence[Bar], series: Sequence[str]) -> Iterator[str]:
    room = WIDTH - _LEFT - _RIGHT - 90
    for place, bar in enumerate(bars):
        y = _TOP + 22 + _ROW * place
        total = sum(bar.pieces.values())
        yield _text(_LEFT - 8, y + 14, bar.label, "end")
        yield _text(WIDTH - _RIGHT, y + 14, bar.note, "end")
        x = float(_LEFT)
        for number, name in enumerate(series):
            share = bar.pieces.get(name, 0) / total if total else 0.0
            if share:
                told = f"{bar.label}, {name}: {bar.pieces[name]:,.0f} ({100 * share:.1f} %)"
                yield (
                    f'<rect class="v{number}" x="{x:.1f}" y="{y}" width="{room * share:.1f}" '
                    f'height="{_ROW - 8}"><title>{escape(told)}</title></rect>'
                )
                if share > 0.07:
                    yield _text(x + room * share / 2, y + 13, f"{100 * share:.0f} %", "middle", "on")
            x += room * share


def _round_up(value: float) -> float:
    """The next number that a scale may end with: its quarters are short to write."""
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(size * step for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if size * step >= value)


def _legend(series: Sequence[str], kind: str) -> Iterator[str]:
    x = float(_LEFT)
    for number, name in enumerate(series):
        yield f'<rect class="{kind}{number % _COLORS}" x="{x:.1f}" y="{_TOP - 6}" width="12" height="12"/>'
        yield _text(x + 17, _TOP + 4, name)
        x += 34 + 7.2 * len(name)


def _open(title: str, height: float) -> Iterator[str]:
    yield f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'
    yield _text(0, 14, title, style="title")


def _text(x: float, y: float, words: str, anchor: str = "start", style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
