"""What a model file is, in a form to print: the substance of ``selfee inspect``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np

from selfee.errors import BadFileError
from selfee.weights.architecture import Dimensions, check_architecture, read_dimensions
from selfee.weights.checkpoint import Checkpoint, Vocab
from selfee.weights.mapped import StringArray
from selfee.weights.vocab import NO_VOCAB

_BATCH = 512  # tokens whose intermediate values are held at once
_SHORT = 16  # arrays up to this length are shown
_KINDS = {"llama": "SentencePiece-style BPE", "gpt2": "byte-level BPE", NO_VOCAB: "none"}


@dataclass(frozen=True)
class TypeRow:
    """The tensors of one type."""

    type: str
    tensors: int
    values: int
    bytes: int


@dataclass(frozen=True)
class SpecialToken:
    """A token with a role; ``text`` is as stored."""

    role: str
    id: int
    text: str


@dataclass(frozen=True)
class VocabSummary:
    """Kind and size of the vocabulary."""

    kind: str
    model: str
    pre: str
    size: int
    merges: int
    special: tuple[SpecialToken, ...]
    add_bos: bool
    add_space_prefix: bool


@dataclass(frozen=True)
class Memory:
    """Bytes a run will need: the file itself, the F16 key/value cache of ``context`` tokens, intermediate values."""

    context: int
    weights: int
    kv_cache: int
    scratch: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.scratch


@dataclass(frozen=True)
class Summary:
    """A model file described. Texts are as in the file: pass them through ``printable`` before showing them."""

    path: str
    file_bytes: int
    container: str
    architecture: str
    name: str
    parameters: int
    bits_per_weight: float
    dimensions: Dimensions | None  # None where the model cannot be run; ``warnings`` says why
    memory: Memory | None
    vocab: VocabSummary
    tensors: tuple[TypeRow, ...]  # the largest share first
    chat_template: str | None
    metadata: Mapping[str, Any]  # long arrays as "<array of 49152 texts>"
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The summary as plain dicts, lists, texts and numbers."""
        found: dict[str, Any] = asdict(self)
        if self.memory:
            found["memory"]["total"] = self.memory.total
        return found


def summarize(checkpoint: Checkpoint, context: int | None = None) -> Summary:
    """Describe an open model; works for every architecture and tensor type that can be listed.

    ``context`` is the number of tokens to plan memory for (default: all that the model was trained for).
    """
    rows = _types(checkpoint)
    values = sum(row.values for row in rows)
    stored = sum(row.bytes for row in rows)
    dimensions, warnings = _runnable(checkpoint)
    return Summary(
        path=str(checkpoint.path),
        file_bytes=checkpoint.size,
        container=checkpoint.container,
        architecture=_text(checkpoint, "general.architecture"),
        name=_text(checkpoint, "general.name"),
        parameters=values,
        bits_per_weight=round(8 * stored / values, 4) if values else 0.0,
        dimensions=dimensions,
        memory=plan_memory(dimensions, checkpoint.size, context) if dimensions else None,
        vocab=_vocab(checkpoint.vocab),
        tensors=rows,
        chat_template=checkpoint.vocab.chat_template,
        metadata={key: _plain(value) for key, value in checkpoint.metadata.items()},
        warnings=(*warnings, *_vocab_warnings(checkpoint)),
    )


def plan_memory(dimensions: Dimensions, weights: int, context: int | None = None) -> Memory:
    """Bytes needed to run a model of these sizes whose file has ``weights`` bytes."""
    context = context or dimensions.n_ctx
    keys_and_values = 2 * dimensions.n_layer * dimensions.n_head_kv * dimensions.head_dim
    wide = 4 * dimensions.n_embd + 3 * dimensions.n_ff + 2 * dimensions.n_head * dimensions.head_dim
    batch = min(_BATCH, context)
    return Memory(
        context=context,
        weights=weights,
        kv_cache=2 * keys_and_values * context,
        scratch=4 * (batch * wide + dimensions.n_vocab + dimensions.n_head * context),
    )


def _runnable(checkpoint: Checkpoint) -> tuple[Dimensions | None, list[str]]:
    try:
        check_architecture(checkpoint)
    except BadFileError as error:
        return None, [f"cannot be run: {str(error).removeprefix(f'{checkpoint.path}: ')}"]
    return read_dimensions(checkpoint), []


def _types(checkpoint: Checkpoint) -> tuple[TypeRow, ...]:
    tensors: Counter[str] = Counter()
    values: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        tensors[tensor.type.name] += 1
        values[tensor.type.name] += prod(tensor.shape)
        stored[tensor.type.name] += tensor.nbytes
    return tuple(TypeRow(name, tensors[name], values[name], size) for name, size in stored.most_common())


def _vocab(vocab: Vocab) -> VocabSummary:
    roles = ("bos", "eos", "eot", "unknown", "padding")
    special = [
        SpecialToken(role, index, vocab.tokens[index].decode("utf-8", errors="replace"))
        for role in roles
        if (index := getattr(vocab, role)) is not None
    ]
    return VocabSummary(
        kind=_KINDS.get(vocab.model, "of a kind that selfee does not read"),
        model=vocab.model,
        pre=vocab.pre,
        size=len(vocab.tokens),
        merges=len(vocab.merges),
        special=tuple(special),
        add_bos=vocab.add_bos,
        add_space_prefix=vocab.add_space_prefix,
    )


def _vocab_warnings(checkpoint: Checkpoint) -> list[str]:
    vocab = checkpoint.vocab
    warnings = []
    if vocab.model not in _KINDS:
        warnings.append(f"the vocabulary is of kind '{vocab.model}', which selfee does not read")
    elif not vocab.tokens:
        warnings.append("there is no vocabulary: texts cannot be read or written")
    if vocab.model == "llama" and vocab.tokens and vocab.scores is None:
        warnings.append("the tokens have no scores: texts cannot be cut into tokens as the model was trained")
    if vocab.eos is None and vocab.tokens:
        warnings.append("there is no end-of-text token: an answer ends only at its limit")
    if vocab.model == "gpt2" and "tokenizer.ggml.pre" not in checkpoint.metadata:
        warnings.append("the way to cut text before merging is not named; 'default' is taken")
    # In GGML files equal pieces are normal: a character may be there as a byte and as itself.
    repeated = 0 if vocab.raw_pieces else len(vocab.tokens) - len(set(vocab.tokens))
    if repeated:
        warnings.append(f"{repeated} tokens have the text of another one; the last of equals is used")
    return warnings


def _text(checkpoint: Checkpoint, key: str) -> str:
    value = checkpoint.metadata.get(key, "")
    return value if isinstance(value, str) else ""


def _plain(value: Any) -> Any:
    if isinstance(value, StringArray):
        return f"<array of {len(value)} texts>" if len(value) > _SHORT else list(value)
    if isinstance(value, np.ndarray):
        if value.size > _SHORT:
            return f"<array of {value.size} numbers>"
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it
    return value
