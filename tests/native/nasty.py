"""Values that quantisers stumble over: each kind makes one super-block of 256."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Random = np.random.Generator

_TINY = np.float32(1e-45)  # the smallest number there is


def _sparse(rng: Random) -> npt.NDArray[Any]:
    return np.where(rng.random(256) < 0.05, rng.normal(size=256), 0)


def _patchwork(rng: Random) -> npt.NDArray[Any]:
    """Sub-blocks that are zero, constant, of one sign or of quite another size, inside ordinary ones."""
    parts = rng.normal(0, 0.02, (16, 16))
    parts[rng.integers(16)] = 0
    parts[rng.integers(16)] = rng.choice([0.5, -0.5, 1e-20])
    parts[rng.integers(16)] = np.abs(parts[rng.integers(16)]) + 1
    parts[rng.integers(16)] = -np.abs(parts[rng.integers(16)]) - 1
    parts[rng.integers(16)] *= rng.choice([1e-9, 1e-5, 1e5])
    return parts


KINDS: dict[str, Callable[[Random], npt.NDArray[Any]]] = {
    "gauss": lambda rng: rng.normal(0, 0.02, 256).astype(np.float16),
    "laplace": lambda rng: rng.laplace(0, 0.02, 256),
    "long tails": lambda rng: np.clip(rng.standard_t(1.2, 256), -3e4, 3e4),
    "outlier": lambda rng: np.where(np.arange(256) == rng.integers(256), -8, rng.normal(0, 0.02, 256)),
    "sparse": _sparse,
    "patchwork": _patchwork,
    "integers": lambda rng: rng.integers(-3, 4, 256),
    "two values": lambda rng: rng.choice([-1.0, 1.0], 256),
    "positive": lambda rng: rng.uniform(0.5, 1.5, 256),
    "negative": lambda rng: -rng.uniform(0.5, 1.5, 256),
    "far from zero": lambda rng: rng.choice([-1, 1]) * (1 + rng.normal(0, 1e-4, 256)),
    "ramp": lambda rng: np.arange(256) / 256 - rng.random(),
    "zeros": lambda _: np.zeros(256),
    "minus zeros": lambda _: np.full(256, -0.0),
    "mixed zeros": lambda rng: rng.choice([-0.0, 0.0], 256),
    "zeros and more": lambda rng: rng.choice([-0.0, 0.0, 1.0], 256),
    "constant": lambda rng: np.full(256, rng.choice([0.5, -0.5, 1e-9, -1e-9])),
    "almost constant": lambda rng: np.nextafter(np.float32(0.7), np.float32(rng.choice([0, 1], 256))),
    "small": lambda rng: rng.normal(0, 1e-6, 256),
    "very small": lambda rng: rng.normal(0, 1.0, 256) * 10.0 ** rng.integers(-38, -7),
    "subnormal": lambda rng: rng.integers(-100, 101, 256) * _TINY,
    "around 1e-15": lambda rng: rng.normal(0, 1e-15, 256),
    "large": lambda rng: np.clip(rng.normal(0, 1e4, 256), -3e4, 3e4),
    "all sizes": lambda rng: rng.choice([-1, 1], 256) * 10.0 ** rng.uniform(-38, 4, 256),
}


def super_block(kind: str, seed: int) -> Floats:
    """256 values of a kind."""
    values: Floats = KINDS[kind](np.random.default_rng(seed)).astype(np.float32).reshape(256)
    return values


def collection(of_each: int) -> Floats:
    """Super-blocks of every kind in a fixed order, some of them twice in a row: shape (n, 256)."""
    blocks = [super_block(kind, seed) for seed in range(of_each) for kind in KINDS]
    return np.stack([block for index, block in enumerate(blocks) for _ in range(1 + (index % 5 == 0))])


def importance(columns: int, seed: int) -> Floats:
    """Importance of columns: all sizes, many zeros, and a stretch of zeros as long as a sub-block."""
    rng = np.random.default_rng(seed)
    values: Floats = (rng.chisquare(1, columns) * 10.0 ** rng.uniform(-3, 3, columns)).astype(np.float32)
    values[rng.random(columns) < 0.1] = 0
    values[32:64] = 0
    return values
