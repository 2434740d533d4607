"""How large a model file will be, to the byte, from shapes alone: before there is a tensor, or a vocabulary.

Writers know the size of what they are about to write (``ggml_size``, ``gguf_size``); this is for a model that is not
here: its hyper-parameters and a file type say the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from selfee.weights.ggml import Hyper, feed_forward_length
from selfee.weights.ggml_writer import ggml_size
from selfee.weights.quants import QuantType
from selfee.weights.writing import Sized

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class TensorPlan:
    """A tensor without its bytes; ``shape`` is rows first."""

    name: str
    shape: tuple[int, ...]
    type: QuantType

    @property
    def nbytes(self) -> int:
        """Bytes in the file, without padding."""
        return prod(self.shape) // self.type.block_values * self.type.block_bytes


def ggml_file_size(tensors: Sequence[Sized], *, vocabulary_bytes: int, family: str = "ggjt") -> int:
    """Bytes of a GGML file (``ggjt`` by default) that holds these tensors in this order.

    ``vocabulary_bytes`` is the length of the vocabulary's section, see ``vocabulary_section``; LLaMA's 32,000 tokens
    take 432,574 bytes.
    """
    piece = bytes(vocabulary_bytes - vocabulary_section([b""], family=family))
    return ggml_size([piece], tensors, family=family)


def vocabulary_section(tokens: Iterable[bytes], *, family: str = "ggjt") -> int:
    """Bytes that these pieces take in a GGML file: a length, the piece, and a score (unversioned ``ggml``: none)."""
    return sum((4 if family == "ggml" else 8) + len(token) for token in tokens)


def llama_shapes(hyper: Hyper, *, heads_kv: int | None = None, hidden: int | None = None) -> Shapes:
    """The tensors of a LLaMA model by GGUF name, rows first.

    In the order in which the converter of 2023 wrote them: padding, and with it the size of a file, depends on it.
    ``heads_kv`` are the heads of keys and values (None: as many as of queries), ``hidden`` the width of the
    feed-forward layer (None: what ``n_mult`` says).
    """
    kv_width = hyper.n_embd // hyper.n_head * (heads_kv or hyper.n_head)
    return dict(_llama_shapes(hyper.n_embd, hidden or feed_forward_length(hyper.n_embd, hyper.n_mult), kv_width, hyper))


def _llama_shapes(width: int, hidden: int, kv_width: int, hyper: Hyper) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (hyper.n_vocab, width)
    yield "output_norm.weight", (width,)
    yield "output.weight", (hyper.n_vocab, width)
    for layer in range(hyper.n_layer):
        block = f"blk.{layer}."
        for name, rows in (("attn_q", width), ("attn_k", kv_width), ("attn_v", kv_width), ("attn_output", width)):
            yield f"{block}{name}.weight", (rows, width)
        yield f"{block}attn_norm.weight", (width,)
        yield f"{block}ffn_gate.weight", (hidden, width)
        yield f"{block}ffn_down.weight", (width, hidden)
        yield f"{block}ffn_up.weight", (hidden, width)
        yield f"{block}ffn_norm.weight", (width,)
