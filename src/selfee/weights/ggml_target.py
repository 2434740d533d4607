"""A model as a GGML file (ggjt v3): what its seven numbers and its vocabulary can say, and what they cannot.

GGML files hold LLaMA models and nothing else: no rope base, no norm epsilon, no tied output, no width of the
feed-forward layer. A model that needs one of them to be computed rightly is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfee.errors import UnsupportedFileError
from selfee.weights.architecture import Dimensions, read_dimensions
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.ggml import CONTEXT_LENGTH, RMS_EPSILON, Hyper, feed_forward_length
from selfee.weights.views import Seen

_LAYER = ("attn_q", "attn_k", "attn_v", "attn_output", "attn_norm", "ffn_gate", "ffn_down", "ffn_up", "ffn_norm")
_USUAL_MULTIPLES = (256, 4096)
_FACTOR_70B = 1.3


@dataclass(frozen=True)
class GgmlTarget:
    """The numbers at the head of the file, its tensors in the order of 2023, and what gets lost."""

    hyper: Hyper
    seen: tuple[Seen, ...]
    notes: tuple[str, ...]


def ggml_target(checkpoint: Checkpoint, file_type: int) -> GgmlTarget:
    """Describe a model as GGML files do. Raises UnsupportedFileError where they would describe another one."""
    model = read_dimensions(checkpoint)
    _refuse(checkpoint, model)
    hyper = Hyper(
        n_vocab=model.n_vocab,
        n_embd=model.n_embd,
        n_mult=_multiple(checkpoint, model),
        n_head=model.n_head,
        n_layer=model.n_layer,
        n_rot=model.head_dim,
        file_type=file_type,
    )
    notes = []
    if abs(model.norm_epsilon - RMS_EPSILON) > 1e-9:
        notes.append(
            f"the norm's epsilon, {float(np.float32(model.norm_epsilon)):g}, is lost: programs for GGML files take "
            f"{RMS_EPSILON:g} unless told otherwise"
        )
    if model.n_ctx != CONTEXT_LENGTH:
        notes.append(
            f"the context length, {model.n_ctx} tokens, is lost: {CONTEXT_LENGTH} are taken unless told otherwise"
        )
    if model.n_head_kv != model.n_head:
        notes.append(f"programs of 2023 have to be told how heads are shared: -gqa {model.n_head // model.n_head_kv}")
    if checkpoint.vocab.chat_template is not None:
        notes.append("the chat template is lost")
    if "output.weight" not in checkpoint.tensors:
        notes.append("the output matrix, which is the embedding, is stored a second time")
    return GgmlTarget(hyper, tuple(_order(checkpoint, model)), tuple(notes))


def _order(checkpoint: Checkpoint, model: Dimensions) -> list[Seen]:
    output = "output.weight" if "output.weight" in checkpoint.tensors else "token_embd.weight"
    seen = [Seen(name, name) for name in ("token_embd.weight", "output_norm.weight")] + [Seen("output.weight", output)]
    for layer in range(model.n_layer):
        seen += [Seen(f"blk.{layer}.{name}.weight", f"blk.{layer}.{name}.weight") for name in _LAYER]
    return seen


def _refuse(checkpoint: Checkpoint, model: Dimensions) -> None:
    metadata: Mapping[str, Any] = checkpoint.metadata
    found = None
    if model.architecture != "llama":
        found = f"is of architecture {model.architecture}"
    elif model.head_dim * model.n_head != model.n_embd:
        found = f"has heads of {model.head_dim}, not of {model.n_embd} / {model.n_head}"
    elif model.rope_base != 10000.0:
        found = f"turns positions from base {model.rope_base:g}, not 10000"
    elif (
        "rope_freqs.weight" in checkpoint.tensors
        or metadata.get("llama.rope.scaling.type", "none") != "none"
        or "llama.rope.scale_linear" in metadata
    ):
        found = "scales positions"
    if found:
        raise UnsupportedFileError(
            f"{checkpoint.path}: {found}; GGML files cannot say so and hold plain LLaMA models; convert to GGUF instead"
        )


def _multiple(checkpoint: Checkpoint, model: Dimensions) -> int:
    """The n_mult from which readers compute this model's feed-forward width; 256 where that does it, as in LLaMA."""
    is_70b = model.n_layer == 80 and model.n_head_kv * 8 == model.n_head
    factor = _FACTOR_70B if is_70b else 1.0
    for multiple in (*_USUAL_MULTIPLES, *_divisors(model.n_ff)):
        if feed_forward_length(model.n_embd, multiple, factor) == model.n_ff:
            return multiple
    least = feed_forward_length(model.n_embd, 1, factor)
    raise UnsupportedFileError(
        f"{checkpoint.path}: the feed-forward layer is {model.n_ff} wide (n_ff); GGML files compute it from n_embd "
        f"{model.n_embd} and make it at least {least}; convert to GGUF instead"
    )


def _divisors(number: int) -> list[int]:
    small = [divisor for divisor in range(1, int(number**0.5) + 1) if number % divisor == 0]
    return sorted({*small, *(number // divisor for divisor in small)})
