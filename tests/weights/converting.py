"""One call to convert a model in a test, and how to compare two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfee.weights.checkpoint import Checkpoint, Vocab
from selfee.weights.convert import Conversion, ConvertOptions, Format, plan_conversion
from selfee.weights.open import open_checkpoint
from selfee.weights.quantize import Quantizer

ENDINGS = {".gguf": Format.GGUF, ".bin": Format.GGML}


def converted(source: Path, target: Path, **options: Any) -> Path:
    """Convert and return ``target``, whose ending says the form."""
    convert(source, target, **options)
    return target


def convert(source: Path, target: Path, **options: Any) -> Conversion:
    """Convert; returns the plan that was carried out."""
    with open_checkpoint(source) as checkpoint:
        format = ENDINGS.get(target.suffix, Format.SAFETENSORS)
        plan = plan_conversion(checkpoint, format, ConvertOptions(**options), quantizer=Quantizer(1))
        plan.write(target)
    return plan


def assert_same_tensors(left: Checkpoint, right: Checkpoint) -> None:
    """Names, shapes, types and bytes."""
    assert set(left.tensors) == set(right.tensors)
    for name, tensor in left.tensors.items():
        other = right.tensors[name]
        assert (tensor.shape, tensor.type) == (other.shape, other.type), name
        assert left.read(name).tobytes() == right.read(name).tobytes(), name


def vocab_as_plain(vocab: Vocab) -> dict[str, Any]:
    """A vocabulary to be compared."""
    plain = {name: getattr(vocab, name) for name in vocab.__dataclass_fields__}
    lists = {"tokens", "scores", "types", "merges"}
    return {name: list(value) if name in lists and value is not None else value for name, value in plain.items()}
