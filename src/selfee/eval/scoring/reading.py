"""A judge's reply → scores or a label, or a typed reason why there are none.

A reply is read only where all its places agree. One that says (10, 4) here and (10, 2) there is not decided by an order
of rules: it is a contradiction, and the judge is to be asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfee.eval.scoring.evidence import (
    Evidence,
    Place,
    label_evidence,
    numbers_of_first_line,
    pair_evidence,
    single_evidence,
)
from selfee.eval.scoring.judgment import Form, Label, Unreadable

Scale = tuple[float, float]

TEN_POINTS: Scale = (1.0, 10.0)
"""What the original's templates and most others ask for."""


@dataclass(frozen=True)
class Reading:
    """What a reply says, and how it was found. Either ``unreadable`` is None, or scores and label are."""

    scores: tuple[float, ...] | None = None
    label: Label | None = None
    strong: bool = False
    unreadable: Unreadable | None = None
    notes: tuple[str, ...] = ()  # read elsewhere than the template asked for, what disagrees, what is off the scale
    place: Place | None = None

    @property
    def is_readable(self) -> bool:
        """Whether it says anything."""
        return self.unreadable is None


def read_reply(reply: str, form: Form, scale: Scale = TEN_POINTS) -> Reading:
    """What a judge's reply says. ``scale`` is the lowest and the highest score that the template allows.

    Never guesses: see ``Unreadable`` for the reasons, and ``Reading.notes`` for what was found.
    """
    if not reply.strip():
        return Reading(unreadable=Unreadable.EMPTY)
    if form is Form.PAIR_LABEL:
        return _read_label(reply)
    if form is Form.SINGLE_SCORE:
        return _decide(_distinct(single_evidence(reply)), (Place.BRACKETS, Place.JSON, Place.FIRST_LINE), scale)
    reading = _decide(_distinct(pair_evidence(reply)), (Place.FIRST_LINE, Place.JSON, Place.TUPLE), scale)
    many = numbers_of_first_line(reply)
    if reading.unreadable is Unreadable.NO_VERDICT and many and len(many) != 2:
        reason = Unreadable.ONE_SCORE if len(many) == 1 else Unreadable.CONTRADICTION
        return Reading(unreadable=reason, notes=(f"first line holds {len(many)} numbers; expected 2",))
    return reading


def _read_label(reply: str) -> Reading:
    found = _distinct(label_evidence(reply))
    if not found:
        return Reading(unreadable=Unreadable.NO_VERDICT)
    if len({(each.label, each.strong) for each in found}) > 1:
        return Reading(unreadable=Unreadable.CONTRADICTION, notes=_told(found))
    return Reading(label=found[0].label, strong=found[0].strong, place=found[0].place)


def _decide(found: Sequence[Evidence], asked_for: Sequence[Place], scale: Scale) -> Reading:
    whole = [each for each in found if None not in each.scores]
    if not whole:
        reason = Unreadable.ONE_SCORE if found else Unreadable.NO_VERDICT
        return Reading(unreadable=reason, notes=_told(found))
    best = min(whole, key=lambda each: [*asked_for, Place.LINES, Place.SENTENCE].index(each.place))
    if any(not _agree(best, each) for each in found):
        return Reading(unreadable=Unreadable.CONTRADICTION, notes=_told(found))
    scores = tuple(score for score in best.scores if score is not None)
    if not all(scale[0] <= score <= scale[1] for score in scores):
        note = f"{best.text}; expected {scale[0]:g} to {scale[1]:g}"
        return Reading(unreadable=Unreadable.OUT_OF_RANGE, notes=(note,))
    notes = () if best.place in asked_for else (f"read in {best.place.value}",)
    return Reading(scores, notes=notes, place=best.place)


def _agree(one: Evidence, other: Evidence) -> bool:
    return all(a == b or b is None for a, b in zip(one.scores, other.scores, strict=True))


def _told(found: Sequence[Evidence]) -> tuple[str, ...]:
    return tuple(each.text for each in found)


def _distinct(found: Sequence[Evidence]) -> list[Evidence]:
    return list(dict.fromkeys(found))
