"""``selfee convert``, as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tests.cli.story import Shell
from tests.tiny import make_tiny
from tests.tiny_hf import make_tiny_hf

from selfee.engines import Request, SamplingParams, open_engine
from selfee.weights.huggingface.safetensors import TensorSource, write_safetensors
from selfee.weights.huggingface.stored import DType
from selfee.weights.open import open_checkpoint
from selfee.weights.quantize import dequantize
from selfee.weights.quants import QuantType


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def write_lora(path: Path, part: str, rows: int, columns: int) -> None:
    """An adapter of rank 1 that adds 2 to every number of a matrix in the first layer."""
    name = f"base_model.model.model.layers.0.{part}"
    ones = [
        TensorSource(f"{name}.lora_{half}.weight", shape, DType.F32, partial(_ones, shape))
        for half, shape in (("A", (1, columns)), ("B", (rows, 1)))
    ]
    write_safetensors(path, ones, {"r": "1", "lora_alpha": "2"})


def _ones(shape: tuple[int, ...]) -> list[npt.NDArray[np.uint8]]:
    return [np.ones(shape, np.float32).view(np.uint8).reshape(-1)]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_the_release_of_2023_is_made_from_its_folder(shell: Shell, tmp_path: Path) -> None:
    """A folder with one token added → GGML F16 → GGUF → folder: what the card's makers did, and the way back."""
    make_tiny_hf(tmp_path / "selfee", tokenizer="spm", n_head_kv=4, dtype=DType.F16, files=2, more_rows=1)
    (tmp_path / "selfee" / "added_tokens.json").write_text('{"[PAD]": 558}')
    done = shell.run("convert", "selfee", "ggml-model-f16.bin", "--type", "f16")
    assert "ggml-model-f16.bin: written in" in done.stdout
    assert "f16 × 16, f32 × 5" in done.stdout
    assert "epsilon, 1e-05, is lost" in done.stdout
    assert done.stderr == ""
    with open_checkpoint(tmp_path / "ggml-model-f16.bin") as old:
        assert (old.container, len(old.vocab.tokens), old.vocab.tokens[-1]) == ("ggjt v3", 559, b"[PAD]")
    shell.run("convert", "ggml-model-f16.bin", "model.gguf", "--eps", "1e-5", "--context", "512")
    shell.run("convert", "model.gguf", "again", "--max-shard-size", "100k")
    assert len(list((tmp_path / "again").glob("*.safetensors"))) > 2
    shell.run("convert", "again", "again.gguf")
    with open_checkpoint(tmp_path / "again.gguf") as last, open_checkpoint(tmp_path / "selfee") as first:
        for name, tensor in first.tensors.items():
            assert last.tensors[name].type is tensor.type
            assert last.read(name).tobytes() == first.read(name).tobytes(), name
        assert last.metadata["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)


def test_an_adapter_is_added_on_the_way_and_one_of_another_model_is_refused(shell: Shell, tmp_path: Path) -> None:
    make_tiny(tmp_path / "in.gguf")
    with open_checkpoint(tmp_path / "in.gguf") as base:
        rows, columns = base.tensors["blk.0.ffn_up.weight"].shape
    for name, width in (("fits", columns), ("other", columns + 1)):
        write_lora(tmp_path / f"{name}.safetensors", "mlp.up_proj", rows, width)
    words = ("convert", "in.gguf", "out.gguf", "--type", "q8_0", "--adapter")
    shell.run(*words, "fits.safetensors")
    with open_checkpoint(tmp_path / "in.gguf") as before, open_checkpoint(tmp_path / "out.gguf") as after:
        change = dequantize(QuantType.Q8_0, after.read("blk.0.ffn_up.weight")) - dequantize(
            QuantType.F32, before.read("blk.0.ffn_up.weight")
        )
        assert change == pytest.approx(np.full(change.shape, 2.0), abs=0.05)
    refused = shell.run(*words, "other.safetensors", check=2)
    assert "trained beside" in refused.stderr


def test_the_form_follows_the_name_and_json_tells_a_program(shell: Shell, tmp_path: Path) -> None:
    make_tiny(tmp_path / "in.gguf", vocab="spm")
    for name, form in (
        ("out.gguf", "gguf"),
        ("out.bin", "ggml"),
        ("llama-2.7b", "safetensors"),
        ("hf/", "safetensors"),
    ):
        told = json.loads(shell.run("convert", "in.gguf", name, "--json").stdout)
        assert (told["format"], told["file_type"], told["copied"]) == (form, "f32", 21)
        assert told["tensors"] == {"F32": 21}
        if form != "safetensors":
            assert told["bytes"] == (tmp_path / name).stat().st_size
    assert (
        json.loads(shell.run("convert", "in.gguf", "odd.model", "--format", "ggml", "--json").stdout)["format"]
        == "ggml"
    )
    done = shell.run("convert", "in.gguf", "odd.other", check=2)
    assert "--format gguf, ggml or safetensors" in done.stderr


def test_a_type_is_made_on_the_way(shell: Shell, tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "folder", dtype=DType.BF16)
    shell.run("convert", "folder", "out.gguf", "--type", "q8_0")
    with open_checkpoint(tmp_path / "out.gguf") as checkpoint:
        assert checkpoint.tensors["blk.0.ffn_up.weight"].type is QuantType.Q8_0
        assert checkpoint.metadata["general.file_type"] == 7
    done = shell.run("convert", "folder", "out2.gguf", "--type", "q9_9", check=2)
    assert "type 'q9_9': unknown" in done.stderr


def test_a_folder_of_something_else_and_the_source_are_never_replaced(shell: Shell, tmp_path: Path) -> None:
    make_tiny(tmp_path / "in.gguf")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("precious")
    done = shell.run("convert", "in.gguf", "home", "--force", check=2)
    assert "holds something else than a model" in done.stderr
    done = shell.run("convert", "in.gguf", "in.gguf", "--force", check=2)
    assert "which is to be read" in done.stderr


def test_the_tokenizer_comes_from_where_it_is(shell: Shell, tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "folder")
    (tmp_path / "tokens").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "folder" / name).rename(tmp_path / "tokens" / name)
    done = shell.run("convert", "folder", "out.gguf", check=2)
    assert "--vocab-from FOLDER" in done.stderr
    shell.run("convert", "folder", "out.gguf", "--vocab-from", "tokens")
    shell.run("convert", "folder", "out2.gguf", "--vocab-from", "out.gguf")
    shell.run("convert", "out2.gguf", "out3.gguf", "--vocab-from", "tokens")
    files = [(tmp_path / name).read_bytes() for name in ("out.gguf", "out2.gguf", "out3.gguf")]
    assert files[0] == files[1] == files[2]
    make_tiny(tmp_path / "other.gguf", n_vocab=300)
    done = shell.run("convert", "out.gguf", "out4.gguf", "--vocab-from", "other.gguf", check=2)
    assert "300 tokens; the embedding has 462 rows" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("in.gguf", "out.gguf", "--eps", "1e-5"), "--eps: in.gguf stores its own"),
        (("in.gguf", "out.gguf", "--context", "5"), "--context: in.gguf stores its own"),
        (("in.gguf", "out.gguf", "--pre", "qwen2"), "--pre: in.gguf is a file"),
        (("folder", "out.gguf", "--context", "5"), "config.json states it"),
        (("in.gguf", "out", "--max-shard-size", "0"), "--max-shard-size '0'"),
        (("in.gguf", "out", "--type", "q4_0"), "holds f32, f16 or bf16"),
        (("in.gguf", "out.bin"), "byte-level BPE"),
        (("nothing.gguf", "out.gguf"), "there is no such file"),
        (("empty", "out.gguf"), "config.json nor params.json"),
        (("in.gguf", "no/such/folder/out.gguf"), "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_nothing_is_written(
    words: tuple[str, ...], message: str, shell: Shell, tmp_path: Path
) -> None:
    make_tiny(tmp_path / "in.gguf")
    make_tiny_hf(tmp_path / "folder")
    (tmp_path / "empty").mkdir()
    before = names(tmp_path)
    done = shell.run("convert", *words, check=None)
    assert done.returncode in (1, 2)
    assert message in done.stderr.replace("\n", " ")
    assert done.stdout == ""
    assert names(tmp_path) == before


