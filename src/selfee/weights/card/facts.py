"""What a model card says of one file: read from the file itself, or measured, and never filled in by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.card.compatibility import readers_of, use_of
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.mapped import StringArray
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.mixture import Mixture, describe_mixture
from selfee.weights.summary import Summary, TypeRow, summarize

OnBytes = Callable[[int], None]

_PART = 1 << 20  # bytes hashed together
_MOST_TEXTS = 64  # tags or languages, and the characters of one
_TOLD = ("general.", "quantize.", "selfee.")
_UNTOLD = frozenset(
    f"general.{name}" for name in ("architecture", "file_type", "quantization_version", "alignment", "type")
)
"""Keys of these families tell where a file comes from; these of them do not."""


@dataclass(frozen=True)
class MemoryFigure:
    """Memory needed to run a file with ``context`` tokens, in bytes."""

    context: int
    total: int
    measured: bool  # of a process that ran it; else computed: weights + cache + working memory, without a program
    weights: int | None = None  # of it, pages of the model file
    own: int | None = None  # of it, what the system cannot drop: cache, scratch, interpreter
    note: str = ""  # why it was not measured


@dataclass(frozen=True)
class QualityFigure:
    """How far a file is from its base on one text; ``setting`` names text and settings, equal where comparable."""

    setting: str
    ppl: float
    ppl_error: float | None = None
    base: str | None = None
    ppl_difference: float | None = None
    ppl_difference_error: float | None = None
    kld: float | None = None  # mean, in nats
    kld_99: float | None = None  # exceeded at one position of a hundred
    same_top: float | None = None  # 0 to 1


@dataclass(frozen=True)
class FileFacts:
    """Everything about one model file that a card may say; texts are as in the file."""

    file: str  # name without folder
    size: int
    sha256: str
    container: str
    architecture: str
    name: str  # general.name; GGML files have none
    parameters: int
    layers: int | None
    vocabulary: int
    trained_context: int | None
    bits_per_weight: float
    mixture: Mixture
    types: tuple[TypeRow, ...]
    runs_here: bool
    why_not: str  # "" where selfee runs it
    use: str
    readers: tuple[str, ...]
    told: Mapping[str, str]  # where it comes from: keys and values
    tags: tuple[str, ...]
    languages: tuple[str, ...]
    chat_template: str | None
    trained_on_chains: bool
    memory: MemoryFigure | None
    quality: tuple[QualityFigure, ...] = field(default_factory=tuple)

    @property
    def is_gguf(self) -> bool:
        """Whether today's programs read the container."""
        return self.container.startswith("gguf")

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values; a number that is not finite, for which JSON has no word, is None."""
        found = asdict(self)
        for figure in found["quality"]:
            figure |= {key: None for key, value in figure.items() if isinstance(value, float) and not isfinite(value)}
        return found


def read_facts(path: str | Path, context: int, on_bytes: OnBytes | None = None) -> FileFacts:
    """Open, describe and hash one model file; memory is computed, quality empty.

    ``context`` tokens are planned for, at most those the model was trained with. ``on_bytes`` hears how many bytes more
    were hashed. Raises BadFileError for a damaged file, UnsupportedFileError for one that is no whole model.
    """
    with open_checkpoint(path) as checkpoint:
        _require_model(checkpoint)
        mixture = describe_mixture(checkpoint)
        summary = summarize(checkpoint)
        planned = min(context, summary.dimensions.n_ctx) if summary.dimensions else context
        facts = _facts(checkpoint, summarize(checkpoint, planned), mixture)
        return replace(facts, sha256=sha256_of(Path(path), on_bytes))


def _require_model(checkpoint: Checkpoint) -> None:
    """GGUF also holds what is no model: adapters, importance matrices, vocabularies, parts."""
    kind = checkpoint.metadata.get("general.type", "model")
    parts = checkpoint.metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise UnsupportedFileError(
            f"{checkpoint.path}: is one of {parts} parts of a model; join them first (llama-gguf-split --merge)"
        )
    if kind != "model" or not checkpoint.tensors:
        what = f"general.type '{kind}'" if kind != "model" else "a vocabulary without weights"
        raise UnsupportedFileError(f"{checkpoint.path}: is {what[:60]}; expected a model; it is left out")


def _facts(checkpoint: Checkpoint, summary: Summary, mixture: Mixture) -> FileFacts:
    sizes, memory = summary.dimensions, summary.memory
    is_gguf = checkpoint.container.startswith("gguf")
    why_not = next((text for text in summary.warnings if text.startswith("cannot be run")), "")
    return FileFacts(
        file=checkpoint.path.name,
        size=checkpoint.size,
        sha256="",
        container=checkpoint.container,
        architecture=summary.architecture,
        name=summary.name if is_gguf else "",
        parameters=summary.parameters,
        layers=sizes.n_layer if sizes else None,
        vocabulary=len(checkpoint.vocab.tokens),
        trained_context=sizes.n_ctx if sizes and is_gguf else None,
        bits_per_weight=summary.bits_per_weight,
        mixture=mixture,
        types=summary.tensors,
        runs_here=sizes is not None,
        why_not=why_not,
        use=use_of(mixture),
        readers=readers_of(checkpoint, mixture, runs_here=sizes is not None),
        told=_told(checkpoint.metadata) if is_gguf else {},
        tags=_texts(checkpoint.metadata.get("general.tags")),
        languages=_texts(checkpoint.metadata.get("general.languages")),
        chat_template=checkpoint.vocab.chat_template,
        trained_on_chains=checkpoint.metadata.get("selfee.trained_on_chains") is True,
        memory=MemoryFigure(memory.context, memory.total, measured=False) if memory else None,
    )


def sha256_of(path: Path, on_bytes: OnBytes | None = None) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(_PART):
                digest.update(part)
                if on_bytes is not None:
                    on_bytes(len(part))
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read ({error.strerror}); check the disk") from error
    return digest.hexdigest()


def _told(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The keys that say where a file comes from, as texts."""
    return {
        key: str(value)
        for key, value in metadata.items()
        if key.startswith(_TOLD)
        and key not in _UNTOLD
        and isinstance(value, str | int | float)
        and not (isinstance(value, str) and not value.strip())
    }


def _texts(value: object) -> tuple[str, ...]:
    return (
        tuple(text for text in value[:_MOST_TEXTS] if len(text) <= _MOST_TEXTS)
        if isinstance(value, StringArray)
        else ()
    )
