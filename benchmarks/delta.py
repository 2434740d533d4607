"""How small deltas become and how fast they are packed, beside other ways to pack the same differences.

    python benchmarks/delta.py [--values 2000000]

Random weights of size 0.02, rounded to a number type, and the same after a random walk of the size given, whose length
varies from row to row. Shares are of the target's bytes; speeds are bytes of the target a second of one core. The
entropy is that of single bytes by rank: what a code for single bytes could reach at best.
"""

from __future__ import annotations

import argparse
import bz2
import lzma
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results import record

from selfee.weights.delta.codec import CHUNK, from_f32, pack, to_f32, unpack
from selfee.weights.huggingface.stored import Bytes, DType

STEPS = (3e-5, 3e-4, 1e-3)


def strategy(number: int) -> Callable[[bytes], bytes]:
    """Raw deflate with one of zlib's strategies."""

    def squeeze(data: bytes) -> bytes:
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15, 9, number)
        return deflate.compress(data) + deflate.flush()

    return squeeze


OTHERS: dict[str, Callable[[bytes], bytes]] = {
    "zlib 6": strategy(zlib.Z_DEFAULT_STRATEGY),
    "Huffman": strategy(zlib.Z_HUFFMAN_ONLY),
    "LZMA 0": lambda data: lzma.compress(data, preset=0),
    "bzip2": bz2.compress,
}


def models(dtype: DType, step: float, count: int) -> tuple[Bytes, Bytes]:
    """Base and target."""
    rng = np.random.default_rng(0)
    base = from_f32(rng.normal(0, 0.02, count).astype(np.float32), dtype)
    spread = np.repeat(np.exp(rng.normal(0, 0.5, count // 4096)), 4096)
    moved = to_f32(base, dtype) + (rng.normal(0, step, count) * spread).astype(np.float32)
    return base, from_f32(moved, dtype)


def ranks(data: Bytes, dtype: DType) -> list[bytes]:
    """The bytes of each rank, together."""
    planes = data.reshape(-1, dtype.nbytes)
    return [planes[:, rank].tobytes() for rank in range(dtype.nbytes)]


def entropy(data: bytes) -> float:
    """Bytes that a perfect code for single bytes would need."""
    shares = np.bincount(np.frombuffer(data, np.uint8), minlength=256) / len(data)
    return float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum() / 8 * len(data))


def folded(target: Bytes, base: Bytes, dtype: DType) -> Bytes:
    """The difference as our deltas store it, before it is packed."""
    kind, signed, top = (np.uint32, "<i4", 31) if dtype is DType.F32 else (np.uint16, "<i2", 15)
    difference = (ordered(target, kind, top) - ordered(base, kind, top)).view(signed)
    folds: Bytes = ((difference << 1) ^ (difference >> top)).view(np.uint8)
    return folds


def ordered(data: Bytes, kind: Any, top: int) -> npt.NDArray[Any]:
    """Bits as integers in the numbers' order."""
    bits: npt.NDArray[Any] = data.view(kind)
    image: npt.NDArray[Any] = np.where(bits >> kind(top), ~bits, bits | kind(1 << top))
    return image


def measure(dtype: DType, step: float, count: int) -> dict[str, float]:
    """Shares and speeds for one kind of model."""
    base, target = models(dtype, step, count)
    places = [(at, min(at + CHUNK, target.nbytes)) for at in range(0, target.nbytes, CHUNK)]
    started = time.process_time()
    packed = [pack(target[low:high], base[low:high], dtype) for low, high in places]
    made = time.process_time()
    for part, (low, high) in zip(packed, places):
        found, _ = unpack(np.frombuffer(part, np.uint8), 0, base[low:high], dtype)
        assert found.tobytes() == target[low:high].tobytes()
    undone = time.process_time()
    size, label = target.nbytes, f"{dtype.value} {step:g}"
    figures = {
        f"{label} share": sum(map(len, packed)) / size,
        f"{label} pack MB/s": size / (made - started) / 1e6,
        f"{label} unpack MB/s": size / (undone - made) / 1e6,
    }
    planes = ranks(folded(target, base, dtype), dtype)
    figures[f"{label} entropy share"] = sum(map(entropy, planes)) / size
    exclusive = ranks(target ^ base, dtype)
    figures[f"{label} XOR share"] = sum(len(strategy(zlib.Z_RLE)(plane)) for plane in exclusive) / size
    for name, squeeze in OTHERS.items():
        began = time.process_time()
        figures[f"{label} {name} share"] = sum(len(squeeze(plane)) for plane in planes) / size
        figures[f"{label} {name} MB/s"] = size / (time.process_time() - began) / 1e6
    return figures


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description="pack differences of models")
    parser.add_argument("--values", type=int, default=2_000_000)
    count = -(-parser.parse_args().values // 4096) * 4096
    figures: dict[str, float] = {}
    for dtype in (DType.BF16, DType.F16, DType.F32):
        for step in STEPS:
            figures |= measure(dtype, step, count)
    record("delta", figures, isa="any")


if __name__ == "__main__":
    main()
