"""The page: whole without anything else, safe whatever models say, and usable by everybody."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.eval.reporting.runs import HOSTILE, island_of, make_run

from selfee.eval.reporting.folder import read_folder
from selfee.eval.reporting.markdown import render_markdown
from selfee.eval.reporting.page import render_page
from selfee.eval.reporting.report import make_report


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags_of(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    return parser.tags


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("run") / "run")
    path = folder / "report.html"
    path.write_text(render_page(make_report(read_folder(folder))), encoding="utf-8")
    return path


def test_a_page_of_hostile_texts_has_the_same_elements_as_one_of_harmless_texts(tmp_path: Path) -> None:
    pages = []
    for name, text in (("harmless", "x" * len(HOSTILE)), ("hostile", HOSTILE)):
        pages.append(render_page(make_report(read_folder(make_run(tmp_path / name, text=text)))))
    harmless, hostile = ([tag for tag, _ in tags_of(page)] for page in pages)
    assert harmless == hostile
    assert any(HOSTILE in text for text in island_of(pages[1])["texts"])
    assert pages[1].count("</script>") == 2
    assert "\u2028" not in pages[1]


def test_hostile_names_stay_names_in_page_and_markdown(tmp_path: Path) -> None:
    report = make_report(read_folder(make_run(tmp_path / "run", baseline="a|b<script>alert(1)</script>*c*")))
    assert "<script>alert" not in render_page(report)
    markdown = render_markdown(report)
    assert "\n| m@0 | a\\|b\\<script\\>alert(1)\\</script\\>\\*c\\* |" in markdown
    assert not re.search(r"(?<!\\)<script", markdown)


def test_the_page_asks_for_nothing_and_lets_no_script_run_but_its_own(page_file: Path) -> None:
    page = page_file.read_text(encoding="utf-8")
    for tag, attributes in tags_of(page):
        for name in ("src", "href", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
        assert not any(name.startswith("on") for name in attributes)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "script-src &#x27;sha256-" in policy[1]
    assert "default-src &#x27;none&#x27;" in policy[1]


def test_every_picture_says_in_words_what_it_shows(page_file: Path) -> None:
    pictures = [attributes for tag, attributes in tags_of(page_file.read_text(encoding="utf-8")) if tag == "svg"]
    assert len(pictures) >= 5
    for attributes in pictures:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"] or "") > 30


def test_the_browsers_data_hold_every_text_once(page_file: Path) -> None:
    data = island_of(page_file.read_text(encoding="utf-8"))
    assert len(data["questions"]) == 6
    assert len(set(data["texts"])) == len(data["texts"])
    question = data["questions"][0]
    assert [answer["title"] for answer in question["answers"]] == ["base", "m@0", "m@1"]
    assert [len(answer.get("steps", [])) for answer in question["answers"]] == [0, 1, 2]
    assert [answer.get("delivered") for answer in question["answers"]] == [None, 0, 1]


def test_markdown_tables_are_whole(page_file: Path) -> None:
    markdown = render_markdown(make_report(read_folder(page_file.parent)))
    blocks = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    assert len(blocks) >= 6
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("wide", [1280, 390])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(
    open_page: Any, page_file: Path, colours: str, wide: int
) -> None:
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    axe = (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    page = open_page(page_file, wide=wide, color_scheme=colours, bypass_csp=True)
    for details in page.locator("#view details > summary").all():
        details.click()
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [each["id"] for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= wide


@pytest.mark.slow
def test_the_browser_shows_a_chain_with_its_changes_and_can_be_used_with_keys_alone(
    open_page: Any, page_file: Path
) -> None:
    page = open_page(page_file)
    page.focus("#next")
    page.keyboard.press("Enter")
    assert page.inner_text("#view h3 >> nth=0") == "Question q1 (odd)"
    page.focus("#view details:has(summary > strong:text-is('m@1')) > summary")
    page.keyboard.press("Enter")
    assert page.inner_text("#view ins >> nth=0").strip() == "1, and that is all there is to say."
    assert page.inner_text("#view del >> nth=0").strip() == "1."
    page.focus("#changes")
    page.keyboard.press("Space")
    assert page.locator("#view ins").count() == 0
    page.select_option("#category", "odd")
    assert page.inner_text("#status") == "1 of 3 questions"
    page.fill("#search", "nothing says this")
    page.locator("#status", has_text="No question fits.").wait_for()


@pytest.mark.slow
def test_no_text_of_a_model_runs_in_the_page(open_page: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", text=HOSTILE)
    path = folder / "report.html"
    path.write_text(render_page(make_report(read_folder(folder))), encoding="utf-8")
    page = open_page(path)
    for details in page.locator("#view details > summary").all():
        details.click()
    assert page.title() == "Report on run"
    assert page.locator("#view img, #view script").count() == 0
    assert "owned" in page.inner_text("#view")


@pytest.mark.slow
def test_figures_can_be_read_without_scripts(open_page: Any, page_file: Path) -> None:
    page = open_page(page_file, java_script_enabled=False)
    assert page.locator("#scores table").is_visible()
    assert not page.locator("#controls").is_visible()
    assert "need scripts" in page.inner_text("#browser")
