"""One teacher or several: which of them a row is asked of, by weight and by the row alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from selfee.data.sample import Sample
from selfee.engines.paid.journalled import JournalledEngine
from selfee.errors import UsageError


@dataclass(frozen=True)
class Teacher:
    """An engine and its share of the rows."""

    engine: JournalledEngine
    weight: float = 1.0


class Teachers:
    """Chooses a teacher for each row. Raises UsageError for no teacher, or weights that are no shares."""

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        if not teachers or not all(teacher.weight >= 0 for teacher in teachers):
            raise UsageError("teachers: expected at least one, each with a weight of 0 or more")
        self.all = tuple(teachers)
        self._bounds = list(accumulate(teacher.weight for teacher in teachers))
        if self._bounds[-1] <= 0:
            raise UsageError("teachers: all weights are 0; expected one above 0")

    @property
    def digest(self) -> list[list[object]]:
        """Names and weights: what the choice depends on."""
        return [[teacher.engine.model, teacher.weight] for teacher in self.all]

    def of(self, sample: Sample, seed: int) -> Teacher:
        """The teacher of a row: the same in every run, every order and every shard."""
        digest = hashlib.blake2b(f"{seed}/{sample.id}/teacher".encode("utf-8", "replace"), digest_size=8).digest()
        point = int.from_bytes(digest, "big") / 2.0**64 * self._bounds[-1]
        return next(t for t, bound in zip(self.all, self._bounds) if point < bound)


def split_weight(text: str) -> tuple[str, float]:
    """``"0.7*https://host/v1#model"`` -> the engine and its weight; without a weight, 1."""
    weight, star, spec = text.partition("*")
    if not star:
        return text, 1.0
    try:
        return spec, float(weight)
    except ValueError:
        return text, 1.0  # a star of the name's own
