"""Judgments made in memory: a judge with known habits, so that figures have known values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from selfee.eval.scoring.judgment import Form, Judgment, Label, Shown

Decide = Callable[[str, str, str, int], tuple[float, float]]
"""(question, first's name, second's name, repeat) -> the two scores."""


def judged(
    decide: Decide,
    *,
    model: str = "model",
    baseline: str = "baseline",
    questions: int = 40,
    repeats: int = 1,
    lengths: Callable[[str, str], int] | None = None,
    **more: Any,
) -> Iterator[Judgment]:
    """Both orders of every question, ``decide`` giving the scores."""
    for number in range(questions):
        question = f"q{number}"
        for repeat in range(repeats):
            for first, second in ((model, baseline), (baseline, model)):
                shown = [
                    Shown(name, f"{question}-{name}", lengths(question, name) if lengths else None)
                    for name in (first, second)
                ]
                yield Judgment(
                    form=Form.PAIR_SCORES,
                    question_id=question,
                    category=("even", "odd")[number % 2],
                    first=shown[0],
                    second=shown[1],
                    judge="judge",
                    template="t",
                    repeat=repeat,
                    scores=decide(question, first, second, repeat),
                    **more,
                )


def random_judge(seed: int, *, prefers_first: float = 0.0, noise: float = 0.0, skill: float = 0.5) -> Decide:
    """A judge that lets the first place or the better answer win, and is turned round by chance."""
    rng = np.random.default_rng(seed)
    better: dict[str, bool] = {}

    def decide(question: str, first: str, second: str, repeat: int) -> tuple[float, float]:
        model_is_better = better.setdefault(question, bool(rng.random() < skill))
        first_wins = model_is_better is (first == "model")
        if rng.random() < prefers_first:
            first_wins = True
        if rng.random() < noise:
            first_wins = not first_wins
        return (9.0, 3.0) if first_wins else (3.0, 9.0)

    return decide


def label(question: str, first: str, second: str, winner: Label, judge: str = "judge") -> Judgment:
    """One verdict in words."""
    return Judgment(
        form=Form.PAIR_LABEL,
        question_id=question,
        first=Shown(first),
        second=Shown(second),
        judge=judge,
        template="t",
        label=winner,
    )
