"""axe finds nothing wrong with the page: in every state, light and dark, wide and narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.serve.web.site import Site
from tests.serve.web.test_page import ask

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's script, from the package that brings it."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    return (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Any) -> list[str]:
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{violation['id']}: {violation['help']} – {node['target']} {node.get('failureSummary', '')}"
        for violation in found
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("wide", [1280, 320])
def test_axe_finds_nothing(site: Site, open_page: Any, axe: str, colours: str, wide: int) -> None:
    page = open_page(site.url, wide=wide, high=800, color_scheme=colours, script=axe)
    page.emulate_media(reduced_motion="reduce", color_scheme=colours)
    assert violations(page) == []
    ask(page)
    page.click("[data-act='more']")
    page.wait_for_selector("text=Revision 2")
    page.wait_for_selector(".chain[aria-busy='false'] .segment.final")
    assert violations(page) == []
    page.click("[aria-label='Changes of Revision 2']")
    page.click("[data-act='feedback']")
    assert violations(page) == []
    for opener, dialog in (
        ("#settings-open", "settings"),
        ("[data-act='compare']", "comparison"),
        ("#export", "export-menu"),
    ):
        page.click(opener)
        assert violations(page) == []
        page.keyboard.press("Escape")
        assert not page.locator(f"#{dialog}").evaluate("dialog => dialog.open")
