"""From one container to another: a Checkpoint becomes a GGUF file, a GGML file or a Hugging Face folder.

First a plan is made from names, shapes and metadata alone, and whatever stands against it is said; then the tensors
are written one after another. Tensors whose type stays are copied byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from selfee.errors import UnsupportedFileError, UsageError
from selfee.weights.adapter import Adapted
from selfee.weights.architecture import check_architecture
from selfee.weights.checkpoint import Checkpoint, Vocab
from selfee.weights.ggml import FILE_TENSOR_TYPES
from selfee.weights.ggml_target import ggml_target
from selfee.weights.ggml_writer import ggml_size, write_ggml
from selfee.weights.gguf import GgufCheckpoint
from selfee.weights.gguf_writer import gguf_size, write_gguf
from selfee.weights.huggingface.safetensors import TensorSource
from selfee.weights.huggingface.shard_writer import MAX_SHARD_BYTES, write_shards
from selfee.weights.huggingface.stored import DType
from selfee.weights.huggingface.target import hf_files, hf_view, narrow_vectors
from selfee.weights.printable import printable
from selfee.weights.quantization.quantize_file import Plan, nearest_file_type, notes_of, require_plain
from selfee.weights.quantization.quantizers import Generation
from selfee.weights.quantization.recipes import ModelFacts, Recipe, RuleSet, choose_types, file_type
from selfee.weights.quantization.transcode import transcode
from selfee.weights.quantize import Quantizer
from selfee.weights.quants import QuantType
from selfee.weights.views import Seen, View
from selfee.weights.vocab_keys import raw_pieces, require_distinct, vocab_metadata, written_vocab
from selfee.weights.writing import OnBytes, TensorStream

_PLAIN = frozenset({QuantType.F32, QuantType.F16, QuantType.BF16})
_PART = 1 << 24  # bytes copied in one go


class Format(Enum):
    """What may be written."""

    GGUF = "gguf"
    GGML = "ggml"
    SAFETENSORS = "safetensors"


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert."""

    type: str = "keep"  # "keep", or a file type such as f16 or q4_K_M
    rules: RuleSet = RuleSet.CURRENT
    vocab: Vocab | None = None  # instead of the source's own
    epsilon: float | None = None  # of the norms; for GGML files, which do not store it
    context: int | None = None  # tokens; the same
    allow_requantize: bool = False
    max_shard_bytes: int = MAX_SHARD_BYTES
    force: bool = False  # replace a folder that is there; a file is replaced anyway, whole


@dataclass(frozen=True)
class Conversion:
    """A plan: ``nbytes`` of tensors, ``file_bytes`` in all (None for a folder); ``types`` counts tensors by type."""

    format: Format
    nbytes: int
    file_bytes: int | None
    types: Mapping[str, int]
    file_type: str
    notes: Sequence[str]
    copied: int  # tensors that stay what they are, byte for byte
    _write: Callable[[Path, OnBytes | None], None] = field(repr=False)

    def write(self, target: Path, on_bytes: OnBytes | None = None) -> None:
        """Write it: whole or not at all. Raises BadFileError for weights that are not finite."""
        self._write(target, on_bytes)


def plan_conversion(source: Checkpoint, format: Format, options: ConvertOptions, *, quantizer: Quantizer) -> Conversion:
    """What it takes to write ``source`` in another form; only metadata and small vectors are read.

    Raises UnsupportedFileError for a model that selfee does not run or the form cannot hold, UsageError for a type
    that it does not have.
    """
    model = _adapted(source, options)
    check_architecture(model)
    make = {Format.GGUF: _to_gguf, Format.GGML: _to_ggml, Format.SAFETENSORS: _to_safetensors}[format]
    return make(source, model, options, quantizer)


def _adapted(source: Checkpoint, options: ConvertOptions) -> Checkpoint:
    """The source with what the options say instead of it."""
    changes: dict[str, Any] = {}
    is_ggml = source.container.startswith(("ggml", "ggmf", "ggjt"))
    for option, key, value in (
        ("--eps", "llama.attention.layer_norm_rms_epsilon", options.epsilon),
        ("--context", "llama.context_length", options.context),
    ):
        if value is not None and not is_ggml:
            raise UsageError(f"{option}: {source.path} stores its own; expected a GGML file, which does not")
        if value is not None:
            changes[key] = value
    vocab = options.vocab
    if vocab is None and is_ggml:
        vocab = written_vocab(source.vocab)
    if vocab is None:
        return source
    if vocab.tokens:
        require_distinct(source.path, vocab)
    metadata = {key: value for key, value in source.metadata.items() if not key.startswith("tokenizer.")}
    metadata |= changes | vocab_metadata(vocab)
    return View(source, [Seen(name, name) for name in source.tensors], metadata=metadata, vocab=vocab)


@dataclass(frozen=True)
class _Chosen:
    types: dict[str, QuantType]
    file_type: int
    name: str
    generation: Generation
    notes: list[str]


def _choose(model: Checkpoint, options: ConvertOptions) -> _Chosen:
    """The type of every tensor."""
    if options.type == "keep":
        types = {name: tensor.type for name, tensor in model.tensors.items()}
        nearest = nearest_file_type(types, model)
        stated = model.metadata.get("general.file_type")
        number = stated if type(stated) is int and 0 <= stated < 1 << 31 else int(nearest)
        return _Chosen(types, number, nearest.name, Generation.CURRENT, [])
    kind = file_type(options.type)
    if kind.base not in _PLAIN:
        require_plain(model, options.allow_requantize)
    facts = ModelFacts.of(model.metadata, model.tensors)
    choices = choose_types(model.tensors.values(), Recipe(kind, options.rules), facts)
    plan = Plan(choices, kind, options.rules)
    return _Chosen(plan.types, int(kind), kind.name, plan.generation, notes_of(plan))


