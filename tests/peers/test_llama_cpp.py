"""GGUF files that we write, in today's llama.cpp: each loads and continues texts as in our engine.

Reproduce: SELFEE_PEER_PYTHON=<python with xllamacpp> python -m pytest tests/peers/test_llama_cpp.py -s
and with SELFEE_TEST_MODEL=<a .gguf file> --runslow the same for that model, requantised to every type.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.peers.greedy import Prompt, agreement, end_tokens, new_peer_steps, own_steps
from tests.peers.quantized import quantized
from tests.tiny import make_tiny

from selfee.llama.tokenizer import load_tokenizer
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.recipes import FileType
from selfee.weights.quants import QuantType

# Log-probabilities: both programs round activations to 8 bits, not at the same places.
NOISE = 0.2
GAP = 0.05
LENGTH = 8
BYTES_ABOVE_ASCII = range(3 + 0x80, 3 + 0x100)  # ids in tiny vocabularies; the server withholds what is not yet UTF-8
TEXTS = (
    "The capital of France is",
    "def fibonacci(n):\n",
    "Once upon a time, in a small village by the sea,",
    "### Question:\nHow many legs do three spiders have?\n\n### Answer:\n",
)


def tiny_prompts(vocabulary: int) -> list[Prompt]:
    return [[1, *((17 * k * (i + 1) + 5 * k * k) % (vocabulary - 5) + 5 for i in range(6))] for k in range(1, 9)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("peers") / "source.gguf", type=QuantType.F32, n_layer=3, n_embd=256)


@pytest.mark.parametrize("kind", FileType, ids=lambda kind: kind.name)
def test_llama_cpp_chooses_our_tokens_in_a_file_of_every_type(
    llama_cpp: str, source: Path, tmp_path: Path, kind: FileType
) -> None:
    path = quantized(source, tmp_path / f"{kind.name}.gguf", kind)
    banned = sorted({*end_tokens(path), *BYTES_ABOVE_ASCII})
    prompts = tiny_prompts(400)
    theirs = new_peer_steps(llama_cpp, path, prompts, LENGTH, banned)
    found = agreement(own_steps(path, prompts, LENGTH, banned), theirs)
    print(f"\n{kind.name}: {found}")
    assert found.noise < NOISE
    assert found.widest_gap < max(GAP, found.noise)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FileType, ids=lambda kind: kind.name)
def test_llama_cpp_writes_our_words_with_a_real_model_in_every_type(
    llama_cpp: str, tmp_path: Path, kind: FileType
) -> None:
    """With flash attention on and off llama.cpp differs from itself; we may differ from it by as much."""
    model = Path(os.environ.get("SELFEE_TEST_MODEL", ""))
    if not model.is_file():
        pytest.skip("SELFEE_TEST_MODEL names no model file; set it to a .gguf file to requantise")
    path = quantized(model, tmp_path / f"{kind.name}.gguf", kind)
    with open_checkpoint(path) as checkpoint:
        tokenizer = load_tokenizer(checkpoint.vocab)
    prompts = [tokenizer.encode(text) for text in TEXTS]
    ways = [new_peer_steps(llama_cpp, path, prompts, 16, flash_attention=flash) for flash in (True, False)]
    itself = agreement(*ways)
    found = [agreement(own_steps(path, prompts, 16, end_tokens(path)), way) for way in ways]
    print(f"\n{kind.name}: {found[0]}\n  without flash attention: {found[1]}\n  llama.cpp with itself: {itself}")
    assert max(each.widest_gap for each in found) < max(GAP, itself.noise)
    assert max(each.noise for each in found) < 2 * max(GAP, itself.noise)