def test_weights_that_are_no_numbers_end_it_with_their_place(shell: Shell, tmp_path: Path) -> None:
    weights = make_tiny_hf(tmp_path / "folder")
    path = tmp_path / "folder" / "model.safetensors"
    row = weights["model.layers.1.mlp.up_proj.weight"][3].tobytes()
    path.write_bytes(path.read_bytes().replace(row, row[:8] + np.float32(np.inf).tobytes() + row[12:]))
    done = shell.run("convert", "folder", "out.gguf", check=2)
    assert "tensor 'blk.1.ffn_up.weight': the value at row 3, column 2 is NaN or infinite" in done.stderr
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("target", [pytest.param("out.gguf", marks=pytest.mark.slow), "out-folder"])
def test_a_killed_run_leaves_the_old_one_and_running_again_finishes(target: str, shell: Shell, tmp_path: Path) -> None:
    make_tiny(tmp_path / "in.gguf", n_embd=1024, n_layer=4)
    make_tiny(tmp_path / "old.gguf")
    shell.run("convert", "old.gguf", target)
    words = ("convert", "in.gguf", target, "--type", "bf16", "--force", "-t", "1", "-q")

    def content() -> bytes:
        path = tmp_path / target
        return path.read_bytes() if path.is_file() else (path / "model.safetensors").read_bytes()

    before, seen = content(), []
    for delay in (0.0, 0.03, 0.1):  # after the first sign of the new one
        process = shell.start(*words)
        while process.poll() is None and not (tmp_path / f".{target}.part").exists():
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        seen.append(content())
    shell.run(*words)
    assert seen[0] == before
    assert set(seen) <= {before, content()}, "the old one or the new one, whole"
    assert content() != before
    assert names(tmp_path) == ["in.gguf", "old.gguf", target]