def _streams(view: Checkpoint, chosen: _Chosen, quantizer: Quantizer) -> list[TensorStream]:
    """The tensors ready to be written."""
    return transcode(view, chosen.types, quantizer=quantizer, generation=chosen.generation)


def _conversion(
    format: Format,
    view: Checkpoint,
    chosen: _Chosen,
    streams: Sequence[TensorStream],
    write: Callable[[Path, OnBytes | None], None],
    *,
    file_bytes: int | None,
    notes: Sequence[str],
) -> Conversion:
    def checked(target: Path, on_bytes: OnBytes | None) -> None:
        view.verify_unchanged()
        write(target, on_bytes)
        view.verify_unchanged()

    counts = Counter(stream.type.name for stream in streams)
    return Conversion(
        format=format,
        nbytes=sum(stream.nbytes for stream in streams),
        file_bytes=file_bytes,
        types=dict(counts.most_common()),
        file_type=chosen.name,
        notes=[*getattr(view, "notes", ()), *notes, *chosen.notes],
        copied=sum(stream.type is view.tensors[stream.name].type for stream in streams),
        _write=checked,
    )


def _to_gguf(source: Checkpoint, model: Checkpoint, options: ConvertOptions, quantizer: Quantizer) -> Conversion:
    chosen = _choose(model, options)
    streams = _streams(model, chosen, quantizer)
    if isinstance(source, GgufCheckpoint | Adapted):
        metadata = source.metadata_as_written()
        if model is not source:
            metadata = {key: value for key, value in metadata.items() if not key.startswith("tokenizer.")}
            metadata |= vocab_metadata(model.vocab)
    else:
        metadata = dict(model.metadata)
    if options.type != "keep" or "general.file_type" not in metadata:
        metadata["general.file_type"] = np.uint32(chosen.file_type)
    metadata.setdefault("general.quantization_version", np.uint32(2))

    def write(target: Path, on_bytes: OnBytes | None) -> None:
        write_gguf(target, metadata, streams, on_bytes=on_bytes)

    size = gguf_size(metadata, streams)
    return _conversion(Format.GGUF, model, chosen, streams, write, file_bytes=size, notes=[])


def _to_ggml(source: Checkpoint, model: Checkpoint, options: ConvertOptions, quantizer: Quantizer) -> Conversion:
    # A GGML file's own pieces, unless it is one of the first, which have no scores.
    has_own = options.vocab is None and source.vocab.raw_pieces and source.vocab.scores is not None
    tokens, scores = raw_pieces(str(source.path), source.vocab if has_own else model.vocab)
    chosen = _choose(model, options)
    target = ggml_target(model, chosen.file_type)
    view = View(model, target.seen)
    types = {item.name: chosen.types[item.source] for item in target.seen}
    for name, type in types.items():
        if len(view.tensors[name].shape) == 1:
            types[name] = QuantType.F32  # as programs of 2023 expect it
        elif type not in FILE_TENSOR_TYPES:
            raise UnsupportedFileError(
                f"{source.path}: tensor '{printable(name)}' is {type.name}; GGML files have no such type; add --type "
                "f16, f32 or a quantised type"
            )
    streams = _streams(view, _Chosen(types, chosen.file_type, chosen.name, chosen.generation, chosen.notes), quantizer)

    def write(path: Path, on_bytes: OnBytes | None) -> None:
        write_ggml(path, target.hyper, tokens, scores, streams, on_bytes=on_bytes)

    size = ggml_size(tokens, streams)
    return _conversion(Format.GGML, view, chosen, streams, write, file_bytes=size, notes=target.notes)


def _to_safetensors(source: Checkpoint, model: Checkpoint, options: ConvertOptions, quantizer: Quantizer) -> Conversion:
    view = hf_view(model)
    chosen = _choose(model, options)
    types = {view.source_of(name): name for name in view.tensors}
    notes = []
    wanted = {types[name]: type for name, type in chosen.types.items() if name in types}
    if options.type == "keep" and not _PLAIN.issuperset(wanted.values()):
        wanted = {name: type if type in _PLAIN else QuantType.F16 for name, type in wanted.items()}
        notes.append("quantised tensors become F16 (--type f32 keeps every bit of their values)")
    elif not _PLAIN.issuperset(wanted.values()):
        raise UsageError(f"--type {options.type}: a Hugging Face folder holds f32, f16 or bf16; choose one of them")
    wanted, dtype = narrow_vectors(view, wanted)
    plain = _Chosen(wanted, chosen.file_type, dtype.name.lower(), chosen.generation, [])
    streams = _streams(view, plain, quantizer)
    small_files = hf_files(model, dtype)
    sources = [TensorSource(item.name, item.shape, DType[item.type.name], item.parts) for item in streams]

    def write(folder: Path, on_bytes: OnBytes | None) -> None:
        write_shards(
            folder,
            sources,
            max_shard_bytes=options.max_shard_bytes,
            small_files=small_files,
            force=options.force,
            on_bytes=on_bytes,
        )

    return _conversion(Format.SAFETENSORS, view, plain, streams, write, file_bytes=None, notes=notes)
