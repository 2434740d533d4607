"""Damaged GGUF files: ``python tests/fuzz/fuzz_gguf.py --seconds 600 --seed 1``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.fuzzing import Seed, main, seed_from
from tests.tiny import make_tiny

from selfee.weights.quants import QuantType

EXTRA = {
    "test.signed": -5,
    "test.wide": 2**40,
    "test.flag": True,
    "test.byte": np.uint8(7),
    "test.double": np.float64(0.5),
    "test.numbers": np.arange(5, dtype=np.int16),
    "test.texts": ["a", "", "ü"],
    "general.alignment": 32,
}


def make_seeds(folder: Path) -> list[Seed]:
    """Small models; most have eight tokens, so that most of their bytes are structure and not text."""
    path = folder / "sound.gguf"
    q4, q6, q8 = QuantType.Q4_0, QuantType.Q6_K, QuantType.Q8_0
    seeds = [
        seed_from(make_tiny(path, n_layer=1, n_embd=32, n_vocab=8, vocab="spm", type=q4, metadata=EXTRA)),
        seed_from(make_tiny(path, n_layer=1, n_embd=32, n_vocab=8, container="gguf2", architecture="qwen2", tied=True)),
        seed_from(make_tiny(path, n_layer=1, n_embd=32, n_vocab=8, container="gguf1", architecture="qwen3")),
        seed_from(make_tiny(path, n_layer=1, n_vocab=8, vocab="spm", type=q6, rope_freqs=True)),
        seed_from(make_tiny(path, n_layer=1, n_embd=32, type=q8, rope_freqs=True)),
    ]
    path.unlink()
    return seeds


if __name__ == "__main__":
    sys.exit(main("gguf", make_seeds))
