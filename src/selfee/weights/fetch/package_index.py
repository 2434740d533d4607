"""Find a wheel the way pip would: on its indexes and in its folders, as HTML (PEP 503) or JSON (PEP 691)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import httpx2

from selfee.errors import DownloadError
from selfee.weights.fetch.transport import Network, Secret, Transport, secret_in, without_secrets

PYPI = "https://pypi.org/simple"
"""Where pip looks if nobody told it otherwise."""

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1, */*;q=0.01"
_MAX_PAGE = 32 << 20  # bytes of an index page


@dataclass(frozen=True)
class IndexConfig:
    """pip's settings, as far as they say where packages come from."""

    index_url: str = PYPI
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()  # folders, pages, files
    no_index: bool = False
    use_pip: bool = True  # whether to let pip itself try where this client finds nothing
    network: Network = field(default_factory=Network)


@dataclass(frozen=True)
class WheelLink:
    """Where a wheel can be had."""

    url: str
    sha256: str | None  # what the index says it is
    secrets: tuple[Secret, ...] = ()


def find_wheel(config: IndexConfig, package: str, wheel: str, transport: Transport) -> list[WheelLink]:
    """Every place that has the file ``wheel`` of ``package``: local folders first, then the indexes in pip's order.

    Raises DownloadError that says of every place what was wrong with it.
    """
    found: list[WheelLink] = []
    troubles: list[str] = []
    secrets = tuple(secret for url in (config.index_url, *config.extra_index_urls) if (secret := _secret(url)))
    for place in _places(config, package):
        try:
            links = [link for link in _links(place, transport, secrets) if _file_name(link.url) == wheel]
        except (httpx2.HTTPError, OSError, DownloadError) as error:
            reason = str(error) or type(error).__name__
            troubles.append(reason if isinstance(error, DownloadError) else f"{without_secrets(place)}: {reason}")
            continue
        found += [link for link in links if link not in found]
        if not links:
            troubles.append(f"{without_secrets(place)}: has no {wheel}")
    if not found:
        tried = "; ".join(troubles) or "pip is told to use no index"
        raise DownloadError(
            f"{package}: no place to get {wheel} from ({tried}); expected one in pip's index-url, "
            "extra-index-url or find-links; check `pip config list` and the connection"
        )
    return sorted(found, key=lambda link: urlsplit(link.url).scheme != "file")


def _secret(url: str) -> Secret | None:
    return secret_in(url) if url.startswith(("http://", "https://")) else None


def _places(config: IndexConfig, package: str) -> Iterator[str]:
    """Addresses of pages, and file: addresses of folders, in pip's order."""
    for text in config.find_links:
        yield text if re.match(r"(https?|file):", text) else Path(text).expanduser().absolute().as_uri()
    if not config.no_index:
        normal = re.sub(r"[-_.]+", "-", package).lower()
        for url in (config.index_url, *config.extra_index_urls):
            yield f"{url.rstrip('/')}/{normal}/"


def _links(place: str, transport: Transport, secrets: tuple[Secret, ...]) -> list[WheelLink]:
    if urlsplit(place).scheme == "file":
        return _local_links(Path(unquote(urlsplit(place).path)))
    body, kind, base = _load_page(place, transport, secrets)
    # A page from the network has no business naming files of this machine.
    return [link for link in parse_page(body, kind, base, secrets) if urlsplit(link.url).scheme != "file"]


def _load_page(place: str, transport: Transport, secrets: tuple[Secret, ...]) -> tuple[bytes, str, str]:
    """Content, media type and final address of a page; tried again once if the network fails."""
    try:
        return _load_page_once(place, transport, secrets)
    except httpx2.TransportError:
        time.sleep(transport.network.backoff_seconds)
        return _load_page_once(place, transport, secrets)


def _load_page_once(place: str, transport: Transport, secrets: tuple[Secret, ...]) -> tuple[bytes, str, str]:
    with transport.get(place, {"accept": _ACCEPT}, secrets) as opened:
        response = opened.response
        if response.status_code != 200:
            raise DownloadError(f"{without_secrets(place)}: answers {response.status_code}")
        body = b""
        for block in response.iter_bytes():
            body += block
            if len(body) > _MAX_PAGE:
                raise DownloadError(f"{without_secrets(place)}: an index page of more than {_MAX_PAGE} bytes")
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        return body, kind, str(response.url)


def _local_links(path: Path) -> list[WheelLink]:
    if path.is_dir():
        page = path / "index.html"
        if page.is_file():
            return parse_page(page.read_bytes(), "text/html", page.as_uri())
        return [WheelLink(file.as_uri(), None) for file in sorted(path.iterdir()) if file.suffix == ".whl"]
    if path.suffix in (".html", ".htm"):
        return parse_page(path.read_bytes(), "text/html", path.as_uri())
    return [WheelLink(path.as_uri(), None)] if path.is_file() else []


def parse_page(body: bytes, kind: str, base: str, secrets: tuple[Secret, ...] = ()) -> list[WheelLink]:
    """The links of one index page; ``base`` is its address. Raises DownloadError if it is no index page."""
    where = without_secrets(base)
    if kind.endswith("json"):
        return _parse_json(body, where, base, secrets)
    if kind not in ("text/html", "application/vnd.pypi.simple.v1+html", "application/xhtml+xml", ""):
        raise DownloadError(f"{where}: is {kind!r}; expected a page of a package index (HTML or JSON)")
    parser = _Anchors(base)
    parser.feed(body.decode("utf-8", errors="replace"))
    return [_link(href, secrets) for href in parser.links]


def _parse_json(body: bytes, where: str, base: str, secrets: tuple[Secret, ...]) -> list[WheelLink]:
    try:
        page: Any = json.loads(body)
        rows = [(file["url"], file.get("hashes", {}).get("sha256")) for file in page["files"]]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"{where}: no index page ({error}); expected PEP 691 JSON") from error
    return [
        WheelLink(urljoin(base, url), sha256 if isinstance(sha256, str) else None, secrets)
        for url, sha256 in rows
        if isinstance(url, str)
    ]


def _link(href: str, secrets: tuple[Secret, ...]) -> WheelLink:
    url, _, fragment = href.partition("#")
    match = re.search(r"sha256=([0-9a-f]{64})", fragment)
    return WheelLink(url, match[1] if match else None, secrets)


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path).rsplit("/", 1)[-1]


class _Anchors(HTMLParser):
    """Collects the addresses that a page links to."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if not href:
            return
        try:
            address = urljoin(self.base, href)
        except ValueError:
            return
        if tag == "base":
            self.base = address
        elif tag == "a" and urlsplit(address).scheme in ("http", "https", "file"):
            self.links.append(address)
