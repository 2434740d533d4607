"""GGML v3 files that we write, in llama.cpp of summer 2023: each loads and continues texts as in our engine.

Reproduce: SELFEE_OLD_PEER_PYTHON=<python with ctransformers> python -m pytest tests/peers/test_ctransformers.py -s
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.peers.greedy import Prompt, agreement, old_peer_steps, own_steps
from tests.peers.quantized import quantized
from tests.tiny import make_tiny

from selfee.weights.quantization.recipes import FileType, RuleSet
from selfee.weights.quants import QuantType

# Log-probabilities: both programs round activations to 8 bits, not at the same places.
NOISE = 0.25
GAP = 0.05
LAYERS = 26  # a number that llama.cpp of 2023 knows
KINDS = [kind for kind in FileType if kind is not FileType.bf16]  # BF16 came later


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("peers") / "source.bin"
    return make_tiny(path, container="ggjt1", type=QuantType.F16, n_layer=LAYERS, n_embd=256)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_llama_cpp_of_2023_chooses_our_tokens_in_a_file_of_every_type(
    ctransformers: str, source: Path, tmp_path: Path, kind: FileType
) -> None:
    _compare(ctransformers, source, tmp_path, kind, RuleSet.JUNE_6)


@pytest.mark.slow
@pytest.mark.parametrize("rules", [RuleSet.JUNE_5, RuleSet.CURRENT], ids=lambda rules: rules.value)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_it_does_so_with_the_mixtures_of_other_days(
    ctransformers: str, source: Path, tmp_path: Path, kind: FileType, rules: RuleSet
) -> None:
    _compare(ctransformers, source, tmp_path, kind, rules)


def _compare(python: str, source: Path, folder: Path, kind: FileType, rules: RuleSet) -> None:
    path = quantized(source, folder / f"{kind.name}.bin", kind, rules)
    prompts: list[Prompt] = [[1, *((17 * k * (i + 1) + 5 * k * k) % 500 + 5 for i in range(6))] for k in range(1, 5)]
    found = agreement(own_steps(path, prompts, 6), old_peer_steps(python, path, prompts, 6))
    print(f"\n{kind.name} {rules.value}: {found}")
    assert found.noise < NOISE
    assert found.widest_gap < max(GAP, found.noise)
