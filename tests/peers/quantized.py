"""A file quantised as ``selfee quantize`` does it, without starting a process."""

from __future__ import annotations

from pathlib import Path

from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.quantize_file import Plan, write_quantized
from selfee.weights.quantization.recipes import FileType, ModelFacts, Recipe, RuleSet, choose_types
from selfee.weights.quantization.transcode import Importance
from selfee.weights.quantize import Quantizer


def quantized(
    source: Path,
    target: Path,
    kind: FileType,
    rules: RuleSet = RuleSet.CURRENT,
    importance: Importance | None = None,
) -> Path:
    """Write ``source`` as ``kind`` to ``target`` and return it."""
    with open_checkpoint(source) as checkpoint:
        facts = ModelFacts.of(checkpoint.metadata, checkpoint.tensors)
        recipe = Recipe(kind, rules, has_importance=importance is not None)
        choices = choose_types(checkpoint.tensors.values(), recipe, facts)
        write_quantized(checkpoint, target, Plan(choices, kind, rules), Quantizer(2), importance=importance)
    return target
