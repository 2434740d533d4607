"""Figures in words: how many digits, how an interval is written, what a p-value is called."""

from __future__ import annotations

from selfee.eval.scoring.estimates import Estimate


def interval(estimate: Estimate, digits: int = 1) -> str:
    """``94.8 to 101.3``; "" without an interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"


def figure(estimate: Estimate, digits: int = 2, interval_digits: int = 1) -> str:
    """``98.19 (94.8 to 101.3)``; "" where there is no case."""
    if estimate.value is None:
        return ""
    within = interval(estimate, interval_digits)
    return number(estimate.value, digits) + (f" ({within})" if within else "")


def percent(estimate: Estimate, digits: int = 1) -> str:
    """A share in percent: ``49.4 (40.6 to 58.1)``."""
    return figure(estimate.scaled(100.0), digits, digits)


def share_of(estimate: Estimate) -> str:
    """A share with its cases: ``52 of 80: 65.0 % (54.1 to 74.5)``."""
    if estimate.value is None:
        return ""
    told = f"{estimate.hits} of {estimate.count}: " if estimate.hits is not None else ""
    within = interval(estimate.scaled(100.0))
    return f"{told}{estimate.value * 100:.1f} %" + (f" ({within})" if within else "")


def number(value: float | None, digits: int = 1) -> str:
    """A number with so many digits, and a true minus sign; "" for None. Never ``-0.0``."""
    if value is None:
        return ""
    text = f"{value:,.{digits}f}"
    if not text.strip("-0.,"):
        return text.lstrip("-")
    return text.replace("-", "−")


def p_value(value: float) -> str:
    """``0.043``, ``< 0.001``."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plural(count: int, one: str, many: str = "") -> str:
    """``1 question``, ``80 questions``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
