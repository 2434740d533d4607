"""From a model file to a smaller one: what each tensor becomes, then the file, whole or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from selfee.errors import UnsupportedFileError, UsageError
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.ggml import ALIGNMENT, FILE_TENSOR_TYPES, GgmlCheckpoint
from selfee.weights.ggml_writer import ggml_size, write_ggml
from selfee.weights.gguf import DEFAULT_ALIGNMENT, GgufCheckpoint
from selfee.weights.gguf_writer import gguf_size, write_gguf
from selfee.weights.printable import printable
from selfee.weights.quantization.quantizers import Generation
from selfee.weights.quantization.recipes import Choice, FileType, RuleSet, is_matrix
from selfee.weights.quantization.transcode import Importance, transcode
from selfee.weights.quantize import Quantizer
from selfee.weights.quants import QuantType
from selfee.weights.writing import OnBytes

_PLAIN = frozenset({QuantType.F32, QuantType.F16, QuantType.BF16})


@dataclass(frozen=True)
class Plan:
    """What a file will be: the type of every tensor, and the name of the mixture for its metadata."""

    choices: Mapping[str, Choice]
    file_type: FileType
    rules: RuleSet

    @property
    def types(self) -> dict[str, QuantType]:
        """Tensor name -> type."""
        return {name: choice.type for name, choice in self.choices.items()}

    @property
    def generation(self) -> Generation:
        """Whose quantisers the rules go with."""
        return Generation.CURRENT if self.rules is RuleSet.CURRENT else Generation.JUNE_2023


@dataclass(frozen=True)
class TypeShare:
    """The tensors of one type in the new file."""

    type: str
    tensors: int
    nbytes: int


@dataclass(frozen=True)
class Report:
    """What became of a file."""

    source: str
    target: str
    file_type: str
    rules: str
    source_bytes: int
    target_bytes: int
    bits_per_weight: float  # over all tensors
    tensors: Sequence[TypeShare]
    tensor_types: Mapping[str, str]
    notes: Sequence[str]  # what did not get the type its file type says, and why


def require_plain(checkpoint: Checkpoint, allow_requantize: bool) -> None:
    """Raise UsageError where matrices are quantised already: quantising twice loses twice."""
    done = next((t for t in checkpoint.tensors.values() if is_matrix(t) and t.type not in _PLAIN), None)
    if done is not None and not allow_requantize:
        raise UsageError(
            f"{checkpoint.path}: tensor '{printable(done.name)}' is {done.type.name} already; expected F32, F16 or "
            "BF16, since quantising twice loses twice; use the original model, or --allow-requantize"
        )


def require_readable(checkpoint: Checkpoint) -> None:
    """Raise UnsupportedFileError at the first tensor of a type that can be listed but not read: before the work."""
    odd = next((tensor for tensor in checkpoint.tensors.values() if not tensor.type.readable), None)
    if odd is not None:
        raise UnsupportedFileError(
            f"{checkpoint.path}: tensor '{printable(odd.name)}' is {odd.type.name}, which can be listed but not read; "
            "expected F32, F16, BF16, Q4_0 … Q8_0 or Q2_K … Q6_K; use the original model"
        )


def room_for_tensors(checkpoint: Checkpoint, nbytes: int) -> tuple[int, int]:
    """Of a file of ``nbytes`` the bytes left for tensors, each padded to the alignment that is returned too."""
    names = [_Sized(tensor.shape, name, tensor.type, is_empty=True) for name, tensor in checkpoint.tensors.items()]
    if isinstance(checkpoint, GgmlCheckpoint):
        return nbytes - ggml_size(checkpoint.vocab.tokens, names), ALIGNMENT
    plan = Plan({}, FileType.f16, RuleSet.CURRENT)
    alignment = int(checkpoint.metadata.get("general.alignment", DEFAULT_ALIGNMENT))
    return nbytes - gguf_size(_metadata(checkpoint, plan), names), alignment


def target_size(checkpoint: Checkpoint, plan: Plan) -> int:
    """The exact size of the file that ``write_quantized`` would write."""
    tensors = [_Sized(checkpoint.tensors[name].shape, name, type) for name, type in plan.types.items()]
    if isinstance(checkpoint, GgmlCheckpoint):
        return ggml_size(checkpoint.vocab.tokens, tensors)
    return gguf_size(_metadata(checkpoint, plan), tensors)


def write_quantized(
    checkpoint: Checkpoint,
    target: Path,
    plan: Plan,
    quantizer: Quantizer,
    *,
    importance: Importance | None = None,
    on_bytes: OnBytes | None = None,
) -> Report:
    """Write ``checkpoint`` in the types of ``plan``, in the container it has (GGML: ggjt v3, GGUF: v3).

    Raises BadFileError for weights that are not finite, UnsupportedFileError for a type the container has no place
    for; nothing is left under the final name then.
    """
    tensors = transcode(checkpoint, plan.types, quantizer=quantizer, generation=plan.generation, importance=importance)
    checkpoint.verify_unchanged()
    if isinstance(checkpoint, GgmlCheckpoint):
        _require_ggml_types(checkpoint, plan)
        scores = checkpoint.vocab.scores or [0.0] * len(checkpoint.vocab.tokens)
        hyper = replace(checkpoint.hyper, file_type=int(plan.file_type))
        write_ggml(target, hyper, checkpoint.vocab.tokens, scores, tensors, on_bytes=on_bytes)
    else:
        write_gguf(target, _metadata(checkpoint, plan), tensors, on_bytes=on_bytes)
    checkpoint.verify_unchanged()
    return report_of(checkpoint, target, plan)


def report_of(checkpoint: Checkpoint, target: Path, plan: Plan) -> Report:
    """What the file of a plan is, written or not."""
    shares: Counter[QuantType] = Counter()
    counts: Counter[QuantType] = Counter()
    values = 0
    for name, type in plan.types.items():
        count = prod(checkpoint.tensors[name].shape)
        shares[type] += count // type.block_values * type.block_bytes
        counts[type] += 1
        values += count
    return Report(
        source=str(checkpoint.path),
        target=str(target),
        file_type=plan.file_type.name,
        rules=plan.rules.value,
        source_bytes=checkpoint.size,
        target_bytes=target_size(checkpoint, plan),
        bits_per_weight=round(8 * shares.total() / values, 4) if values else 0.0,
        tensors=[TypeShare(type.name, counts[type], nbytes) for type, nbytes in shares.most_common()],
        tensor_types={name: type.name for name, type in plan.types.items()},
        notes=notes_of(plan),
    )


def notes_of(plan: Plan) -> list[str]:
    """Why tensors have other types than their file type says, one line a reason."""
    reasons: dict[tuple[QuantType, str], list[str]] = {}
    for name, choice in plan.choices.items():
        if choice.note:
            reasons.setdefault((choice.type, choice.note), []).append(name)
    return [
        f"{printable(names[0]) if len(names) == 1 else f'{len(names)} tensors'} as {type.name.lower()}: {note}"
        for (type, note), names in reasons.items()
    ]


def nearest_file_type(types: Mapping[str, QuantType], checkpoint: Checkpoint) -> FileType:
    """The file type to name a mixture that has none: the one whose base most values have."""
    values: Counter[QuantType] = Counter()
    for name, type in types.items():
        values[type] += prod(checkpoint.tensors[name].shape)
    kinds: list[FileType] = [FileType.q4_K_M, FileType.q5_K_M, FileType.q3_K_M, *FileType]
    for type, _ in values.most_common():
        if (kind := next((kind for kind in kinds if kind.base is type), None)) is not None:
            return kind
    return FileType.f16


@dataclass(frozen=True)
class _Sized:
    """A tensor of which only the size counts."""

    shape: tuple[int, ...]
    name: str
    type: QuantType
    is_empty: bool = False  # counts as its description alone

    @property
    def nbytes(self) -> int:
        return 0 if self.is_empty else prod(self.shape) // self.type.block_values * self.type.block_bytes


def _metadata(checkpoint: Checkpoint, plan: Plan) -> dict[str, Any]:
    """The source's metadata, and what is different now."""
    kept = checkpoint.metadata_as_written() if isinstance(checkpoint, GgufCheckpoint) else dict(checkpoint.metadata)
    return kept | {
        "general.quantization_version": np.uint32(2),
        "general.file_type": np.uint32(plan.file_type),
        "selfee.quantize.rules": plan.rules.value,
    }


def _require_ggml_types(checkpoint: Checkpoint, plan: Plan) -> None:
    for name, type in plan.types.items():
        if type not in FILE_TENSOR_TYPES:
            raise UnsupportedFileError(
                f"{checkpoint.path}: tensor '{printable(name)}' as {type.name}: GGML files have no place for it; "
                "convert the model to GGUF first: selfee convert"
            )
