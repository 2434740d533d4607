"""A Hugging Face or Meta folder as a ``Checkpoint``: GGUF's names, keys and order of rows over the folder's tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.checkpoint import TensorInfo, Vocab
from selfee.weights.huggingface.config import HfConfig, meta_metadata, no_config, read_config
from selfee.weights.huggingface.json_file import read_json
from selfee.weights.huggingface.shards import TensorFolder, open_tensors
from selfee.weights.huggingface.stored import StoredTensor
from selfee.weights.huggingface.vocab_source import vocab_of
from selfee.weights.names import ggml_to_gguf, hf_to_gguf
from selfee.weights.printable import printable
from selfee.weights.quants import QuantType, dequantize
from selfee.weights.views import halves_to_neighbours
from selfee.weights.vocab_keys import vocab_metadata

_ROPE_FACTORS = "rope_freqs.weight"
_TYPES = {"F32": QuantType.F32, "F16": QuantType.F16, "BF16": QuantType.BF16}
_FILE_TYPES = {QuantType.F32: 0, QuantType.F16: 1, QuantType.BF16: 32}
# Tables that anybody can compute, in folders of 2023.
_DERIVED = ("rotary_emb.inv_freq", "rope.freqs")


@dataclass(frozen=True)
class _Place:
    """Where a tensor comes from: its name in the folder, and the order of its rows there (None: as they are)."""

    name: str
    order: npt.NDArray[np.intp] | None


class HfCheckpoint:
    """A folder, opened: implements ``Checkpoint``. Matrices stay mapped; those whose rows change order are copied.

    Vectors (norms, biases) are F32 whatever the folder stores, as in every GGUF file; nothing is lost by that.
    ``notes`` are what to tell whoever converts the folder.
    """

    def __init__(
        self,
        folder: TensorFolder,
        metadata: Mapping[str, Any],
        vocab: Vocab,
        places: Mapping[str, _Place],
        made: Mapping[str, npt.NDArray[np.float32]],
        notes: Sequence[str],
    ) -> None:
        self.folder = folder
        self.path: Path = folder.path
        self.size = sum(shard.stat().st_size for shard in folder.shards)
        self.container = "safetensors" if folder.shards[0].suffix == ".safetensors" else "pytorch"
        self.metadata = metadata
        self.vocab = vocab
        self.notes = notes
        self._places = places
        self._made = made
        tensors = {name: _info(name, folder.tensors[place.name]) for name, place in places.items()}
        for name, values in made.items():
            tensors[name] = TensorInfo(name, values.shape, QuantType.F32, 0, values.nbytes)
        self.tensors: Mapping[str, TensorInfo] = tensors

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        """The bytes of a tensor, shape (rows, bytes per row)."""
        if name in self._made:
            return self._made[name].view(np.uint8).reshape(1, -1)
        tensor = self.tensors.get(name)
        if tensor is None:
            raise BadFileError(f"{self.path}: has no tensor '{printable(name)}'; the model is incomplete")
        place = self._places[name]
        raw = self.folder.read(place.name)
        stored = _TYPES[self.folder.tensors[place.name].dtype.value]
        if stored is not tensor.type:
            raw = dequantize(stored, raw).view(np.uint8)
        raw = raw.reshape(prod(tensor.shape[:-1]), -1)
        return raw if place.order is None else raw[place.order]

    def release(self, name: str, begin: int = 0, end: int | None = None) -> None:
        """See ``Checkpoint.release``; a tensor's pages go back when its end is reached."""
        if name not in self._made and (end is None or end >= self.tensors[name].nbytes):
            self.folder.release(self._places[name].name)

    def verify_unchanged(self) -> None:
        """Raise BadFileError if a file was changed in place since it was opened."""
        self.folder.verify_unchanged()

    def close(self) -> None:
        """Let go of the mappings."""
        self.folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_folder(
    path: str | Path, *, vocab_from: Path | None = None, pre: str | None = None, context: int | None = None
) -> HfCheckpoint:
    """Open the folder of a Hugging Face or Meta model.

    ``vocab_from`` is another folder, or a model file, to take the tokenizer from; ``pre`` names the cuts of a
    byte-level vocabulary whose own are not known; ``context`` is the context length of a Meta folder, which does not
    store it. Raises BadFileError for what is damaged or missing, UnsupportedFileError for models that selfee does not
    run.
    """
    path = Path(path)
    has_config = (path / "config.json").exists()
    if not has_config and not (path / "params.json").exists():
        raise no_config(path)
    folder = open_tensors(path)
    try:
        is_meta = "tok_embeddings.weight" in folder.tensors
        config = _meta_config(path, folder, context) if is_meta else _hf_config(path, has_config)
        places = _places(folder, config, is_meta)
        rows = _rows(folder, places)
        tokenizer = vocab_of(vocab_from or path, rows, special_ids=config.special_ids, pre=pre)
        made = {}
        if config.scaling is not None:
            base = config.metadata[f"{config.architecture}.rope.freq_base"]
            head_dim = config.metadata[f"{config.architecture}.rope.dimension_count"]
            made[_ROPE_FACTORS] = config.scaling.factors(head_dim, base)
        metadata = _metadata(path, config, folder, places) | vocab_metadata(tokenizer.vocab)
        notes = (*config.notes, *tokenizer.notes)
        return HfCheckpoint(folder, metadata, tokenizer.vocab, places, made, notes)
    except BaseException:
        folder.close()
        raise