def test_memory_does_not_grow_with_the_model(shell: Shell, tmp_path: Path) -> None:
    """60 MB and 240 MB of tensors of one size take the same memory, to a few tensors."""
    peaks = []
    for layers in (4, 16):
        folder = tmp_path / f"folder{layers}"
        _write_large(folder, layers)
        program = (
            "import resource, sys; from selfee.cli.run import run; code = run(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, "convert", folder.name, f"out{layers}.gguf", "-q"],
            cwd=tmp_path,
            env={**shell.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        peaks.append(int(done.stdout.split()[-1]) * 1024)
        os.unlink(tmp_path / f"out{layers}.gguf")
    assert peaks[1] < peaks[0] + (24 << 20), peaks


def _write_large(folder: Path, layers: int) -> None:
    """A folder whose every tensor is a slice of the same few megabytes, in a file with holes."""
    make_tiny_hf(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 1024, "intermediate_size": 1024, "num_hidden_layers": layers, "head_dim": 64}
    config |= {"num_attention_heads": 16, "num_key_value_heads": 16}
    (folder / "config.json").write_text(json.dumps(config))
    header: dict[str, object] = {}
    at = 0

    def add(name: str, *shape: int) -> None:
        nonlocal at
        size = int(np.prod(shape)) * 2
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size

    add("model.embed_tokens.weight", 462, 1024)
    add("lm_head.weight", 462, 1024)
    add("model.norm.weight", 1024)
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        for name in ("q", "k", "v", "o"):
            add(f"{stem}.self_attn.{name}_proj.weight", 1024, 1024)
        for name in ("gate", "up", "down"):
            add(f"{stem}.mlp.{name}_proj.weight", 1024, 1024)
        add(f"{stem}.input_layernorm.weight", 1024)
        add(f"{stem}.post_attention_layernorm.weight", 1024)
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + at)


def test_gptq_needs_a_text_and_its_library(shell: Shell, tmp_path: Path) -> None:
    make_tiny(tmp_path / "in.gguf")
    done = shell.run("convert", "in.gguf", "gptq", "--format", "gptq", check=2)
    assert "expected --calibration TEXT" in done.stderr
    (tmp_path / "text.txt").write_text("the word and the light " * 2000)
    if find_spec("gptqmodel") is None:
        done = shell.run("convert", "in.gguf", "gptq", "--format", "gptq", "--calibration", "text.txt", "-q", check=1)
        assert "selfee[gptq]" in done.stderr
        assert names(tmp_path) == ["in.gguf", "text.txt"], "the folder made for it is gone"


def test_a_folder_is_used_as_it_is(shell: Shell, tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "folder")
    assert "safetensors" in shell.run("inspect", "folder").stdout
    shell.run("convert", "folder", "out.gguf")
    spoken = []
    for model in ("folder", "out.gguf"):
        with open_engine(str(tmp_path / model)) as engine:
            params = SamplingParams(temperature=0.0)
            spoken.append("".join(chunk.text for chunk in engine.stream(Request("the word", params, max_tokens=12))))
    assert spoken[0] == spoken[1] != ""
    shell.run("quantize", "folder", "direct.gguf", "q8_0")
    shell.run("convert", "folder", "through.gguf", "--type", "q8_0")
    with open_checkpoint(tmp_path / "direct.gguf") as one, open_checkpoint(tmp_path / "through.gguf") as other:
        assert [one.read(name).tobytes() for name in one.tensors] == [
            other.read(name).tobytes() for name in one.tensors
        ]
        assert one.vocab.tokens == other.vocab.tokens
