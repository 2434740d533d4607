"""What flows into each weight matrix: sums of squares by column, which importance matrices are made of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from selfee.llama.config import LlamaConfig


class InputSquares:
    """Sums of the squares of every matrix's inputs, over the tokens evaluated with it (``Session.forward``).

    They are added in double precision, token after token, so that any number of threads gives the same bits. After an
    interrupted evaluation they hold part of a token's layers: throw them away.
    """

    def __init__(self, config: LlamaConfig) -> None:
        self._inputs = list(_inputs(config))
        self.sums = np.zeros(sum(columns for _, columns in self._inputs), dtype=np.float64)
        """Those of all matrices one after another, in the order of the forward pass (native/forward.h)."""

    def clear(self) -> None:
        """Begin again at zero."""
        self.sums[:] = 0

    def by_tensor(self) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
        """Each weight matrix's name and its sums [columns]; matrices with a common input have the same.

        The output matrix counts every token evaluated. A model whose output matrix is its embedding has none here:
        importance matrices do not name it.
        """
        start = 0
        for names, columns in self._inputs:
            for name in names:
                yield name, self.sums[start : start + columns]
            start += columns


def _inputs(config: LlamaConfig) -> Iterator[tuple[tuple[str, ...], int]]:
    """Which tensors share an input, and its columns."""
    for layer in range(config.layers):
        for parts, columns in (
            (("attn_q", "attn_k", "attn_v"), config.width),
            (("attn_output",), config.q_width),
            (("ffn_gate", "ffn_up"), config.width),
            (("ffn_down",), config.hidden),
        ):
            yield tuple(f"blk.{layer}.{part}.weight" for part in parts), columns
    yield () if config.tied else ("output.weight",), config.width
