"""Everything that a report says, before it is written down: figures, the audit of stored scores, what chains took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from selfee import __version__
from selfee.chain.types import Chain
from selfee.eval.answers import Answer
from selfee.eval.reporting.folder import Material, answer_hashes
from selfee.eval.revising.result import Analysis
from selfee.eval.revising.result_file import read_analysis
from selfee.eval.scoring.bias import speaks_to_judge
from selfee.eval.scoring.comparisons import Comparison
from selfee.eval.scoring.controls import kind_of
from selfee.eval.scoring.estimates import Estimate, Resampling
from selfee.eval.scoring.figures import Figures, PairFigures, sum_up
from selfee.eval.scoring.reviews import Suspect, audit


@dataclass(frozen=True)
class Settings:
    """What a user may choose."""

    baseline: str | None = None  # what models are compared with; None = what most were compared with
    allow_gaps: bool = False  # leave out questions with a missing or unreadable judgment, instead of saying nothing
    resampling: Resampling = field(default_factory=Resampling)
    title: str = ""


@dataclass(frozen=True)
class Effort:
    """What one set of answers took and gave."""

    title: str
    answers: int
    mean_length: float  # characters delivered
    mean_tokens: float | None  # generated for one question, everything that was thrown away included
    mean_written: float | None  # characters of whole chains: where tokens are not known
    mean_revisions: float | None  # written, where chains are at hand
    mean_delivered: float | None  # number of the delivered answer, 0 = the first
    cut: int | None  # chains that were cut off

    @property
    def is_chain(self) -> bool:
        """Whether it comes from chains."""
        return self.mean_revisions is not None


@dataclass(frozen=True)
class Point:
    """One point of "score against number of revisions"."""

    series: str  # one line of the picture: the answers' name, baseline and judge
    title: str
    revisions: float
    score: Estimate
    unit: str  # "relative score, %", "win rate, %" or "mean score"


@dataclass(frozen=True)
class Report:
    """All of it."""

    title: str
    material: Material
    settings: Settings
    figures: Figures
    comparisons: tuple[Comparison, ...]
    suspects: tuple[Suspect, ...]
    efforts: Mapping[str, Effort]
    points: tuple[Point, ...]
    analysis: Analysis | None = None  # of revisions, where the folder holds one
    speaking: tuple[tuple[str, str], ...] = ()  # (title, question) of answers that speak to the judge

    @property
    def is_whole(self) -> bool:
        """Whether no comparison was withheld because of gaps."""
        return not self.figures.withheld

    def as_json(self) -> dict[str, Any]:
        """The figures as plain JSON values; names are those of the dataclasses."""
        figures = asdict(replace(self.figures, comparisons=()))
        del figures["comparisons"]
        for each in (*figures["pairs"], *figures["differences"]):
            each["form"] = each["form"].value
        return {
            "selfee": __version__,
            "folder": str(self.material.folder),
            "title": self.title,
            **_finite(figures),
            "questions": len({each.question_id for each in self.material.judgments}),
            "judgments": len(self.material.judgments),
            "audit": [asdict(each) | {"finding": each.finding.value} for each in self.suspects],
            "efforts": [asdict(each) for each in self.efforts.values()],
            "points": _finite([asdict(each) for each in self.points]),
            "analysis": None if self.analysis is None else _finite(asdict(self.analysis)),
            "speaking_to_the_judge": [list(each) for each in self.speaking],
            "files": dict(self.material.files),
            "notes": list(self.material.notes),
        }


def make_report(material: Material, settings: Settings | None = None) -> Report:
    """Sum up everything that a folder holds."""
    settings = settings or Settings()
    texts = answer_hashes(material)
    speaking = frozenset(sha for sha, text in texts.items() if speaks_to_judge(text))
    asked = material.expected
    figures = (
        _no_figures(settings)
        if not material.judgments
        else sum_up(
            material.judgments,
            resampling=settings.resampling,
            baseline=settings.baseline,
            questions=asked,
            allow_gaps=settings.allow_gaps,
            people=material.people,
            speaking=speaking,
        )
    )
    efforts = _efforts(material)
    return Report(
        settings.title or f"Report on {material.folder.resolve().name}",
        material,
        settings,
        figures,
        figures.comparisons,
        tuple(audit(material.reviews)),
        efforts,
        tuple(_points(figures, efforts)),
        read_analysis(material.analysis) if material.analysis is not None else None,
        tuple(_speakers(material, speaking)),
    )


def _no_figures(settings: Settings) -> Figures:
    """A folder may hold an analysis of revisions and nothing that was judged."""
    return Figures((), (), (), (), settings.resampling, "")


def _speakers(material: Material, speaking: frozenset[str]) -> list[tuple[str, str]]:
    shown = (side for each in material.judgments for side in ((each.first, each), (each.second, each)))
    return list(
        dict.fromkeys(
            (side.title, each.question_id) for side, each in shown if side is not None and side.sha256 in speaking
        )
    )


def _efforts(material: Material) -> dict[str, Effort]:
    """For every set of answers that was judged: lengths, tokens, chains."""
    lengths: dict[str, dict[str, int]] = {}
    answer_ids: dict[str, str] = {}
    for each in material.judgments:
        for shown in (each.first, each.second):
            if shown is not None and not kind_of(shown.name):
                known = lengths.setdefault(shown.title, {})
                answer_ids.setdefault(shown.title, shown.answer_id)
                if shown.length is not None:
                    known[each.question_id] = shown.length
    by_id = {answer.answer_id: key for key, answer in material.answers.items()}
    efforts = {}
    for title, known in lengths.items():
        own = _own_title(title, by_id.get(answer_ids[title]), material)
        keys = [key for key in material.answers if key[0] == own]
        spent = [total for key in keys if (total := _spent(material.answers[key])) is not None]
        chains = [material.chains[key] for key in keys if key in material.chains]
        efforts[title] = _effort(title, known, spent if len(spent) == len(keys) else [], chains)
    return efforts


def _spent(answer: Answer) -> float | None:
    """Tokens generated for all turns of an answer; None where one of them does not tell."""
    told = [turn.spent for turn in answer.turns]
    return None if None in told else float(sum(tokens or 0 for tokens in told))


def _own_title(title: str, key: tuple[str, str] | None, material: Material) -> str:
    """The name of the answers' file, which a review file may spell in another way."""
    if any(name == title for name, _ in material.answers):
        return title
    return key[0] if key is not None else title


