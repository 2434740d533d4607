"""Opening: what is no model is called by its name, what is a model reads the same in every container."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.tiny import Container, make_tiny
from tests.weights.craft import array, gguf, pair, refused, text

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.gguf import ValueType
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType, dequantize

CONTAINERS: list[Container] = ["gguf", "gguf2", "gguf1", "ggjt3", "ggjt2", "ggjt1", "ggmf", "ggml"]

FOREIGN: dict[str, tuple[bytes, str]] = {
    "zip": (b"PK\x03\x04" + bytes(60), "is a zip archive, perhaps a PyTorch checkpoint; expected a GGUF or GGML model"),
    "safetensors": ((70).to_bytes(8, "little") + b'{"__metadata__":{}}' + bytes(70), "is a safetensors file"),
    "pickle": (b"\x80\x02\x8a\x0al\xfc\x9c", "is a pickled PyTorch checkpoint"),
    "LoRA": (b"algg" + bytes(16), r"is a GGML LoRA adapter \(ggla\).*name the base model"),
    "session": (b"nsgg" + bytes(16), r"is a saved llama.cpp session \(ggsn\)"),
    "big-endian GGML": (b"ggjt" + bytes(16), "is a big-endian GGML file"),
    "swapped GGUF": (b"FUGG" + bytes(16), "is a GGUF file with swapped bytes"),
    "gzip": (b"\x1f\x8b\x08" + bytes(16), "is a gzip archive; .*; unpack it first"),
    "web page": (b"\n<!DOCTYPE html><title>404</title>", "is a web page, perhaps an error page saved as a model"),
    "old web page": (b"<HTML><body>Not found", "is a web page"),
    "git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 98362432\n",
        "is a git-lfs pointer, not the model itself; run: git lfs pull",
    ),
    "zeros": (bytes(4096), "begins with zeros; the download is incomplete"),
    "JSON": (b'{"architectures": ["LlamaForCausalLM"]}', "is JSON text"),
    "text": (b"Hello, world", "begins with 'Hell'; expected a GGUF or GGML model; check the path"),
    "escape codes": (b"\x1b[2J\x07", r"begins with '\\x1b\[2J'"),
    "one byte": (b"G", "begins with 'G'"),
    "magic alone": (b"GGUF", "byte 4: the version needs 4 bytes but 0 are left"),
    "empty": (b"", "is empty; fetch it again"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_model_is_called_by_its_name(tmp_path: Path, kind: str) -> None:
    content, message = FOREIGN[kind]
    path = tmp_path / "model"
    path.write_bytes(content)
    refused(path, message)


def test_every_short_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for magic in (b"GGUF", b"tjgg", b"fmgg", b"lmgg", b"PK\x03\x04", b"\0\0\0\0"):
        for length in range(65):
            path.write_bytes((magic + bytes([3, *bytes(80)]))[:length])
            if magic == b"GGUF" and 24 <= length <= 32:
                continue  # a GGUF file of nothing, padded or not, is sound
            with pytest.raises(BadFileError, match="model: "):
                open_checkpoint(path).close()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    message = r"has neither config.json nor params.json.*or the .gguf or .bin file inside it"
    with pytest.raises(BadFileError, match=message):
        open_checkpoint(tmp_path)


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is a pipe, socket or device")


def test_a_device_and_a_socket_are_refused(tmp_path: Path) -> None:
    refused(Path("/dev/null"), "is a pipe, socket or device")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        refused(tmp_path / "s", "cannot be opened: No such device or address")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for name in ("missing.gguf", "a\0b", "x" * 300):
        with pytest.raises(BadFileError, match=r"there is no such file|is not a path|cannot be opened: File name too"):
            open_checkpoint(tmp_path / name)


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(BadFileError, match="cannot be opened: Too many levels of symbolic links"):
        open_checkpoint(tmp_path / "a")


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_tiny(tmp_path / "m.gguf")

    def forbid(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", forbid)  # chmod would not stop root
    with pytest.raises(BadFileError, match="may not be read; give yourself permission"):
        open_checkpoint(path)


def values(checkpoint: Checkpoint, name: str) -> bytes:
    tensor = checkpoint.tensors[name]
    return dequantize(tensor.type, checkpoint.read(name)).tobytes()


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_tensors_under_the_same_names(tmp_path: Path, container: Container) -> None:
    with (
        open_checkpoint(make_tiny(tmp_path / "a", container=container, vocab="spm")) as one,
        open_checkpoint(make_tiny(tmp_path / "b", vocab="spm")) as other,
    ):
        assert one.tensors.keys() == other.tensors.keys()
        for name, tensor in one.tensors.items():
            assert tensor.shape == other.tensors[name].shape
            assert values(one, name) == values(other, name)
        for key in ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv"):
            assert one.metadata[f"llama.{key}"] == other.metadata[f"llama.{key}"]
        assert one.metadata["llama.feed_forward_length"] == other.metadata["llama.feed_forward_length"]
        assert len(one.vocab.tokens) == len(other.vocab.tokens)
        assert (one.vocab.bos, one.vocab.eos, one.vocab.unknown) == (1, 2, 0)


def test_the_container_is_named_with_its_version(tmp_path: Path) -> None:
    names = []
    for container in CONTAINERS:
        with open_checkpoint(make_tiny(tmp_path / "m", container=container)) as checkpoint:
            names.append(checkpoint.container)
    assert names == ["gguf v3", "gguf v2", "gguf v1", "ggjt v3", "ggjt v2", "ggjt v1", "ggmf v1", "ggml"]


def test_raw_blocks_are_rows_of_bytes_mapped_and_read_only(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf", type=QuantType.Q4_0)
    with open_checkpoint(path) as checkpoint:
        blocks = checkpoint.read("blk.0.ffn_down.weight")
        assert blocks.shape == (64, 192 // 32 * 18)
        assert not blocks.flags.writeable
        assert not blocks.flags.owndata
        assert checkpoint.read("output_norm.weight").shape == (1, 256)
        with pytest.raises(BadFileError, match="has no tensor 'nonsense'"):
            checkpoint.read("nonsense")


def test_arrays_outlive_their_checkpoint(tmp_path: Path) -> None:
    with open_checkpoint(make_tiny(tmp_path / "m.gguf")) as checkpoint:
        blocks = checkpoint.read("output_norm.weight")
        before = blocks.tobytes()
    assert blocks.tobytes() == before


def test_a_file_changed_in_place_is_noticed(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf")
    with open_checkpoint(path) as checkpoint:
        checkpoint.verify_unchanged()
        os.utime(path, ns=(0, 0))
        with pytest.raises(BadFileError, match="changed while it was in use; open it again"):
            checkpoint.verify_unchanged()


def test_a_file_cut_in_place_is_noticed(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf")
    with open_checkpoint(path) as checkpoint:
        os.truncate(path, 100)
        with pytest.raises(BadFileError, match="changed while it was in use"):
            checkpoint.verify_unchanged()


def test_a_file_that_shrinks_while_it_is_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_tiny(tmp_path / "m.gguf")
    look = os.fstat

    def look_then_shrink(descriptor: int) -> os.stat_result:
        found = look(descriptor)
        os.truncate(path, 10)
        return found

    monkeypatch.setattr(os, "fstat", look_then_shrink)
    with pytest.raises(BadFileError, match="cannot be mapped into memory: mmap length is greater than file size"):
        open_checkpoint(path)


def test_a_file_replaced_by_renaming_or_deleted_stays_in_use(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf")
    with open_checkpoint(path) as checkpoint:
        before = checkpoint.read("output_norm.weight").tobytes()
        make_tiny(tmp_path / "n.gguf", seed=1).replace(path)
        checkpoint.verify_unchanged()
        assert checkpoint.read("output_norm.weight").tobytes() == before
        path.unlink()
        checkpoint.verify_unchanged()


LOW_MEMORY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 29, 3 << 29))
from selfee.errors import BadFileError
from selfee.weights.open import open_checkpoint
try:
    open_checkpoint(sys.argv[1])
except BadFileError as error:
    print(error)
"""


