"""The page as files: small, complete, from nowhere else, and without a way to turn text into markup."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from tests.serve.harness import backend_of
from tests.serve.web.javascript import PAGE
from tests.serve.web.site import story

from selfee.serve.app import make_app
from selfee.serve.config import Defaults, ServerConfig
from selfee.serve.service import Served

FILES = sorted(path for path in PAGE.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = make_app(ServerConfig(), [Served(backend_of(story()), Defaults())])
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        yield client


def test_the_page_and_every_file_of_it_is_served_with_strict_rules(client: TestClient) -> None:
    for name in ["", *(path.relative_to(PAGE).as_posix() for path in FILES)]:
        answer = client.get(f"/{name}")
        assert answer.status_code == 200, name
        rules = answer.headers["content-security-policy"]
        assert "default-src 'none'" in rules
        assert "unsafe" not in rules
        assert "*" not in rules
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/").headers["content-type"] == "text/html; charset=utf-8"
    assert client.get("/js/main.js").headers["content-type"] == "text/javascript; charset=utf-8"


def test_a_file_that_the_browser_has_is_not_sent_again(client: TestClient) -> None:
    tag = client.get("/css/page.css").headers["etag"]
    again = client.get("/css/page.css", headers={"if-none-match": tag})
    assert again.status_code == 304
    assert again.content == b""


@pytest.mark.parametrize(
    "path", ["/js/../page.py", "/js/%2e%2e/page.py", "/..%2fpage.py", "/js/", "/css", "/js/nothing.js"]
)
def test_nothing_beside_the_page_can_be_named(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_whole_page_is_smaller_than_200_kilobytes() -> None:
    assert sum(path.stat().st_size for path in FILES) < 200_000


def test_nothing_comes_from_elsewhere() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        addresses = re.findall(r"""(?:src|href|url|import|from|fetch)\s*[=(]?\s*["'(]\s*(https?:)?//""", text)
        assert not addresses, path.name


def test_there_is_no_way_from_text_to_markup_or_code() -> None:
    sinks = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setHTML|srcdoc|DOMParser"
    )
    for path in FILES:
        assert not sinks.search(path.read_text(encoding="utf-8")), path.name


def test_every_module_is_loaded_at_once_and_exists() -> None:
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    preloaded = set(re.findall(r'modulepreload" href="js/([\w]+\.js)"', html)) | {"main.js"}
    modules = {path.name for path in (PAGE / "js").glob("*.js")}
    assert preloaded == modules
    for module in modules:
        text = (PAGE / "js" / module).read_text(encoding="utf-8")
        assert set(re.findall(r'from "\./([\w]+\.js)"', text)) <= modules


def test_modules_and_style_sheets_stay_readable() -> None:
    for path in FILES:
        assert path.read_text(encoding="utf-8").count("\n") <= 400, path.name


def test_every_id_that_the_script_asks_for_is_in_the_page() -> None:
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    ids = set(re.findall(r'\bid="([\w-]+)"', html))
    script = (PAGE / "js" / "main.js").read_text(encoding="utf-8")
    asked = set(re.findall(r'\$\("([\w-]+)"\)', script))
    assert asked
    assert asked <= ids
