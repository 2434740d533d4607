"""Servers that several tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.serve.harness import Running, serving
from tests.tiny import make_tiny

from selfee.engines.local import LocalEngine
from selfee.engines.runtime import load_runtime


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server whose model answers, criticises and revises once, the same for everybody."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server over a real, tiny model in this process."""
    path = make_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", n_ctx=2048)
    engine = LocalEngine(load_runtime(path), parallel=4)
    with serving(engine) as running:
        yield running