def _hf_config(path: Path, has_config: bool) -> HfConfig:
    if not has_config:
        raise BadFileError(
            f"{path / 'config.json'}: there is no such file; expected the model's configuration; fetch it"
        )
    return read_config(read_json(path / "config.json"))


def _meta_config(path: Path, folder: TensorFolder, context: int | None) -> HfConfig:
    params = path / "params.json"
    if not params.exists():
        raise BadFileError(f"{params}: there is no such file; expected Meta's description of the model; fetch it")
    sizes = []
    for name in ("layers.0.feed_forward.w1.weight", "tok_embeddings.weight"):
        tensor = folder.tensors.get(name)
        if tensor is None or len(tensor.shape) != 2:
            raise BadFileError(f"{path}: tensor '{name}' is missing or no matrix; the model is incomplete")
        sizes.append(tensor.shape[0])
    return meta_metadata(read_json(params), n_ff=sizes[0], n_vocab=sizes[1], context=context)


def _places(folder: TensorFolder, config: HfConfig, is_meta: bool) -> dict[str, _Place]:
    """GGUF name -> place, the embedding first, then layer by layer; names that are unknown stay what they are."""
    heads = {
        "attn_q.weight": config.metadata[f"{config.architecture}.attention.head_count"],
        "attn_k.weight": config.metadata[f"{config.architecture}.attention.head_count_kv"],
    }
    translate = ggml_to_gguf if is_meta else hf_to_gguf
    is_rotated = config.architecture == "llama" and not is_meta
    places: dict[str, _Place] = {}
    for name, tensor in folder.tensors.items():
        if name.endswith(_DERIVED) or (config.tied and name == "lm_head.weight"):
            continue
        if tensor.dtype.value not in _TYPES:
            raise UnsupportedFileError(
                f"{tensor.path}: tensor '{printable(name)}' is of type {tensor.dtype.value}; expected F32, F16 or "
                "BF16; use a model that is not quantised"
            )
        known = translate(name) or name
        count = heads.get(known.split(".", 2)[-1]) if is_rotated else None
        order = None
        if count and len(tensor.shape) == 2 and tensor.shape[0] % (2 * count) == 0:
            order = halves_to_neighbours(tensor.shape[0], count)
        places[known] = _Place(name, order)
    return dict(sorted(places.items(), key=lambda item: _rank(item[0])))


def _rank(name: str) -> tuple[int, int]:
    """Order in a file: the embedding, the layers in turn, the output."""
    parts = name.split(".")
    if parts[0] == "blk" and len(parts) > 1 and parts[1].isdigit():
        return 1, int(parts[1])
    return (0, 0) if name == "token_embd.weight" else (2, 0)


def _rows(folder: TensorFolder, places: Mapping[str, _Place]) -> int:
    place = places.get("token_embd.weight")
    shape = folder.tensors[place.name].shape if place else ()
    if len(shape) != 2:
        raise BadFileError(f"{folder.path}: has no matrix of token embeddings; expected one; the model is incomplete")
    return shape[0]


def _metadata(path: Path, config: HfConfig, folder: TensorFolder, places: Mapping[str, _Place]) -> dict[str, Any]:
    values: Counter[QuantType] = Counter()
    for place in places.values():
        tensor = folder.tensors[place.name]
        values[_TYPES[tensor.dtype.value]] += prod(tensor.shape)
    most = values.most_common(1)[0][0]
    general = {
        "general.architecture": config.architecture,
        "general.name": printable(path.resolve().name),
        "general.file_type": _FILE_TYPES[most],
        "general.quantization_version": 2,
    }
    return general | dict(config.metadata)


def _info(name: str, tensor: StoredTensor) -> TensorInfo:
    shape = tensor.shape or (1,)
    type = _TYPES[tensor.dtype.value] if len(shape) > 1 else QuantType.F32
    return TensorInfo(name, shape, type, tensor.offset, prod(shape) * type.block_bytes)
