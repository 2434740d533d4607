"""Damaged GGML files: ``python tests/fuzz/fuzz_ggml.py --seconds 600 --seed 1``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.fuzzing import Seed, main, seed_from
from tests.tiny import make_tiny

from selfee.weights.quants import QuantType


def make_seeds(folder: Path) -> list[Seed]:
    """Small models; most have eight tokens, so that most of their bytes are structure and not text."""
    path = folder / "sound.bin"
    q4, q5, k2 = QuantType.Q4_0, QuantType.Q5_1, QuantType.Q2_K
    seeds = [
        seed_from(make_tiny(path, n_layer=1, n_embd=32, n_vocab=8, container="ggjt3", type=q4)),
        seed_from(make_tiny(path, n_layer=1, n_embd=32, n_vocab=8, container="ggjt2", type=q5, n_head_kv=2)),
        seed_from(make_tiny(path, n_layer=1, n_embd=32, n_vocab=8, container="ggjt1", type=QuantType.F16)),
        seed_from(make_tiny(path, n_layer=1, n_embd=32, n_vocab=8, container="ggmf")),
        seed_from(make_tiny(path, n_layer=1, n_embd=32, n_vocab=8, container="ggml")),
        seed_from(make_tiny(path, n_layer=1, n_vocab=8, container="ggjt3", type=k2)),
        seed_from(make_tiny(path, n_layer=1, n_embd=32, container="ggjt3", type=QuantType.Q8_0)),
    ]
    path.unlink()
    return seeds


if __name__ == "__main__":
    sys.exit(main("ggml", make_seeds))
