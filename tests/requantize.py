"""A GGML file quantised as llama.cpp of June 2023 (commit 2d43387) did it, to compare with what that one computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selfee.weights.checkpoint import TensorInfo
from selfee.weights.ggml import Hyper
from selfee.weights.ggml_writer import write_ggml
from selfee.weights.gguf_writer import TensorData
from selfee.weights.open import open_checkpoint
from selfee.weights.quantizers import quantize
from selfee.weights.quants import QuantType, dequantize

FILE_TYPES = {
    "q4_0": 2,
    "q4_1": 3,
    "q8_0": 7,
    "q5_0": 8,
    "q5_1": 9,
    "q2_K": 10,
    "q3_K_S": 11,
    "q3_K_M": 12,
    "q3_K_L": 13,
    "q4_K_S": 14,
    "q4_K_M": 15,
    "q5_K_S": 16,
    "q5_K_M": 17,
    "q6_K": 18,
}

Q2, Q3, Q4, Q5, Q6 = (QuantType[f"Q{bits}_K"] for bits in range(2, 7))
# File type -> base, wv and w2, wo; Q6_K in q4_K_M and q5_K_M is for the layers that ``_needs_more`` names.
_MIXES = {
    "q2_K": (Q2, Q4, Q4),
    "q3_K_S": (Q3, Q3, Q3),
    "q3_K_M": (Q3, Q4, Q4),
    "q3_K_L": (Q3, Q5, Q5),
    "q4_K_S": (Q4, Q4, Q4),
    "q4_K_M": (Q4, Q6, Q4),
    "q5_K_S": (Q5, Q5, Q5),
    "q5_K_M": (Q5, Q6, Q5),
    "q6_K": (Q6, Q6, Q6),
}


def _needs_more(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def mix_2023(name: str, layers: int) -> Callable[[TensorInfo], QuantType]:
    """Which tensor of a file of that type gets which type: "q4_0" ... "q6_K"."""
    base, more, output = _MIXES.get(name) or (QuantType[name.upper()],) * 3

    def choose(tensor: TensorInfo) -> QuantType:
        if len(tensor.shape) == 1:
            return tensor.type
        if tensor.name.endswith(("attn_v.weight", "ffn_down.weight")):
            is_half = name in ("q4_K_M", "q5_K_M")
            return more if not is_half or _needs_more(int(tensor.name.split(".")[1]), layers) else base
        return output if tensor.name.endswith("attn_output.weight") else base

    return choose


def requantize(source: Path, target: Path, name: str) -> Path:
    """Write ``source`` (GGML in F32 or F16) as a ggjt v3 file of type ``name`` and return its path."""
    with open_checkpoint(source) as checkpoint:
        keys = checkpoint.metadata
        hyper = Hyper(
            n_vocab=keys["llama.vocab_size"],
            n_embd=keys["llama.embedding_length"],
            n_mult=256,
            n_head=keys["llama.attention.head_count"],
            n_layer=keys["llama.block_count"],
            n_rot=keys["llama.rope.dimension_count"],
            file_type=FILE_TYPES[name],
        )
        choose = mix_2023(name, hyper.n_layer)
        tensors = []
        for tensor in checkpoint.tensors.values():
            values = dequantize(tensor.type, checkpoint.read(tensor.name))
            tensors.append(TensorData(tensor.name, tensor.shape, choose(tensor), quantize(choose(tensor), values)))
        write_ggml(target, hyper, checkpoint.vocab.tokens, checkpoint.vocab.scores or [], tensors)
    return target
