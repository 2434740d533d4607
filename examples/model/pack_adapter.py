"""Trained adapters as the one small file that selfee ships: 16-bit numbers, what it belongs to in its metadata.

python -m examples.model.pack_adapter run/adapter run2/adapter -o selfee-135m.safetensors --base base.gguf

Several adapters, each trained beside the model that the one before it led to, are one adapter of their ranks' sum:
B1·A1 + B2·A2 = [B1 B2]·[A1; A2].
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from selfee.weights.adapter import TRAINED_ON_CHAINS, read_adapter
from selfee.weights.huggingface.safetensors import TensorSource, write_safetensors
from selfee.weights.huggingface.stored import DType
from selfee.weights.names import gguf_to_hf


def pack(folders: Sequence[Path], target: Path, base: Path) -> None:
    """Write the adapters in ``folders`` as ``target``; ``base`` is the file that the first was trained beside."""
    adapters = [read_adapter(folder) for folder in folders]
    sources = []
    for matrix in adapters[0].pairs:
        down = np.concatenate([one.pairs[matrix][0] for one in adapters])
        up = np.concatenate([one.scale * one.pairs[matrix][1] for one in adapters], axis=1)
        name = (gguf_to_hf(matrix) or matrix).removesuffix(".weight")
        sources += [_short(f"base_model.model.{name}.lora_A.weight", down)]
        sources += [_short(f"base_model.model.{name}.lora_B.weight", up)]
    rank = str(down.shape[0])
    metadata = {
        "r": rank,
        "lora_alpha": rank,  # the scales are in B
        TRAINED_ON_CHAINS: "true",
        "base_sha256": hashlib.sha256(base.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
    }
    write_safetensors(target, sources, metadata)


def _short(name: str, values: npt.NDArray[np.float32]) -> TensorSource:
    raw = np.frombuffer(values.astype(np.float16).tobytes(), np.uint8)
    return TensorSource(name, values.shape, DType.F16, lambda: [raw])


def main() -> None:
    """Read the command line, pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    given = parser.parse_args()
    pack(given.folders, given.out, given.base)


if __name__ == "__main__":
    main()
