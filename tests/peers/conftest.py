"""The peers, where they are installed; docs/explanation/peers.md says how."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def llama_cpp() -> str:
    """A Python that has xllamacpp, which is today's llama.cpp."""
    return _python("SELFEE_PEER_PYTHON", "xllamacpp")


@pytest.fixture(scope="session")
def ctransformers() -> str:
    """A Python that has ctransformers, which is llama.cpp of summer 2023: the last that reads GGML files."""
    return _python("SELFEE_OLD_PEER_PYTHON", "ctransformers")


def _python(variable: str, package: str) -> str:
    python = os.environ.get(variable, sys.executable)
    if subprocess.run([python, "-c", f"import {package}"], capture_output=True, check=False).returncode:
        pytest.skip(f"{package} cannot be imported; set {variable} to a python that has it")
    return python
