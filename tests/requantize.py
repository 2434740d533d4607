"""A GGML file quantised by the NumPy twins as llama.cpp of June 2023 (commit 2d43387) did it: a second way there."""

from __future__ import annotations

from pathlib import Path

from selfee.weights.ggml import Hyper
from selfee.weights.ggml_writer import write_ggml
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.quantizers import quantize
from selfee.weights.quantization.recipes import ModelFacts, Recipe, RuleSet, choose_types, file_type
from selfee.weights.quants import dequantize
from selfee.weights.writing import TensorData


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
            file_type=int(file_type(name)),
        )
        recipe = Recipe(file_type(name), RuleSet.JUNE_6)
        choices = choose_types(checkpoint.tensors.values(), recipe, ModelFacts(hyper.n_layer))
        tensors = []
        for tensor in checkpoint.tensors.values():
            values = dequantize(tensor.type, checkpoint.read(tensor.name))
            type = choices[tensor.name].type
            tensors.append(TensorData(tensor.name, tensor.shape, type, quantize(type, values)))
        write_ggml(target, hyper, checkpoint.vocab.tokens, checkpoint.vocab.scores or [], tensors)
    return target
