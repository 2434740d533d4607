"""A model file that a user names, by its path or as a downloaded model, and how its cache is to be kept."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfee.llama.cells import CacheType


class CacheTypeName(enum.Enum):
    """What keys and values are stored as; see ``Model.load``."""

    F16 = "f16"
    Q8_0 = "q8_0"

    @property
    def cache_type(self) -> CacheType:
        """The word that the engine knows."""
        return "f16" if self is CacheTypeName.F16 else "q8_0"


def local_file(text: str) -> Path:
    """The path typed, or the path of the downloaded model of that name; nothing is fetched.

    Raises UsageError for the name of a model that is not on this disk.
    """
    from selfee.cli.settings import model_store
    from selfee.errors import UsageError
    from selfee.weights.fetch.model_names import parse_model_name

    model = parse_model_name(text)
    if model is None:
        return Path(text)
    stored = model_store(os.environ).find(model)
    if stored is None:
        raise UsageError(f"{text}: not on this disk; fetch it with: selfee models pull {text}")
    return stored.path
