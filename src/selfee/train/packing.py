"""Examples to arrays: several in a row of tokens, each blind to its neighbours, or one a row and padding behind it.

Packed rows need no special attention kernel: a mask says which token sees which, so every back-end is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from selfee.train.dataset import Example
from selfee.train.lessons import Part

PARTS = tuple(Part)
"""The order that numbers the parts in ``Batch.parts_BT``."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """Rows of tokens of one length (B rows, T tokens).

    ``weights_BT`` is the weight of learning each token, 0 for padding; ``segments_BT`` numbers a row's examples from 1,
    0 is padding; ``positions_BT`` begins anew with each example; ``parts_BT`` numbers ``PARTS``. What does not count
    is computed for other processes' sake.
    """

    ids_BT: Array
    weights_BT: Array
    positions_BT: Array
    segments_BT: Array
    parts_BT: Array
    counts: bool = True

    @property
    def is_packed(self) -> bool:
        """Whether a row holds several examples. If not, causal attention alone is right: padding comes last."""
        return bool((self.segments_BT > 1).any())

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return int((self.segments_BT > 0).sum())

    def without_weight(self) -> Batch:
        """The same, of which nothing is learned and nothing counted."""
        return replace(self, weights_BT=np.zeros_like(self.weights_BT), counts=False)


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Numbers of examples that share a row of ``capacity`` tokens: each is put into the fullest row that has room.

    Long ones are placed first. Every number occurs once; no example is split.
    """
    rows: list[list[int]] = []
    by_room: dict[int, list[int]] = {}  # room left -> rows
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        need = lengths[index]
        assert need <= capacity
        room = min((room for room in by_room if room >= need), default=None)
        if room is None:
            row = len(rows)
            rows.append([])
            room = capacity
        else:
            row = by_room[room].pop()
            if not by_room[room]:
                del by_room[room]
        rows[row].append(index)
        by_room.setdefault(room - need, []).append(row)
    return rows


def collate(rows: Sequence[Sequence[Example]], padding: int) -> Batch:
    """Rows of examples as arrays, padded with the token ``padding`` to the longest row."""
    width = max(sum(len(example.ids) for example in row) for row in rows)
    shape = (len(rows), width)
    ids = np.full(shape, padding, np.int64)
    weights = np.zeros(shape, np.float32)
    positions, segments, parts = (np.zeros(shape, np.int64) for _ in range(3))
    for place, row in enumerate(rows):
        at = 0
        for number, example in enumerate(row, start=1):
            here = slice(at, at + len(example.ids))
            ids[place, here] = example.ids
            weights[place, here] = example.weights
            positions[place, here] = np.arange(len(example.ids))
            segments[place, here] = number
            for span in example.spans:
                parts[place, at + span.start : at + span.end] = PARTS.index(span.part)
            at = here.stop
    return Batch(ids, weights, positions, segments, parts)


def attention_mask(segments_BT: Array) -> Array:
    """Which token (row) sees which (column): the earlier ones of its own example, and itself. Shape B, 1, T, T.

    Padding sees padding: a row of attention that sees nothing at all would be undefined.
    """
    same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
    mask_BTT: Array = same_BTT & np.tri(segments_BT.shape[1], dtype=bool)
    return mask_BTT[:, None]
