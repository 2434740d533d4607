"""Fixtures every room may use."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Shared and noisy machines: a slow example is not a failure, and CI must give the same verdict twice.
settings.register_profile("selfee", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("selfee"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "selfee")

# A shell starts what it puts into the background with SIGINT ignored, and children inherit that: the tests that press
# Ctrl-C would test the shell.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="also run tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--runslow"):
        return
    skipped = {"minutes": "takes minutes; pass --runslow"}
    if not os.environ.get("CI"):
        skipped["slow"] = "slow; pass --runslow (CI runs it)"
    for item in items:
        for mark, reason in skipped.items():
            if mark in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium. It goes with its module: while playwright runs, asyncio.run refuses this thread."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The shared data folder: $SELFEE_CORPUS, or ``shared/data`` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("SELFEE_CORPUS", beside))
    if not path.is_dir():
        pytest.skip("shared data folder not found; set SELFEE_CORPUS to run the corpus tests")
    return path