def _effort(title: str, lengths: Mapping[str, int], spent: Sequence[float], chains: Sequence[Chain]) -> Effort:
    written = [sum(len(step.answer) + len(step.feedback or "") for step in chain.steps) for chain in chains]
    tokens = list(spent) or [float(chain.cost.tokens) for chain in chains]
    delivered = [float(chain.delivered) for chain in chains if chain.delivered is not None]
    return Effort(
        title,
        len(lengths),
        _mean(list(map(float, lengths.values()))) or 0.0,
        _mean(tokens) if any(tokens) else None,
        _mean(list(map(float, written))),
        _mean([float(chain.num_revisions) for chain in chains]),
        _mean(delivered),
        sum(not chain.is_complete for chain in chains) if chains else None,
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _points(figures: Figures, efforts: Mapping[str, Effort]) -> list[Point]:
    """Score against revisions: their number where it was enforced and judged, else the mean that chains wrote."""
    points = []
    judges = {pair.said_by for pair in figures.pairs}
    for pair in figures.pairs:
        effort = efforts.get(pair.model)
        number = pair.model_revision
        revisions = float(number) if number is not None else effort.mean_revisions if effort else None
        if pair.scores is None or revisions is None:
            continue
        score, unit = score_of(pair)
        series = f"against {pair.baseline}, judged by {pair.judge if len(judges) == 1 else pair.said_by}"
        if number is not None:
            series = f"{pair.model.rpartition('@')[0]} {series}"
        points.append(Point(series, pair.model, revisions, score, unit))
    return points


def score_of(pair: PairFigures) -> tuple[Estimate, str]:
    """The main figure of a comparison: the relative score, or where there are no scores the win rate."""
    assert pair.scores is not None
    if pair.scores.relative.value is not None:
        return pair.scores.relative, "relative score, %"
    return pair.scores.win_rate.scaled(100.0), "win rate, %"


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value.value if hasattr(value, "value") and not isinstance(value, str) else value
