"""A file quantised as ``selfee quantize`` does it, without starting a process."""

from __future__ import annotations

from pathlib import Path

from selfee.weights.open import open_checkpoint
from selfee.weights.quantize import Quantizer
from selfee.weights.quantize_file import Plan, write_quantized
from selfee.weights.recipes import FileType, ModelFacts, Recipe, RuleSet, choose_types


def quantized(source: Path, target: Path, kind: FileType, rules: RuleSet = RuleSet.CURRENT) -> Path:
    """Write ``source`` as ``kind`` to ``target`` and return it."""
    with open_checkpoint(source) as checkpoint:
        facts = ModelFacts.of(checkpoint.metadata, checkpoint.tensors)
        choices = choose_types(checkpoint.tensors.values(), Recipe(kind, rules), facts)
        write_quantized(checkpoint, target, Plan(choices, kind, rules), Quantizer(2))
    return target
