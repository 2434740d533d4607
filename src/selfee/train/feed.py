"""The order of the data: a pure function of seed and position, so that a run goes on exactly where it was."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from selfee.errors import BadFileError
from selfee.train.config import TrainConfig
from selfee.train.dataset import Dataset, Example
from selfee.train.lessons import RefusedError
from selfee.train.packing import pack


class Feed:
    """Rows of examples in an order that is drawn anew for each epoch. ``len`` is the rows of an epoch.

    Eager: all lessons are tokenised first, to refuse and pack. Lazy: a lesson that proves to be refused is passed over.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig) -> None:
        self._dataset = dataset
        self._seed = config.seed
        if config.lazy:
            self._rows = [[index] for index in range(len(dataset))]
        else:
            lengths = {index: len(example.ids) for index, example in dataset.encode_all()}
            numbers = list(lengths)
            if config.pack:
                packed = pack([lengths[index] for index in numbers], config.max_length)
                self._rows = [[numbers[place] for place in row] for row in packed]
            else:
                self._rows = [[index] for index in numbers]
        if not self._rows:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in dataset.counts.refused.most_common())
            raise BadFileError(f"training data: nothing to learn from; refused: {reasons or 'nothing, it is empty'}")

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, position: int, count: int) -> tuple[list[list[Example]], int]:
        """The next ``count`` rows from ``position`` on, and the position behind them."""
        taken: list[list[Example]] = []
        missed = 0
        while len(taken) < count:
            row = self._examples(self._order(position // len(self._rows))[position % len(self._rows)])
            position += 1
            missed = 0 if row else missed + 1
            if row:
                taken.append(row)
            elif missed > len(self._rows):
                raise BadFileError("training data: every chain is refused; run again with --no-lazy to see why")
        return taken, position

    def all(self) -> Iterator[list[Example]]:
        """Every row once, in the order of the file."""
        for row in self._rows:
            if examples := self._examples(row):
                yield examples

    def _examples(self, row: Sequence[int]) -> list[Example]:
        examples = []
        for index in row:
            try:
                examples.append(self._dataset.example(index))
            except RefusedError as error:
                self._dataset.counts.refused[str(error)] += 1
        return examples

    def _order(self, epoch: int) -> list[list[int]]:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._ordered = list(self._rows)
            random.Random(f"{self._seed}:{epoch}").shuffle(self._ordered)
        return self._ordered
