"""A model that is made here: a built-in one with an adapter that selfee ships, in a file of its own."""

from __future__ import annotations

import hashlib
from importlib.resources import as_file, files
from pathlib import Path

from selfee.errors import BadFileError
from selfee.weights.adapter import read_adapter, with_adapter
from selfee.weights.convert import ConvertOptions, Format, plan_conversion
from selfee.weights.fetch.builtin import BuiltinModel, WithAdapter
from selfee.weights.fetch.download import Fetched, Progress
from selfee.weights.open import open_checkpoint
from selfee.weights.quantize import Quantizer

ADAPTERS = files("selfee.weights") / "adapters"
"""Where the adapters lie that selfee ships."""


def make_with_adapter(
    model: BuiltinModel, source: WithAdapter, base: Path, folder: Path, progress: Progress
) -> Fetched:
    """Make ``model`` in ``folder`` of the file ``base``. Raises BadFileError for an adapter that is damaged.

    Takes seconds. The same base and adapter give the same file, so it counts as verified where both are.
    """
    progress.note(f"making {model.name} of {source.base}, once")
    target = folder / model.file
    with as_file(ADAPTERS / source.adapter) as path:
        if _sha256(path) != source.adapter_sha256:
            raise BadFileError(f"{path}: is not the adapter that selfee ships; expected it; install selfee again")
        with open_checkpoint(base) as checkpoint:
            adapted = with_adapter(checkpoint, read_adapter(path))
            options = ConvertOptions(type=source.type, allow_requantize=True)
            plan_conversion(adapted, Format.GGUF, options, quantizer=Quantizer()).write(target)
    return Fetched(target, _sha256(target), target.stat().st_size, is_verified=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
