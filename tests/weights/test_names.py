"""Tensor names in three dialects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.weights.names import ggml_to_gguf, gguf_to_ggml, gguf_to_hf, hf_to_gguf


@given(layer=st.integers(0, 10**6))
def test_names_translate_back_to_themselves(layer: int) -> None:
    for name in (
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "attn_norm",
        "ffn_gate",
        "ffn_down",
        "ffn_up",
        "ffn_norm",
    ):
        gguf = f"blk.{layer}.{name}.weight"
        assert ggml_to_gguf(gguf_to_ggml(gguf) or "") == gguf
        assert hf_to_gguf(gguf_to_hf(gguf) or "") == gguf


@pytest.mark.parametrize(
    ("ggml", "gguf", "hf"),
    [
        ("tok_embeddings.weight", "token_embd.weight", "model.embed_tokens.weight"),
        ("norm.weight", "output_norm.weight", "model.norm.weight"),
        ("output.weight", "output.weight", "lm_head.weight"),
        ("layers.7.attention.wo.weight", "blk.7.attn_output.weight", "model.layers.7.self_attn.o_proj.weight"),
        ("layers.12.feed_forward.w2.weight", "blk.12.ffn_down.weight", "model.layers.12.mlp.down_proj.weight"),
    ],
)
def test_known_names(ggml: str, gguf: str, hf: str) -> None:
    assert ggml_to_gguf(ggml) == gguf == hf_to_gguf(hf)
    assert gguf_to_ggml(gguf) == ggml
    assert gguf_to_hf(gguf) == hf


NO_NAMES = """
layers.0.attention.wq.bias  layers.03.attention.wq.weight  layers.٣.attention.wq.weight  layers.{}.ffn_norm.weight
layers..ffn_norm.weight  layers.1.2.ffn_norm.weight  layers.9999999999.ffn_norm.weight  layers.-1.ffn_norm.weight
"""


@pytest.mark.parametrize("name", ["", *NO_NAMES.split()])
def test_what_is_no_name_of_a_tensor_has_no_translation(name: str) -> None:
    assert ggml_to_gguf(name) is None


def test_biases_exist_in_gguf_and_hugging_face_alone() -> None:
    assert gguf_to_hf("blk.1.attn_q.bias") == "model.layers.1.self_attn.q_proj.bias"
    assert gguf_to_ggml("blk.1.attn_q.bias") is None
