"""How a model lies on disk: containers, block types, names, downloads. Never knows how a model computes.

``open_checkpoint`` opens a GGUF or GGML file, ``check_architecture`` says whether it can be run, ``summarize``
describes it, ``dequantize`` gives the values of its blocks, ``ModelStore`` brings models here by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.weights.architecture import check_architecture as check_architecture
    from selfee.weights.checkpoint import Checkpoint as Checkpoint
    from selfee.weights.checkpoint import TensorInfo as TensorInfo
    from selfee.weights.checkpoint import Vocab as Vocab
    from selfee.weights.fetch.store import ModelStore as ModelStore
    from selfee.weights.open import open_checkpoint as open_checkpoint
    from selfee.weights.quantize import dequantize as dequantize
    from selfee.weights.quants import QuantType as QuantType
    from selfee.weights.summary import summarize as summarize

__all__ = [
    "Checkpoint",
    "ModelStore",
    "QuantType",
    "TensorInfo",
    "Vocab",
    "check_architecture",
    "dequantize",
    "open_checkpoint",
    "summarize",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Checkpoint": "selfee.weights.checkpoint",
        "ModelStore": "selfee.weights.fetch.store",
        "QuantType": "selfee.weights.quants",
        "TensorInfo": "selfee.weights.checkpoint",
        "Vocab": "selfee.weights.checkpoint",
        "check_architecture": "selfee.weights.architecture",
        "dequantize": "selfee.weights.quantize",
        "open_checkpoint": "selfee.weights.open",
        "summarize": "selfee.weights.summary",
    },
)
