"""A fingerprint changes with everything that a cache depends on, and with nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import CHATML, make_tiny
from tests.tiny_hf import make_tiny_hf

from selfee.errors import BadFileError
from selfee.llama import fingerprint as module
from selfee.llama.config import LlamaConfig
from selfee.llama.fingerprint import fingerprint_of
from selfee.llama.model import Model
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType


def of(path: Path, *, threads: int = 1, **rest: Any) -> bytes:
    with open_checkpoint(path) as checkpoint:
        return fingerprint_of(checkpoint, LlamaConfig.from_checkpoint(checkpoint), threads=threads, **rest)


def settled(path: Path) -> Path:
    """A file that was not written just now."""
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return settled(make_tiny(tmp_path / "tiny.gguf", n_head_kv=2))


SAME: list[dict[str, Any]] = [
    {},
    {"metadata": {"general.name": "another"}},
    {"metadata": {"tokenizer.chat_template": CHATML}},
    {"n_ctx": 4096},
    {"container": "gguf2"},
]
OTHER: list[dict[str, Any]] = [
    {"seed": 1},
    {"n_head_kv": 4},
    {"n_layer": 1},
    {"n_head": 8, "head_dim": 8},
    {"type": QuantType.F16},
    {"tied": True},
    {"rope_freqs": True},
    {"vocab": "spm"},
    {"n_vocab": 100},
    {"architecture": "qwen2"},
    {"metadata": {"llama.rope.freq_base": 500000.0}},
    {"metadata": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}},
    {"metadata": {"llama.attention.layer_norm_rms_epsilon": 1e-6}},
    {"metadata": {"tokenizer.ggml.bos_token_id": 3}},
]


@pytest.mark.parametrize("change", SAME, ids=str)
def test_what_no_cache_depends_on_does_not_count(path: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    assert of(make_tiny(tmp_path / "other.gguf", **({"n_head_kv": 2} | change))) == of(path)


def test_everything_else_counts(path: Path, tmp_path: Path) -> None:
    found = [of(path)]
    found += [of(make_tiny(tmp_path / "other.gguf", **({"n_head_kv": 2} | change))) for change in OTHER]
    assert len(set(found)) == len(OTHER) + 1
    assert {len(one) for one in found} == {32}


def test_every_byte_of_every_tensor_counts(path: Path) -> None:
    sound, before = path.read_bytes(), of(path)
    with open_checkpoint(path) as checkpoint:
        places = [(tensor.offset, tensor.offset + tensor.nbytes - 1) for tensor in checkpoint.tensors.values()]
    for first, last in places:
        for at in (first, (first + last) // 2, last):
            path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
            assert of(path) != before


def test_threads_packing_and_the_size_of_the_queue_do_not_count(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE", 1000)  # many pieces, the last of each tensor shorter
    assert len({of(path, threads=threads, release=release) for threads in (1, 2, 5) for release in (False, True)}) == 1
    with Model.load(path, threads=2, packed=True) as packed, Model.load(path, threads=1) as plain:
        assert packed.fingerprint() == plain.fingerprint() == of(path)


def test_the_tree_is_the_one_described(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE", 1000)
    root = hashlib.blake2b(digest_size=32)
    with open_checkpoint(path) as checkpoint:
        for name, tensor in sorted(checkpoint.tensors.items()):
            blocks = checkpoint.read(name).tobytes()
            head = json.dumps([name, int(tensor.type), tensor.shape, len(blocks)]).encode()
            root.update(len(head).to_bytes(8, "little") + head)
            for begin in range(0, len(blocks), 1000):
                root.update(hashlib.blake2b(blocks[begin : begin + 1000], digest_size=32).digest())
        assert module._hash_tensors(checkpoint, 2, False) == root.digest()


def test_a_folder_has_one_too_and_is_read_each_time(tmp_path: Path) -> None:
    folder, memory = tmp_path / "hf", tmp_path / "memory.json"
    make_tiny_hf(folder)
    assert of(folder, remembered=memory) == of(folder)
    assert not memory.exists()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose tensors were read."""
    found: list[Path] = []
    real = module._hash_tensors

    def count(checkpoint: Checkpoint, *rest: Any) -> bytes:
        found.append(checkpoint.path)
        return real(checkpoint, *rest)

    monkeypatch.setattr(module, "_hash_tensors", count)
    return found


def test_a_file_is_hashed_once_until_it_changes(path: Path, tmp_path: Path, hashed: list[Path]) -> None:
    memory = tmp_path / "not there yet" / "memory.json"
    first = of(path, remembered=memory)
    assert of(path, remembered=memory) == first
    assert len(hashed) == 1
    os.utime(path, (1e9, 1e9 + 1))
    assert of(path, remembered=memory) == first
    assert len(hashed) == 2
    copy = tmp_path / "copy.gguf"
    shutil.copy2(path, copy)
    assert of(copy, remembered=memory) == first
    assert len(hashed) == 3
    os.replace(settled(make_tiny(tmp_path / "new.gguf", n_head_kv=2, seed=1)), path)
    assert of(path, remembered=memory) != first
    assert len(hashed) == 4


def test_configuration_and_vocabulary_are_never_taken_from_memory(path: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    before = of(path, remembered=memory)
    with open_checkpoint(path) as checkpoint:
        config = LlamaConfig.from_checkpoint(checkpoint)
        checkpoint.metadata = dict(checkpoint.metadata) | {"llama.rope.freq_base": 2.0}
        assert fingerprint_of(checkpoint, config, threads=1, remembered=memory) != before


def test_a_file_replaced_while_it_is_mapped_is_not_taken_for_the_new_one(
    path: Path, tmp_path: Path, hashed: list[Path]
) -> None:
    memory = tmp_path / "memory.json"
    with open_checkpoint(path) as old:
        os.replace(settled(make_tiny(tmp_path / "new.gguf", n_head_kv=2, seed=1)), path)
        ours = fingerprint_of(old, LlamaConfig.from_checkpoint(old), threads=1, remembered=memory)
    assert of(path, remembered=memory) != ours
    assert len(hashed) == 2


def test_a_file_written_just_now_is_not_remembered(path: Path, tmp_path: Path, hashed: list[Path]) -> None:
    path.touch()
    for _ in range(2):
        of(path, remembered=tmp_path / "memory.json")
    assert len(hashed) == 2


def test_a_file_changed_while_it_is_hashed_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(_: object) -> bytes:
        path.touch()
        return b""

    monkeypatch.setattr(module, "_head", touch)
    with pytest.raises(BadFileError, match="changed"):
        of(path)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[1]", b"null", b"\xff" * 9, b"[" * 100_000, b'{"a": 1, "b": "zz", "c": null}']
)
def test_a_damaged_memory_is_as_good_as_none(path: Path, tmp_path: Path, hashed: list[Path], damage: bytes) -> None:
    memory = tmp_path / "memory.json"
    memory.write_bytes(damage)
    expected = of(path)
    for _ in range(2):
        assert of(path, remembered=memory) == expected
    assert len(hashed) == 2


def test_a_memory_that_cannot_be_written_costs_nothing_but_time(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert of(path, remembered=tmp_path / "file" / "memory.json") == of(path)
    assert of(path, remembered=tmp_path) == of(path)


def test_memory_stays_small(path: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    memory.write_text(json.dumps({f"{number}:{'x' * 100}": "00" * 32 for number in range(1000)}))
    of(path, remembered=memory)
    kept = json.loads(memory.read_text())
    assert len(kept) == 256
    assert list(kept)[-1].endswith("tiny.gguf")
