"""torch and its relatives, loaded when a model is: they are no part of the core install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from selfee.errors import MissingExtraError


def library(name: str) -> Any:
    """A package by name. Raises MissingExtraError that says how to get it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"train: the package '{name}' is not installed; expected it; run: pip install 'selfee[train]'"
        ) from error
