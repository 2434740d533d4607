"""A built-in model that is another one with an adapter is made once, of verified parts."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tests.tiny import make_tiny

from selfee.errors import BadFileError
from selfee.weights.adapter import TRAINED_ON_CHAINS
from selfee.weights.fetch import adapted
from selfee.weights.fetch.builtin import BUILTIN_MODELS, BuiltinModel, WheelMember, WithAdapter, wheel_of
from selfee.weights.fetch.package_index import IndexConfig
from selfee.weights.fetch.store import ModelStore, StoreConfig
from selfee.weights.huggingface.safetensors import TensorSource, write_safetensors
from selfee.weights.huggingface.stored import DType
from selfee.weights.open import open_checkpoint

NAME = "base_model.model.model.layers.0.mlp.up_proj"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensor(name: str, shape: tuple[int, ...], raw: npt.NDArray[np.uint8]) -> TensorSource:
    return TensorSource(name, shape, DType.F16, lambda: [raw])


def write_adapter(path: Path, base: Path) -> None:
    with open_checkpoint(base) as model:
        rows, columns = model.tensors["blk.0.ffn_up.weight"].shape
    tensors = []
    for half, shape in (("lora_A", (2, columns)), ("lora_B", (rows, 2))):
        raw = np.frombuffer(np.full(shape, 0.25, np.float16).tobytes(), np.uint8)
        tensors.append(tensor(f"{NAME}.{half}.weight", shape, raw))
    write_safetensors(path, tensors, {"r": "2", "lora_alpha": "4", TRAINED_ON_CHAINS: "true"})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """A store with the models "tiny", out of a wheel, and "tuned", which is made of it."""
    file, wheels, adapters = tmp_path / "tiny.gguf", tmp_path / "wheels", tmp_path / "adapters"
    wheels.mkdir()
    adapters.mkdir()
    make_tiny(file)
    wheel = wheels / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, "tiny_model/tiny.gguf")
    member = WheelMember("tiny-model", "1.0", wheel.name, sha256(wheel), wheel.stat().st_size, "tiny_model/tiny.gguf")
    size = file.stat().st_size
    base = BuiltinModel("tiny", "Tiny", member, "tiny.gguf", sha256(file), size, "MIT", "turns", "small", 0.0)
    write_adapter(adapters / "tuned.safetensors", file)
    source = WithAdapter("tiny", "tuned.safetensors", sha256(adapters / "tuned.safetensors"), "f16")
    tuned = BuiltinModel("tuned", "Tuned", source, "tuned.gguf", "", size, "MIT", "single-pass", "", 0.0)
    monkeypatch.setitem(BUILTIN_MODELS, "tiny", base)
    monkeypatch.setitem(BUILTIN_MODELS, "tuned", tuned)
    monkeypatch.setattr(adapted, "ADAPTERS", adapters)
    index = IndexConfig(no_index=True, find_links=(str(wheels),), use_pip=False)
    return ModelStore(StoreConfig(tmp_path / "store", index))


def test_it_is_made_of_its_base_and_says_what_it_was_trained_on(store: ModelStore) -> None:
    path = store.resolve("tuned")
    base = store.resolve("tiny")
    with open_checkpoint(path) as model, open_checkpoint(base) as before:
        assert model.metadata[TRAINED_ON_CHAINS] is True
        assert model.tensors.keys() == before.tensors.keys()
        assert not np.array_equal(model.read("blk.0.ffn_up.weight"), before.read("blk.0.ffn_up.weight"))


def test_it_is_made_once_and_again_only_where_it_is_damaged(store: ModelStore) -> None:
    path = store.resolve("tuned")
    content, born = path.read_bytes(), path.stat().st_mtime_ns
    assert store.resolve("tuned") == path
    assert path.stat().st_mtime_ns == born
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    stored = store.pull(BUILTIN_MODELS["tuned"])
    assert stored.path.read_bytes() == content
    assert stored.is_verified


def test_an_adapter_that_is_not_the_shipped_one_is_refused(store: ModelStore) -> None:
    damaged = Path(str(adapted.ADAPTERS)) / "tuned.safetensors"
    damaged.write_bytes(damaged.read_bytes() + b"\0")
    with pytest.raises(BadFileError, match="install selfee again"):
        store.resolve("tuned")


def test_a_made_model_comes_from_the_wheel_of_its_base(store: ModelStore) -> None:
    assert wheel_of(BUILTIN_MODELS["tuned"]) == BUILTIN_MODELS["tiny"].source
