"""One table of tensor names: GGUF, GGML (Meta's names) and Hugging Face.

Meta, GGML and GGUF rotate neighbouring pairs of a head, Hugging Face rotates its two halves: whoever renames ``attn_q``
and ``attn_k`` between those two must permute their rows too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# GGUF, GGML, Hugging Face. "{}" is the number of the layer; None: the container has no such tensor.
_TABLE: list[tuple[str, str | None, str | None]] = [
    ("token_embd.weight", "tok_embeddings.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "norm.weight", "model.norm.weight"),
    ("output.weight", "output.weight", "lm_head.weight"),
    ("rope_freqs.weight", None, None),
    ("blk.{}.attn_norm.weight", "layers.{}.attention_norm.weight", "model.layers.{}.input_layernorm.weight"),
    ("blk.{}.attn_q.weight", "layers.{}.attention.wq.weight", "model.layers.{}.self_attn.q_proj.weight"),
    ("blk.{}.attn_k.weight", "layers.{}.attention.wk.weight", "model.layers.{}.self_attn.k_proj.weight"),
    ("blk.{}.attn_v.weight", "layers.{}.attention.wv.weight", "model.layers.{}.self_attn.v_proj.weight"),
    ("blk.{}.attn_output.weight", "layers.{}.attention.wo.weight", "model.layers.{}.self_attn.o_proj.weight"),
    ("blk.{}.attn_q.bias", None, "model.layers.{}.self_attn.q_proj.bias"),
    ("blk.{}.attn_k.bias", None, "model.layers.{}.self_attn.k_proj.bias"),
    ("blk.{}.attn_v.bias", None, "model.layers.{}.self_attn.v_proj.bias"),
    ("blk.{}.attn_q_norm.weight", None, "model.layers.{}.self_attn.q_norm.weight"),
    ("blk.{}.attn_k_norm.weight", None, "model.layers.{}.self_attn.k_norm.weight"),
    ("blk.{}.ffn_norm.weight", "layers.{}.ffn_norm.weight", "model.layers.{}.post_attention_layernorm.weight"),
    ("blk.{}.ffn_gate.weight", "layers.{}.feed_forward.w1.weight", "model.layers.{}.mlp.gate_proj.weight"),
    ("blk.{}.ffn_down.weight", "layers.{}.feed_forward.w2.weight", "model.layers.{}.mlp.down_proj.weight"),
    ("blk.{}.ffn_up.weight", "layers.{}.feed_forward.w3.weight", "model.layers.{}.mlp.up_proj.weight"),
]

_GGML_TO_GGUF = {ggml: gguf for gguf, ggml, _ in _TABLE if ggml}
_GGUF_TO_GGML = {gguf: ggml for gguf, ggml, _ in _TABLE if ggml}
_HF_TO_GGUF = {hf: gguf for gguf, _, hf in _TABLE if hf}
_GGUF_TO_HF = {gguf: hf for gguf, _, hf in _TABLE if hf}

# ASCII digits without leading zeros: "layers.٣." and "layers.03." are other names, not layer 3.
_LAYER = re.compile(r"(?<=\.)(0|[1-9][0-9]{0,8})(?=\.)")


def _translate(table: Mapping[str, str], name: str) -> str | None:
    layer = _LAYER.search(name)
    if layer is None:
        return None if "{}" in name else table.get(name)
    found = table.get(f"{name[: layer.start()]}{{}}{name[layer.end() :]}")
    return found and found.format(layer.group())


def ggml_to_gguf(name: str) -> str | None:
    """The GGUF name of a GGML tensor, or None if there is none: layers.0.attention.wq.weight -> blk.0.attn_q.weight."""
    return _translate(_GGML_TO_GGUF, name)


def gguf_to_ggml(name: str) -> str | None:
    """The GGML name of a GGUF tensor, or None if GGML has none."""
    return _translate(_GGUF_TO_GGML, name)


def hf_to_gguf(name: str) -> str | None:
    """The GGUF name of a tensor of a Hugging Face checkpoint, or None; q and k also need their rows permuted."""
    return _translate(_HF_TO_GGUF, name)


def gguf_to_hf(name: str) -> str | None:
    """The Hugging Face name of a GGUF tensor, or None; q and k also need their rows permuted back."""
    return _translate(_GGUF_TO_HF, name)