def opened_with_little_memory(path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", LOW_MEMORY, str(path)], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_huge_hole_in_a_file_costs_no_memory(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf")
    os.truncate(path, 600 << 20)  # sparse: takes no disk
    assert "bytes follow the last tensor" in opened_with_little_memory(path)


@pytest.mark.parametrize("length", [1 << 28, 1 << 30])
def test_a_text_of_a_gigabyte_that_is_really_there_is_not_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "m.gguf"
    words = text(b"", length=length)
    path.write_bytes(gguf([pair("k", ValueType.STRING, words)]))
    os.truncate(path, length + 4096)
    assert "at most 67108864 are allowed" in opened_with_little_memory(path)
    path.write_bytes(gguf([array("k", ValueType.STRING, 1, words)]))
    os.truncate(path, length + 4096)
    assert "expected at most 67108864" in opened_with_little_memory(path)


def test_a_vocabulary_of_a_hundred_and_fifty_thousand_tokens_opens_at_once(tmp_path: Path) -> None:
    tokens = [f"token{index}".encode() for index in range(150_000)]
    changes = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.ones(len(tokens), dtype=np.int32),
        "tokenizer.ggml.merges": [b"a b"] * len(tokens),
    }
    path = make_tiny(tmp_path / "m.gguf", metadata=changes)
    started = time.perf_counter()
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.vocab.tokens[149_999] == b"token149999"
    assert time.perf_counter() - started < 2  # 0.1 s on a quiet machine


def test_types_of_errors_follow_from_what_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"PK\x03\x04" + bytes(60))
    refused(path, "zip", error=UnsupportedFileError)
