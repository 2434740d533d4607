"""Which addresses a worker may have: nobody makes this server call another than it was told to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from selfee.errors import UsageError

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LOOPBACK: tuple[_Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True)
class AllowedAddresses:
    """Networks and names that workers may be in; this machine's loopback always.

    A name counts only if it is written here: what it resolves to is then the business of whoever wrote it. Addresses
    that belong to no machine (unspecified, link-local as of cloud metadata, multicast) are refused in any network.
    """

    networks: tuple[_Network, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, words: Iterable[str]) -> AllowedAddresses:
        """From ``10.0.0.0/8``, ``192.168.1.7`` and ``worker-1.internal``. Raises UsageError for anything else."""
        networks: list[_Network] = []
        names: list[str] = []
        for word in words:
            try:
                networks.append(ipaddress.ip_network(word, strict=False))
            except ValueError:
                if not word or "/" in word or ":" in word or word != word.strip():
                    raise UsageError(
                        f"allow_worker: {word[:100]!r} is neither a network nor a name; expected 10.0.0.0/8, an "
                        "address or the name of a machine"
                    ) from None
                names.append(word.lower())
        return cls(tuple(networks), tuple(names))

    def check(self, url: str) -> str:
        """The address as ``http(s)://host:port``. Raises UsageError for one that is not allowed."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            _refuse(url, "is no address")
        if parts.scheme not in ("http", "https") or not host:
            _refuse(url, "is no address")
        if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
            _refuse(url, "holds more than a machine and a port")
        if not self._allows(host):
            _refuse(url, "is not among those allowed")
        port = port or (443 if parts.scheme == "https" else 80)
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def _allows(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host == "localhost" or host in self.names
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped or address
        if address.is_unspecified or address.is_link_local or address.is_multicast:
            return False
        return any(address in network for network in (*_LOOPBACK, *self.networks))


def _refuse(url: str, found: str) -> NoReturn:
    raise UsageError(
        f"worker: {url[:200]!r} {found}; expected http://host:port of an allowed network; start the controller with "
        "--allow-worker"
    )
