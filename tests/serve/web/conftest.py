"""A browser for the page's tests, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.serve.web.site import Site, story


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Opens a page of its own (no history); at the end nothing may have gone wrong in it."""
    contexts, problems = [], []

    def open_(url: str, *, wide: int = 1280, high: int = 860, script: str | None = None, **settings: Any) -> Any:
        context = browser.new_context(viewport={"width": wide, "height": high}, **settings)
        if script is not None:
            context.add_init_script(script)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if _is_problem(message) else None)
        page.goto(url)
        page.wait_for_selector("#model-1 option", state="attached")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert problems == []


def _is_problem(message: Any) -> bool:
    return message.type == "error" and "Failed to load resource" not in message.text


@pytest.fixture
def site() -> Iterator[Site]:
    """A server whose model revises once."""
    with Site(story()) as running:
        yield running
