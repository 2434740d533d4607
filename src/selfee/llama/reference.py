"""The forward pass in NumPy: what ``native/forward.cpp`` means, in the same steps and the same order.

Weights are de-quantised to float32 and activations stay float32, so quantised models differ from the native pass by the
rounding of activations to 8 bits (tests/llama/test_model.py says how much). Shapes: T tokens, D width, H heads,
K heads of keys, P positions, E head_dim, F hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from selfee.llama.cells import CacheType, cell_type
from selfee.llama.config import LlamaConfig
from selfee.llama.rope import rotate
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.quantize import dequantize
from selfee.weights.quants import QuantType

Floats = npt.NDArray[np.float32]


class ReferenceSession:
    """A conversation on the slow twin; the same face as ``selfee.llama.model.Session``."""

    def __init__(self, checkpoint: Checkpoint, cache_type: CacheType = "f16") -> None:
        self.config = LlamaConfig.from_checkpoint(checkpoint)
        self._stored = _in_bytes if cell_type(cache_type, self.config) is QuantType.Q8_0 else _in_halves
        self._weights = {
            name: dequantize(tensor.type, checkpoint.read(name)).reshape(tensor.shape)
            for name, tensor in checkpoint.tensors.items()
        }
        empty = np.zeros((0, self.config.kv_heads, self.config.head_dim), dtype=np.float32)
        self._keys = [empty] * self.config.layers  # a layer's keys and values: [P, K, E], as the native cache has them
        self._values = [empty] * self.config.layers
        self.squares: dict[str, npt.NDArray[np.float64]] = {}
        """By matrix: sums of the squares of its inputs over all tokens evaluated (the head: of those with logits)."""

    @property
    def length(self) -> int:
        return len(self._keys[0])

    def truncate(self, length: int) -> None:
        self._keys = [keys[:length] for keys in self._keys]
        self._values = [values[:length] for values in self._values]

    def forward(self, tokens: Sequence[int], logits_for: str | int = "last") -> Floats:
        weights, config = self._weights, self.config
        positions = self.length + np.arange(len(tokens))
        x_TD = weights["token_embd.weight"][np.asarray(tokens)]
        for layer in range(config.layers):
            block = f"blk.{layer}."
            x_TD = x_TD + self._attention(layer, self._norm(x_TD, weights[block + "attn_norm.weight"]), positions)
            x_TD = x_TD + self._feed_forward(block, self._norm(x_TD, weights[block + "ffn_norm.weight"]))
        rows = {"all": len(tokens), "last": 1}[logits_for] if isinstance(logits_for, str) else logits_for
        wanted = x_TD[len(tokens) - rows :]
        head = "token_embd.weight" if config.tied else "output.weight"  # [V, D]
        return self._multiply(head, self._norm(wanted, weights["output_norm.weight"]))

    def _multiply(self, name: str, x: Floats) -> Floats:
        self.squares[name] = self.squares.get(name, 0) + np.square(x, dtype=np.float64).sum(axis=0)
        y: Floats = x @ self._weights[name].T
        return y

    def _norm(self, x: Floats, weight: Floats) -> Floats:
        mean = np.mean(np.square(x).astype(np.float64), axis=-1, keepdims=True).astype(np.float32)
        normed: Floats = x * (np.float32(1) / np.sqrt(mean + np.float32(self.config.norm_epsilon))) * weight
        return normed

    def _attention(self, layer: int, x_TD: Floats, positions: npt.NDArray[np.int64]) -> Floats:
        parts = (f"blk.{layer}.attn_{letter}" for letter in "qkv")
        q_THE, k_TKE, v_TKE = (self._heads(part, x_TD, positions) for part in parts)
        keys = self._keys[layer] = np.concatenate([self._keys[layer], self._stored(k_TKE)])
        values = self._values[layer] = np.concatenate([self._values[layer], self._stored(v_TKE)])
        group = self.config.heads // self.config.kv_heads  # heads of queries that share a head of keys
        k_each, v_each = (np.repeat(cached, group, axis=1) for cached in (keys, values))  # [P, H, E]
        scores_THP = np.einsum("the,phe->thp", q_THE, k_each) / np.float32(np.sqrt(self.config.head_dim))
        visible_TP = np.arange(len(keys)) <= positions[:, None]
        scores_THP = np.where(visible_TP[:, None], scores_THP, np.float32(-np.inf))
        weights_THP = np.exp(scores_THP - scores_THP.max(axis=-1, keepdims=True))
        weights_THP /= weights_THP.sum(axis=-1, keepdims=True)
        mixed_THE = np.einsum("thp,phe->the", weights_THP, v_each)
        return self._multiply(f"blk.{layer}.attn_output.weight", mixed_THE.reshape(len(x_TD), -1))

    def _heads(self, part: str, x_TD: Floats, positions: npt.NDArray[np.int64]) -> Floats:
        x = self._multiply(f"{part}.weight", x_TD)
        if f"{part}.bias" in self._weights:
            x = x + self._weights[f"{part}.bias"]
        x = x.reshape(len(x_TD), -1, self.config.head_dim)
        if f"{part}_norm.weight" in self._weights:
            x = self._norm(x, self._weights[f"{part}_norm.weight"])
        if part.endswith("attn_v"):
            return x
        return rotate(x, positions, self.config.rope_frequencies, self.config.rope_halves)

    def _feed_forward(self, block: str, x_TD: Floats) -> Floats:
        gate_TF = self._multiply(block + "ffn_gate.weight", x_TD)
        up_TF = self._multiply(block + "ffn_up.weight", x_TD)
        silu_TF = gate_TF / (1 + np.exp(-gate_TF))
        return self._multiply(block + "ffn_down.weight", silu_TF * up_TF)


def _in_halves(x: Floats) -> Floats:
    """What is left of values that were stored as float16."""
    return x.astype(np.float16).astype(np.float32)


def _in_bytes(x: Floats) -> Floats:
    """What is left of values that were stored in 8 bits: as Q8_0, but rounded to nearest even, as activations are."""
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    scale = _in_halves(largest / np.float32(127))
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=scale > 0)
    stored: Floats = np.rint(blocks * inverse) * scale
    return stored.reshape(x.shape)
