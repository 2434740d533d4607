"""What we write, read by the gguf package: the same metadata, types, bytes and values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize as gguf_dequantize
from tests.peers.quantized import quantized
from tests.tiny import make_tiny

from selfee.weights.gguf_writer import write_gguf
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.quantizers import Generation
from selfee.weights.quantization.recipes import FileType, RuleSet
from selfee.weights.quantize import Quantizer, dequantize
from selfee.weights.quants import QuantType
from selfee.weights.writing import TensorData

WRITTEN = [type for type in QuantType if type.readable]
ROWS, COLS = 24, 512


def weights(seed: int) -> np.ndarray:
    """Rows of very different size, some of them zero, some weights zero."""
    rng = np.random.default_rng(seed)
    values = rng.standard_t(3, (ROWS, COLS)) * np.exp2(rng.integers(-10, 3, (ROWS, 1)))
    values[rng.random((ROWS, COLS)) < 0.1] = 0
    values[::7] = 0
    return values.astype(np.float32)


@pytest.mark.parametrize("generation", Generation, ids=lambda generation: generation.name)
@pytest.mark.parametrize("type", WRITTEN, ids=lambda type: type.name)
def test_a_tensor_of_every_type_is_read_as_what_we_read(
    tmp_path: Path, type: QuantType, generation: Generation
) -> None:
    values = weights(int(type))
    raw = values.view(np.uint8).reshape(-1)
    blocks = Quantizer(1).run(type, QuantType.F32, raw, ROWS, COLS, generation=generation)
    path = tmp_path / "one.gguf"
    write_gguf(path, {"general.architecture": "llama"}, [TensorData("some.weight", (ROWS, COLS), type, blocks)])
    (tensor,) = gguf.GGUFReader(path).tensors
    assert tensor.name == "some.weight"
    assert tensor.tensor_type.name == type.name
    assert tensor.shape.tolist() == [COLS, ROWS]
    stored = np.ascontiguousarray(tensor.data).view(np.uint8)
    assert stored.tobytes() == blocks.tobytes()
    theirs = gguf_dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    assert np.array_equal(theirs.reshape(-1).view(np.uint32), dequantize(type, blocks).view(np.uint32))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("peers") / "source.gguf"
    return make_tiny(path, type=QuantType.F32, n_layer=2, n_embd=256, n_vocab=300)


@pytest.mark.parametrize("rules", RuleSet, ids=lambda rules: rules.value)
@pytest.mark.parametrize("kind", FileType, ids=lambda kind: kind.name)
def test_a_file_of_every_type_is_read_whole(source: Path, tmp_path: Path, kind: FileType, rules: RuleSet) -> None:
    path = quantized(source, tmp_path / "made.gguf", kind, rules)
    reader = gguf.GGUFReader(path)
    field = reader.get_field("general.file_type")
    assert field is not None
    assert field.contents() == int(kind)
    with open_checkpoint(source) as before, open_checkpoint(path) as after:
        kept = [key for key in before.metadata if key != "general.file_type"]
        assert kept
        assert all(_equal(reader, key, before.metadata[key]) for key in kept)
        assert [tensor.name for tensor in reader.tensors] == list(before.tensors)
        for tensor in reader.tensors:
            ours = after.tensors[tensor.name]
            assert (tensor.tensor_type.name, tuple(reversed(tensor.shape.tolist()))) == (ours.type.name, ours.shape)
            assert np.ascontiguousarray(tensor.data).tobytes() == after.read(tensor.name).tobytes()


def _equal(reader: gguf.GGUFReader, key: str, value: Any) -> bool:
    field = reader.get_field(key)
    assert field is not None, key
    is_plain = isinstance(value, str | int | float | bool)
    return bool(np.array_equal(field.contents(), value if is_plain else list(value)))
