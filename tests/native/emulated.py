"""Builds of the kernels in which an instruction set is emulated, loaded beside the one that is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BUILDS = Path(__file__).resolve().parents[2] / "build"


def load(instruction_set: str) -> ModuleType:
    """The compiled module of ``build/<instruction_set>``; the test is skipped if nobody has built it."""
    found = sorted((BUILDS / instruction_set).glob("_native*.so"))
    if not found:
        pytest.skip(f"no emulated build; see the docstring of tests/native/test_{instruction_set}.py")
    spec = importlib.util.spec_from_file_location("_native", found[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
