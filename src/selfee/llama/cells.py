"""The pieces in which cells, which are keys and values, leave a cache and enter one, and what a cell is stored as.

256 tokens at a time, fewer at the end, and of these all layers in turn: what is held of a longer text begins with what
is held of its beginning, up to the last whole 256 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from selfee.errors import UsageError
from selfee.llama.config import LlamaConfig
from selfee.weights.quants import QuantType

CHUNK = 256
"""Tokens of a piece, as in the cache itself (native/cache.h)."""

Cells = npt.NDArray[np.uint16]
"""A piece in words of 16 bits, [2, kv_heads, tokens, words of a row], keys first. A row is a head's values of one
token: float16 as bits, or blocks of Q8_0, 17 words each."""

CacheType = Literal["f16", "q8_0"]
"""What keys and values are stored as: float16, or 8 bits and a float16 scale for each 32 values of a head."""

_TYPES: dict[CacheType, QuantType] = {"f16": QuantType.F16, "q8_0": QuantType.Q8_0}


def cell_type(cache_type: CacheType, config: LlamaConfig) -> QuantType:
    """The type of the cells. Raises UsageError for one that does not exist, or that the model's heads do not fit."""
    kind = _TYPES.get(cache_type)
    if kind is None:
        raise UsageError(f"cache_type: {cache_type!r:.80}; expected {' or '.join(get_args(CacheType))}")
    if config.head_dim % kind.block_values:
        raise UsageError(
            f"cache_type: {cache_type} for heads of {config.head_dim} values; expected a multiple of "
            f"{kind.block_values}; use f16 with this model"
        )
    return kind


def cache_type_of(number: int) -> CacheType | None:
    """The cache type of a session file's number, which is that of the QuantType; None for one that is not known."""
    return next((name for name, kind in _TYPES.items() if kind == number), None)


def pieces_of(
    config: LlamaConfig, count: int, cache_type: CacheType = "f16"
) -> Iterator[tuple[int, int, tuple[int, int, int, int]]]:
    """Layer, first position and shape of each piece of ``count`` tokens."""
    kind = cell_type(cache_type, config)
    words = config.head_dim // kind.block_values * kind.block_bytes // 2
    for first in range(0, count, CHUNK):
        for layer in range(config.layers):
            yield layer, first, (2, config.kv_heads, min(CHUNK, count - first), words)
