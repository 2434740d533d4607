"""pip's configuration means for selfee what it means for pip."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfee.cli.pip_config import netrc_path, pip_settings, read_pip_config
from selfee.errors import UsageError
from selfee.weights.fetch.package_index import PYPI, IndexConfig


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose only configuration is below ``tmp_path``."""
    return {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "xdg"), "PATH": os.environ.get("PATH", "")}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def without_machine(settings: dict[str, str], home: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """``settings`` without what this machine's own /etc/pip.conf adds."""
    machine = pip_settings(
        {"HOME": str(tmp_path / "nobody"), "XDG_CONFIG_DIRS": str(tmp_path / "none")}, "/nonexistent"
    )
    return {name: value for name, value in settings.items() if machine.get(name) != value}


def test_the_environment_overrides_files_and_special_sections_override_global(
    tmp_path: Path, home: dict[str, str]
) -> None:
    config = tmp_path / ".config" / "pip" / "pip.conf"
    write(
        config, "[global]\nindex-url = https://a/simple\ntimeout = 7\n[download]\ntimeout = 9\n[list]\nindex-url = x\n"
    )
    assert read_pip_config(home, "/none").index_url == "https://a/simple"
    assert read_pip_config(home, "/none").network.stall_seconds == 9
    home["PIP_INDEX_URL"] = "https://b/simple"
    assert read_pip_config(home, "/none").index_url == "https://b/simple"


def test_everything_that_says_where_packages_come_from_is_read(tmp_path: Path) -> None:
    environ = {
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_EXTRA_INDEX_URL": "https://a https://b",
        "PIP_FIND_LINKS": "/wheels https://c",
        "PIP_TRUSTED_HOST": "a b:81",
        "PIP_PROXY": "http://proxy:3128",
        "PIP_CERT": "/ca.pem",
        "PIP_CLIENT_CERT": "/me.pem",
        "PIP_NO_INDEX": "1",
    }
    config = read_pip_config(environ)
    assert config.extra_index_urls == ("https://a", "https://b")
    assert config.find_links == ("/wheels", "https://c")
    assert config.network.trusted_hosts == ("a", "b:81")
    assert config.network.proxy == "http://proxy:3128"
    assert config.network.ca_bundle == Path("/ca.pem")
    assert config.network.client_cert == Path("/me.pem")
    assert config.no_index


def test_without_any_configuration_it_is_the_public_index(tmp_path: Path) -> None:
    config = read_pip_config({"HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull})
    assert (config.index_url, config.find_links, config.no_index) == (PYPI, (), False)
    assert config.network.use_environment
    assert isinstance(config, IndexConfig)


def test_certificates_named_for_other_clients_count_as_for_pip(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull, "REQUESTS_CA_BUNDLE": "/corporate.pem"}
    assert read_pip_config(environ).network.ca_bundle == Path("/corporate.pem")


def test_a_damaged_file_is_named(tmp_path: Path, home: dict[str, str]) -> None:
    write(tmp_path / "mine.conf", "index-url = x\n")
    with pytest.raises(UsageError, match=r"mine\.conf: not a configuration of pip"):
        read_pip_config(home | {"PIP_CONFIG_FILE": str(tmp_path / "mine.conf")})


@pytest.mark.parametrize("text", ["soon", "-1", "1e99", ""])
def test_a_timeout_that_is_none_is_not_used(tmp_path: Path, text: str) -> None:
    environ = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull, "PIP_TIMEOUT": text}
    assert read_pip_config(environ).network.stall_seconds == 60


def test_netrc_is_found_by_its_variable_and_at_home(tmp_path: Path) -> None:
    assert netrc_path({"HOME": str(tmp_path)}) is None
    (tmp_path / ".netrc").touch()
    assert netrc_path({"HOME": str(tmp_path)}) == tmp_path / ".netrc"
    (tmp_path / "other").touch()
    assert netrc_path({"HOME": "/", "NETRC": str(tmp_path / "other")}) == tmp_path / "other"


def pip_config(environ: dict[str, str], *words: str) -> str:
    command = [sys.executable, "-m", "pip", "config", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("is_named", [False, True])
def test_pip_itself_sees_the_same_settings(tmp_path: Path, home: dict[str, str], is_named: bool) -> None:
    """Oracle: ``pip config list``."""
    write(tmp_path / "xdg" / "pip" / "pip.conf", "[global]\nproxy = http://far:1\nno-index = true\n")
    write(tmp_path / ".pip" / "pip.conf", "[global]\nindex-url = https://old\ntimeout = 3\n")
    write(tmp_path / ".config" / "pip" / "pip.conf", "[global]\nindex-url = https://new\nfind_links =\n  /a\n  /b\n")
    write(tmp_path / "named.conf", "[global]\nindex-url = https://named\n[install]\ntrusted-host = h\n")
    environ = home | {"PIP_CERT": "/ca.pem", "PIP_EXTRA_INDEX_URL": "https://x https://y"}
    if is_named:
        environ["PIP_CONFIG_FILE"] = str(tmp_path / "named.conf")
    by_rank: list[dict[str, str]] = [{}, {}, {}, {}]
    for line in pip_config(environ, "list").splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        rank = ["global", "install", "download", ":env:"].index(section)
        is_listed_twice = name in by_rank[rank]  # one line a file: ask which of them counts
        by_rank[rank][name] = pip_config(environ, "get", key).strip() if is_listed_twice else ast.literal_eval(value)
    theirs = by_rank[0] | by_rank[1] | by_rank[2] | by_rank[3]
    ours = {name: value for name, value in pip_settings(environ).items() if name != "config-file"}
    theirs.pop("config-file", None)
    assert ours == theirs
    assert without_machine(ours, home, tmp_path)["index-url"] == ("https://named" if is_named else "https://new")
