"""A model file that a user names: by its path, or by the name of a downloaded model."""

from __future__ import annotations

import os
from pathlib import Path


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
