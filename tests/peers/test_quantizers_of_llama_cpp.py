"""Files that we quantise beside those of llama.cpp's own quantisers, of June 2023 and of today: the same bytes.

Reproduce: SELFEE_PEER_QUANTIZE=<today's llama-quantize> SELFEE_PEER_QUANTIZE_2023_06_06=<quantize of 2d43387>
SELFEE_PEER_QUANTIZE_2023_06_05=<quantize of 99009e7> python -m pytest tests/peers/test_quantizers_of_llama_cpp.py
(docs/explanation/peers.md says how to build them).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
from tests.peers.quantized import quantized
from tests.tiny import make_tiny

from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.imatrix import Importance, InputSums, write_imatrix
from selfee.weights.quantization.recipes import CARD_TYPES, FileType, RuleSet
from selfee.weights.quants import QuantType

LAYERS = 10  # more than eight: some are among the first eighth, some among the last


def program(variable: str) -> str:
    path = os.environ.get(variable, "")
    if shutil.which(path) is None:
        pytest.skip(f"{variable} names no program; set it to llama.cpp's quantiser")
    return path


@pytest.fixture(scope="session")
def quantizer_of_today() -> str:
    return program("SELFEE_PEER_QUANTIZE")


@pytest.fixture(scope="session", params=[RuleSet.JUNE_6, RuleSet.JUNE_5], ids=lambda rules: rules.value)
def rules_and_quantizer(request: pytest.FixtureRequest) -> tuple[RuleSet, str]:
    return request.param, program("SELFEE_PEER_QUANTIZE_" + request.param.value.replace("-", "_"))


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def ggml_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("peers") / "source.bin"
    return make_tiny(path, container="ggjt1", type=QuantType.F16, n_layer=LAYERS, n_embd=256, n_vocab=513)


@pytest.fixture(scope="module", params=["llama", "qwen2", "tied", "narrow"])
def gguf_source(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    path = tmp_path_factory.mktemp("peers") / f"{request.param}.gguf"
    match request.param:
        case "llama":
            return make_tiny(path, type=QuantType.F16, n_layer=LAYERS, n_embd=256, n_head=8, n_head_kv=2)
        case "qwen2":
            return make_tiny(path, type=QuantType.F16, architecture="qwen2", n_layer=LAYERS, n_embd=256, n_head_kv=2)
        case "tied":
            return make_tiny(path, type=QuantType.F32, n_layer=LAYERS, n_embd=256, tied=True)
    return make_tiny(path, type=QuantType.BF16, n_layer=LAYERS, n_embd=96)  # no k-quant fits: every fall-back


@pytest.mark.parametrize("kind", CARD_TYPES, ids=lambda kind: kind.name)
def test_a_file_of_june_2023_is_the_same_to_the_last_byte(
    rules_and_quantizer: tuple[RuleSet, str], ggml_source: Path, tmp_path: Path, kind: FileType
) -> None:
    rules, quantizer = rules_and_quantizer
    ours = quantized(ggml_source, tmp_path / "ours.bin", kind, rules)
    theirs = tmp_path / "theirs.bin"
    run(quantizer, ggml_source, theirs, kind.name, "1")
    assert hashlib.sha256(ours.read_bytes()).digest() == hashlib.sha256(theirs.read_bytes()).digest()


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "imatrix"])
@pytest.mark.parametrize("kind", FileType, ids=lambda kind: kind.name)
def test_the_tensors_of_a_file_of_today_are_the_same_types_and_bytes(
    quantizer_of_today: str, gguf_source: Path, tmp_path: Path, kind: FileType, guided: bool
) -> None:
    importance = random_importance(gguf_source) if guided else None
    options: list[str | Path] = []
    if importance is not None:
        write_imatrix(tmp_path / "importance.dat", importance, "dat")
        options = ["--imatrix", tmp_path / "importance.dat"]
    theirs = tmp_path / "theirs.gguf"
    run(quantizer_of_today, *options, gguf_source, theirs, kind.name, "2")
    ours = quantized(gguf_source, tmp_path / "ours.gguf", kind, importance=importance)
    assert tensors(ours) == tensors(theirs)


def random_importance(source: Path) -> Importance:
    """Columns of very different importance, some of none."""
    rng = np.random.default_rng(5)
    sums = {}
    with open_checkpoint(source) as checkpoint:
        for tensor in checkpoint.tensors.values():
            if len(tensor.shape) == 2 and tensor.name != "token_embd.weight":
                values = rng.chisquare(1, tensor.shape[1]) * np.exp2(rng.integers(-8, 8, tensor.shape[1]))
                values[rng.random(values.size) < 0.02] = 0
                sums[tensor.name] = InputSums(values.astype(np.float32)[None], np.ones(1, np.float32))
    return Importance(sums, chunks=1, chunk_size=512)


def tensors(path: Path) -> dict[str, tuple[str, str]]:
    """Type and hash by name, read with the gguf package: a judge of neither side."""
    return {
        str(tensor.name): (tensor.tensor_type.name, hashlib.sha256(tensor.data.tobytes()).hexdigest())
        for tensor in gguf.GGUFReader(path).tensors
    }
