"""A model as a Hugging Face folder: names, order of rows, and the small files beside the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from selfee.errors import UnsupportedFileError
from selfee.weights.architecture import read_dimensions
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.huggingface.config import config_json
from selfee.weights.huggingface.tokenizer_writer import json_bytes, tokenizer_files
from selfee.weights.names import gguf_to_hf
from selfee.weights.printable import printable
from selfee.weights.quants import QuantType, dequantize
from selfee.weights.views import Seen, View, neighbours_to_halves

_ROPE_FACTORS = "rope_freqs.weight"
_DTYPES = {QuantType.F32: "float32", QuantType.F16: "float16", QuantType.BF16: "bfloat16"}


def hf_view(model: Checkpoint) -> View:
    """The model's tensors under Hugging Face's names, q and k of a llama with the halves of its heads apart."""
    sizes = read_dimensions(model)
    heads = {"attn_q.weight": sizes.n_head, "attn_k.weight": sizes.n_head_kv} if sizes.architecture == "llama" else {}
    seen = []
    for name, tensor in model.tensors.items():
        if name == _ROPE_FACTORS:
            continue  # config.json says how they are computed
        hf_name = gguf_to_hf(name)
        if hf_name is None:
            raise UnsupportedFileError(
                f"{model.path}: tensor '{printable(name)}' has no name in a Hugging Face folder; convert to GGUF "
                "instead"
            )
        count = heads.get(name.split(".", 2)[-1])
        seen.append(Seen(hf_name, name, neighbours_to_halves(tensor.shape[0], count) if count else None))
    return View(model, seen)


def narrow_vectors(view: View, types: Mapping[str, QuantType]) -> tuple[dict[str, QuantType], QuantType]:
    """Types in which vectors have the matrices' type where that loses nothing, as is usual; and that type."""
    values: Counter[QuantType] = Counter()
    for name, tensor in view.tensors.items():
        if len(tensor.shape) > 1:
            values[types[name]] += prod(tensor.shape)
    main = values.most_common(1)[0][0]
    found = dict(types)
    for name, tensor in view.tensors.items():
        if len(tensor.shape) == 1:
            exact = dequantize(tensor.type, view.read(name))
            found[name] = main if _survives(exact, main) else QuantType.F32
    return found, main


def _survives(values: np.ndarray[Any, np.dtype[np.float32]], type: QuantType) -> bool:
    if type is QuantType.F16:
        with np.errstate(over="ignore", invalid="ignore"):
            return bool((values.astype(np.float16).astype(np.float32) == values).all())
    if type is QuantType.BF16:
        return not bool((values.view(np.uint32) & 0xFFFF).any())
    return True


def hf_files(model: Checkpoint, dtype: QuantType) -> dict[str, bytes]:
    """config.json, generation_config.json and the tokenizer's files. Raises UnsupportedFileError where the model's
    vocabulary or rope factors have no form there.
    """
    vocab = model.vocab
    sizes = read_dimensions(model)
    factors = None
    if _ROPE_FACTORS in model.tensors:
        factors = dequantize(model.tensors[_ROPE_FACTORS].type, model.read(_ROPE_FACTORS))
    ends = [token for token in dict.fromkeys((vocab.eos, vocab.eot)) if token is not None]
    ids: dict[str, Any] = {"bos_token_id": vocab.bos, "eos_token_id": vocab.eos, "pad_token_id": vocab.padding}
    config = config_json(
        {**model.metadata, f"{sizes.architecture}.vocab_size": sizes.n_vocab},
        dtype=_DTYPES[dtype],
        tied="output.weight" not in model.tensors,
        factors=factors,
        where=str(model.path),
    )
    known = {key: value for key, value in ids.items() if value is not None}
    generation = {"_from_model_config": True, **known}
    if len(ends) > 1:
        generation["eos_token_id"] = ends
    return {
        "config.json": json_bytes({**config, **known}),
        "generation_config.json": json_bytes(generation),
        **tokenizer_files(str(model.path), vocab, sizes.n_ctx),
    }
