"""A model with a LoRA adapter added: the base's tensors, and those that the adapter touches computed as they are read.

An adapter is what peft and ``selfee train --lora-rank`` write: a folder of ``adapter_config.json`` and
``adapter_model.safetensors``, or that file alone with ``lora_alpha`` and ``r`` in its metadata. Per matrix W (rows,
columns) it holds A (r, columns) and B (rows, r), and W + alpha / r · B·A is the trained matrix.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.gguf import GgufCheckpoint
from selfee.weights.huggingface.safetensors import open_safetensors
from selfee.weights.huggingface.stored import TensorFile
from selfee.weights.names import hf_to_gguf
from selfee.weights.printable import printable
from selfee.weights.quantize import dequantize
from selfee.weights.quants import QuantType
from selfee.weights.views import Seen, View, halves_to_neighbours

TRAINED_ON_CHAINS = "selfee.trained_on_chains"
"""Metadata key, true where a model was trained to write answer, feedback and revision by itself."""

FILE = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Adapter:
    """GGUF name of a matrix -> A (r, columns) and B (rows, r), float32, rows as Hugging Face has them."""

    path: Path
    scale: float
    pairs: Mapping[str, tuple[Floats, Floats]]
    metadata: Mapping[str, str]


def read_adapter(path: Path) -> Adapter:
    """Read an adapter, a folder or a file. Raises BadFileError, UnsupportedFileError for what is more than LoRA."""
    file = path / FILE if path.is_dir() else path
    with open_safetensors(file) as tensors:
        config = _config(path, tensors.metadata)
        metadata = dict(tensors.metadata)
        pairs: dict[str, tuple[Floats, Floats]] = {}
        for name in tensors.tensors:
            if name.endswith(_B):
                continue
            matrix = hf_to_gguf(name.removeprefix(_PREFIX).removesuffix(_A) + ".weight")
            other = name.removesuffix(_A) + _B
            if not name.endswith(_A) or matrix is None or other not in tensors.tensors:
                raise UnsupportedFileError(
                    f"{file}: tensor '{printable(name)}' is no half of a LoRA pair beside a matrix of a llama; "
                    "expected lora_A and lora_B alone"
                )
            pairs[matrix] = (_floats(tensors, name), _floats(tensors, other))
        if 2 * len(pairs) != len(tensors.tensors) or not pairs:
            raise BadFileError(
                f"{file}: {len(tensors.tensors)} tensors make up {len(pairs)} pairs; expected all in pairs"
            )
    for matrix, (down, up) in pairs.items():
        if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1] or down.shape[0] != config.rank:
            raise BadFileError(
                f"{file}: the pair of '{printable(matrix)}' has shapes {down.shape} and {up.shape}; expected "
                f"({config.rank}, columns) and (rows, {config.rank})"
            )
    return Adapter(file, config.alpha / config.rank, pairs, metadata)


def with_adapter(base: Checkpoint, adapter: Adapter) -> Adapted:
    """The trained model as a checkpoint over ``base``: what is touched is F32, the rest is the base's, byte for byte.

    It says of itself that it was trained on chains if the adapter says so. Closing it closes the base. Raises
    BadFileError where the adapter belongs to another model.
    """
    for name, (down, up) in adapter.pairs.items():
        info = base.tensors.get(name)
        shape = (up.shape[0], down.shape[1])
        if info is None or info.shape != shape:
            found = "no such tensor" if info is None else f"shape {info.shape}"
            raise BadFileError(
                f"{adapter.path}: changes '{printable(name)}' of shape {shape}, and {base.path} has {found}; expected "
                "the model that the adapter was trained beside"
            )
    return Adapted(base, adapter)


class Adapted(View):
    """See ``with_adapter``."""

    def __init__(self, base: Checkpoint, adapter: Adapter) -> None:
        self._said = {TRAINED_ON_CHAINS: True} if adapter.metadata.get(TRAINED_ON_CHAINS) == "true" else {}
        metadata = {**base.metadata, **self._said}
        super().__init__(base, [Seen(name, name) for name in base.tensors], metadata=metadata)
        self._adapter = adapter
        self._heads = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}
        self.tensors = {
            name: replace(info, type=QuantType.F32, nbytes=4 * int(np.prod(info.shape)))
            if name in adapter.pairs
            else info
            for name, info in self.tensors.items()
        }

    def metadata_as_written(self) -> dict[str, Any]:
        """See ``GgufCheckpoint.metadata_as_written``."""
        base = self.source
        return {**(base.metadata_as_written() if isinstance(base, GgufCheckpoint) else base.metadata), **self._said}

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        """See ``Checkpoint.read``; computed anew each time for what the adapter touches."""
        if name not in self._adapter.pairs:
            return super().read(name)
        info = self.source.tensors[name]
        down, up = self._adapter.pairs[name]
        # In 64 bits, so that the sums' order, which is the library's, does not reach the 32 bits that are kept.
        change = self._adapter.scale * (up.astype(np.float64) @ down.astype(np.float64))
        if (key := self._heads.get(name.split(".")[2])) is not None:
            heads = int(self.source.metadata.get(key) or self.source.metadata["llama.attention.head_count"])
            change = change[halves_to_neighbours(info.shape[0], heads)]
        values = dequantize(info.type, self.source.read(name)).reshape(info.shape) + change
        return values.astype(np.float32).view(np.uint8).reshape(info.shape[0], -1)

    def release(self, name: str, begin: int = 0, end: int | None = None) -> None:
        """See ``Checkpoint.release``."""
        if name not in self._adapter.pairs:
            super().release(name, begin, end)
        elif end is None:
            self.source.release(name)


@dataclass(frozen=True)
class _Config:
    rank: int
    alpha: float


def _config(path: Path, metadata: Mapping[str, str]) -> _Config:
    where = path / _CONFIG if path.is_dir() else path
    try:
        row: Mapping[str, Any] = json.loads((path / _CONFIG).read_bytes()) if path.is_dir() else metadata
        found = _Config(int(row["r"]), float(row["lora_alpha"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFileError(f"{where}: does not tell r and lora_alpha ({error}); expected an adapter of LoRA") from error
    if found.rank < 1 or not 0 < found.alpha < float("inf"):
        raise BadFileError(f"{where}: r is {found.rank} and lora_alpha {found.alpha}; expected positive numbers")
    if row.get("use_dora") is True or row.get("use_rslora") is True or row.get("bias") not in (None, "none"):
        raise UnsupportedFileError(f"{where}: is more than plain LoRA (DoRA, rsLoRA or biases); expected LoRA alone")
    return found


def _floats(tensors: TensorFile, name: str) -> Floats:
    stored = tensors.find(name)
    kind = stored.dtype.quant_type
    if kind not in (QuantType.F32, QuantType.F16, QuantType.BF16):
        raise UnsupportedFileError(
            f"{tensors.path}: tensor '{printable(name)}' is {stored.dtype.name}; expected F32, F16 or BF16"
        )
    return dequantize(kind, tensors.read(name)).reshape(stored.shape)
