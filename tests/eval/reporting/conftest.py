"""A run's folder made by hand, and a browser to look at its page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Opens a page from the disk, without network; at the end nothing may have gone wrong in it."""
    contexts, problems = [], []

    def open_(path: Path, *, wide: int = 1280, **settings: Any) -> Any:
        context = browser.new_context(viewport={"width": wide, "height": 860}, offline=True, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert problems == []
