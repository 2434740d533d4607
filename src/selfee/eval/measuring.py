"""One model file measured on one text: everything that a line of results says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selfee import __version__
from selfee.eval.base import Base, require_same_text
from selfee.eval.chunks import Chunks, Definition, Text, cut, tokenizer_of
from selfee.eval.divergence import Divergence, Spread, compare
from selfee.eval.logits_file import writing
from selfee.eval.models import FileIdentity, open_measured
from selfee.eval.perplexity import Evaluator, perplexity
from selfee.eval.results import Key, Quality
from selfee.eval.speed import decode_speed
from selfee.llama.cells import CacheType
from selfee.llama.config import LlamaConfig
from selfee.weights.open import open_checkpoint
from selfee.weights.quantize import isa


@dataclass(frozen=True)
class Settings:
    """How to measure."""

    n_ctx: int = 512
    limit: int | None = None  # chunks at most
    definition: Definition = Definition.CURRENT
    threads: int | None = None
    speed: bool = False  # also generate, and say how fast
    cache_type: CacheType = "f16"  # what keys and values are stored as; a base always has f16


@dataclass(frozen=True)
class NamedBase:
    """A base and the file it was opened from."""

    base: Base
    name: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, base: Base, path: Path) -> NamedBase:
        """The base that was opened from ``path``."""
        status = path.stat()
        return cls(base, path.name, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Prepared:
    """What a file will be measured on, and the context it was trained with (tokens)."""

    chunks: Chunks
    trained_context: int


def prepare(path: Path, text: Text, settings: Settings, base: NamedBase | None = None) -> Prepared:
    """The chunks a file will be measured on; reads no weights.

    Raises UsageError for a text too short, or one that the base has in other tokens.
    """
    limit = settings.limit
    if base is not None:
        limit = min(limit or len(base.base.tokens), len(base.base.tokens))
    with open_checkpoint(path) as checkpoint:
        trained = LlamaConfig.from_checkpoint(checkpoint).context_length
        chunks = cut(
            text, tokenizer_of(checkpoint.vocab, settings.definition), settings.n_ctx, limit, settings.definition
        )
    if base is not None:
        require_same_text(base.base, chunks, path.name, base.name)
    return Prepared(chunks, trained)


def key_of(identity: FileIdentity, text: Text, settings: Settings, chunks: Chunks, base: NamedBase | None) -> Key:
    """What ``Quality.key`` of the measurement will be."""
    named = None if base is None else (base.name, base.size, base.mtime_ns)
    definition = settings.definition.value
    return identity.sha256, text.sha256, definition, settings.n_ctx, len(chunks), named, settings.cache_type


def measure(
    path: Path,
    text: Text,
    chunks: Chunks,
    settings: Settings,
    *,
    identity: FileIdentity,
    base: NamedBase | None = None,
    save_logits: Path | None = None,
    on_chunk: Callable[[int, float], None] | None = None,
) -> Quality:
    """Measure a model file on ``chunks`` (of ``prepare``), against ``base`` where there is one.

    ``on_chunk`` is told the chunks done and the perplexity (with a base: the mean divergence) so far. ``save_logits``
    also writes the log-probabilities, as a base for later; not together with ``base``. Raises as opening a model does,
    and BadFileError where it computes no numbers.
    """
    with open_measured(path, settings.n_ctx, settings.threads, settings.cache_type) as measured:
        model = measured.model
        evaluator = Evaluator(model.new_session(), model.config.vocabulary, str(path))
        found: dict[str, Any]
        if base is not None:
            divergence = compare(evaluator, base.base, chunks, on_chunk)
            found = _fields(divergence, base)
        else:
            saved = writing(save_logits, chunks, model.config.vocabulary) if save_logits else nullcontext()
            with saved as writer:
                estimate = perplexity(evaluator, chunks, on_chunk, writer.add if writer else None)
            found = {"ppl": estimate.value, "ppl_error": estimate.error}
        return Quality(
            file=identity.name,
            size=identity.size,
            mtime_ns=identity.mtime_ns,
            sha256=identity.sha256,
            bits_per_weight=round(measured.bits_per_weight, 4),
            text=text.name,
            text_sha256=text.sha256,
            definition=settings.definition.value,
            n_ctx=settings.n_ctx,
            chunks=len(chunks),
            positions=len(chunks) * chunks.scored,
            cache_type=settings.cache_type,
            tokens_per_second=round(evaluator.tokens_per_second, 2),
            decode_tokens_per_second=round(decode_speed(model), 2) if settings.speed else None,
            threads=model.threads,
            instruction_set=isa(),
            selfee=__version__,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            **found,
        )


def _fields(found: Divergence, base: NamedBase) -> dict[str, Any]:
    """A divergence as the fields of a result."""
    estimates = {
        "ppl": found.ppl,
        "base_ppl": found.base_ppl,
        "ppl_difference": found.ppl_difference,
        "ln_ratio": found.ln_ratio,
        "dp_rms": found.dp_rms,
        "same_top": found.same_top,
    }
    fields: dict[str, Any] = {"base": base.name, "base_size": base.size, "base_mtime_ns": base.mtime_ns}
    fields["correlation"] = found.correlation
    for name, estimate in estimates.items():
        fields |= {name: estimate.value, f"{name}_error": estimate.error}
    return fields | _spread("kld", found.kld) | _spread("dp", found.dp)


def _spread(name: str, spread: Spread) -> dict[str, Any]:
    return {
        f"{name}_mean": spread.mean.value,
        f"{name}_error": spread.mean.error,
        f"{name}_max": spread.max,
        f"{name}_min": spread.min,
        f"{name}_percentiles": spread.percentiles,
    }
