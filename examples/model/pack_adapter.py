"""A trained adapter as the one small file that selfee ships: numbers in 16 bits, what it belongs to in its metadata.

python -m examples.model.pack_adapter run/adapter src/selfee/weights/adapters/selfee-135m.safetensors --base base.gguf
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from selfee.weights.adapter import FILE, TRAINED_ON_CHAINS
from selfee.weights.huggingface.safetensors import TensorSource, open_safetensors, write_safetensors
from selfee.weights.huggingface.stored import DType


def pack(folder: Path, target: Path, base: Path) -> None:
    """Write ``folder``'s adapter as ``target``; ``base`` is the file that it was trained beside."""
    config = json.loads((folder / "adapter_config.json").read_bytes())
    metadata = {
        "r": str(config["r"]),
        "lora_alpha": str(config["lora_alpha"]),
        TRAINED_ON_CHAINS: "true",
        "base_sha256": hashlib.sha256(base.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
    }
    with open_safetensors(folder / FILE) as tensors:
        sources = []
        for name, stored in tensors.tensors.items():
            values = np.frombuffer(tensors.read(name).tobytes(), np.float32)
            short = np.frombuffer(values.astype(np.float16).tobytes(), np.uint8)
            sources.append(TensorSource(name, stored.shape, DType.F16, lambda short=short: [short]))  # type: ignore[misc]
    write_safetensors(target, sources, metadata)


def main() -> None:
    """Read the command line, pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--base", type=Path, required=True)
    given = parser.parse_args()
    pack(given.folder, given.target, given.base)


if __name__ == "__main__":
    main()
