"""The pieces in which cells, which are keys and values, leave a cache and enter one.

256 tokens at a time, fewer at the end, and of these all layers in turn: what is held of a longer text begins with what
is held of its beginning, up to the last whole 256 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from selfee.llama.config import LlamaConfig

CHUNK = 256
"""Tokens of a piece, as in the cache itself (native/attention.h)."""

Cells = npt.NDArray[np.uint16]
"""A piece: float16 as bits, [2, kv_heads, tokens, head_dim], keys first."""


def pieces_of(config: LlamaConfig, count: int) -> Iterator[tuple[int, int, tuple[int, int, int, int]]]:
    """Layer, first position and shape of each piece of ``count`` tokens."""
    for first in range(0, count, CHUNK):
        for layer in range(config.layers):
            yield layer, first, (2, config.kv_heads, min(CHUNK, count - first), config.head_dim)
