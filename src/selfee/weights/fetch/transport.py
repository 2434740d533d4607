"""One HTTP GET with redirects followed by hand, so that a secret reaches the host it is for and no other."""

from __future__ import annotations

import base64
import netrc
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import httpx2

from selfee.errors import DownloadError, UsageError

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 10


@dataclass(frozen=True)
class Network:
    """How this machine reaches others; every field has the meaning it has for pip."""

    proxy: str | None = None
    ca_bundle: Path | None = None  # certificates to trust instead of the system's: a PEM file or a folder
    client_cert: Path | None = None
    trusted_hosts: tuple[str, ...] = ()  # "host" or "host:port" whose certificate is not checked
    netrc: Path | None = None  # file of names and passwords by host
    use_environment: bool = False  # whether HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and the like count
    connect_seconds: float = 15.0
    stall_seconds: float = 60.0  # between two bytes
    attempts: int = 5  # tries in a row that bring nothing before giving up
    backoff_seconds: float = 1.0  # before the second try; doubles each time


@dataclass(frozen=True)
class Secret:
    """An ``Authorization`` header that only ``origin`` (scheme, host, port) may see."""

    origin: tuple[str, str, int]
    header: str = field(repr=False)


@dataclass(frozen=True)
class Opened:
    """The answer at the end of all redirects, and the headers of the address first asked."""

    response: httpx2.Response
    first_headers: httpx2.Headers  # what the origin itself said, before it pointed elsewhere


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address. Raises UsageError if it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        if not parts.hostname or re.search(r"[\s\x00-\x1f]", url):
            raise ValueError("no host, or blanks")
        return parts.scheme, parts.hostname, port
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"{without_secrets(url)}: no address to download from; expected http://… or https://…"
        ) from error


def without_secrets(url: str) -> str:
    """An address without user, password, query and fragment: fit for an error message."""
    return re.sub(r"[?#].*", "", re.sub(r"//[^/@]*@", "//", url, count=1), flags=re.DOTALL)[:300]


def secret_in(url: str) -> Secret | None:
    """The name and password written into an address (``https://user:password@host``), if any."""
    parts = urlsplit(url)
    if not parts.username:
        return None
    return Secret(origin_of(url), _basic(unquote(parts.username), unquote(parts.password or "")))


class Transport:
    """Opens addresses. Use as a context manager, or call ``close``."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._clients: dict[bool, httpx2.Client] = {}
        self._netrc = _read_netrc(network.netrc)

    def close(self) -> None:
        """Close every socket."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def get(self, url: str, headers: dict[str, str], secrets: tuple[Secret, ...] = ()) -> Iterator[Opened]:
        """Ask for ``url``; the body is not read yet.

        Raises httpx2.HTTPError where the network fails, DownloadError for a redirect that leads nowhere safe.
        """
        start, first_headers = without_secrets(url), None
        for _ in range(_MAX_REDIRECTS + 1):
            client = self._client(url)
            request = client.build_request("GET", _without_user(url), headers=headers)
            if authorization := self._authorization(url, secrets):
                request.headers["authorization"] = authorization
            response = client.send(request, stream=True)
            try:
                first_headers = response.headers if first_headers is None else first_headers
                if response.status_code not in _REDIRECTS:
                    yield Opened(response, first_headers)
                    return
                url = _redirected(url, response.headers.get("location", ""), start)
            finally:
                response.close()
        raise DownloadError(f"{start}: more than {_MAX_REDIRECTS} redirects; expected a file; check the address")

    def _authorization(self, url: str, secrets: tuple[Secret, ...]) -> str | None:
        own = secret_in(url)
        origin = origin_of(url)
        for secret in (own, *secrets):
            if secret is not None and secret.origin == origin:
                return secret.header
        entry = self._netrc.authenticators(origin[1]) if self._netrc else None
        return _basic(entry[0] or "", entry[2] or "") if entry else None

    def _client(self, url: str) -> httpx2.Client:
        _, host, port = origin_of(url)
        is_trusted = not {host, f"{host}:{port}"}.isdisjoint(self.network.trusted_hosts)
        if is_trusted not in self._clients:
            network = self.network
            self._clients[is_trusted] = httpx2.Client(
                headers={"user-agent": "selfee", "accept-encoding": "identity"},
                timeout=httpx2.Timeout(network.stall_seconds, connect=network.connect_seconds),
                # A kept connection may die unseen between two requests; so few are made that a new one each is cheap.
                limits=httpx2.Limits(max_keepalive_connections=0),
                follow_redirects=False,
                trust_env=network.use_environment,
                proxy=network.proxy,
                verify=_tls(network, checked=not is_trusted),
            )
        return self._clients[is_trusted]


def _tls(network: Network, *, checked: bool) -> ssl.SSLContext | bool:
    if checked and network.ca_bundle is None and network.client_cert is None:
        return True  # the system's certificates, or those that the environment names
    try:
        bundle = network.ca_bundle
        if bundle is not None and bundle.is_dir():
            context = ssl.create_default_context(capath=str(bundle))
        else:
            context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
        if network.client_cert is not None:
            context.load_cert_chain(str(network.client_cert))
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"{network.ca_bundle or network.client_cert}: cannot be used as certificates ({error.strerror or error}); "
            "expected a PEM file; check pip's settings cert and client-cert"
        ) from error
    if not checked:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _read_netrc(path: Path | None) -> netrc.netrc | None:
    if path is None or not path.is_file():
        return None
    try:
        return netrc.netrc(str(path))
    except (OSError, netrc.NetrcParseError):
        return None  # as pip does: an unreadable file gives no passwords; the server will say that it wants one


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _without_user(url: str) -> str:
    return re.sub(r"//[^/@?#]*@", "//", url, count=1)


def _redirected(url: str, location: str, start: str) -> str:
    target = urljoin(_without_user(url), location)
    scheme = urlsplit(target).scheme
    if not location or scheme not in ("http", "https"):
        raise DownloadError(f"{start}: redirected to {without_secrets(target)!r}; expected http or https")
    if urlsplit(url).scheme == "https" and scheme == "http":
        raise DownloadError(
            f"{start}: redirected from https to the unprotected {without_secrets(target)}; expected https; "
            "use another mirror"
        )
    return target
