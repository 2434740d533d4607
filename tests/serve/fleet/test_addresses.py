"""S3: nobody makes the controller call an address that was not allowed."""

from __future__ import annotations

import pytest

from selfee.errors import UsageError
from selfee.serve.fleet.addresses import AllowedAddresses


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1:21002", "http://127.0.0.1:21002"),
        ("http://localhost:21002/", "http://localhost:21002"),
        ("http://[::1]:7", "http://[::1]:7"),
        ("http://10.1.2.3:8", "http://10.1.2.3:8"),
        ("https://worker-1.internal", "https://worker-1.internal:443"),
        ("HTTP://Worker-1.Internal:80", "http://worker-1.internal:80"),
        ("http://[::ffff:10.0.0.9]:8", "http://[::ffff:10.0.0.9]:8"),
    ],
)
def test_addresses_of_allowed_networks_and_names_pass(url: str, found: str) -> None:
    assert AllowedAddresses.of(["10.0.0.0/8", "worker-1.internal"]).check(url) == found


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://169.254.169.254",
        "http://[::ffff:169.254.169.254]",
        "http://[fe80::1]",
        "http://0.0.0.0:80",
        "http://[::]:80",
        "http://224.0.0.1",
        "http://11.0.0.1",
        "http://evil.example",
        "http://localhost.evil.example",
        "http://2130706433",  # 127.0.0.1 as one number
        "http://0x7f.1",
        "http://127.1",
        "http://user@127.0.0.1",
        "http://127.0.0.1@evil.example",
        "http://127.0.0.1:80/path",
        "http://127.0.0.1:80?x",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:80#x",
        "file:///etc/passwd",
        "gopher://127.0.0.1",
        "//127.0.0.1",
        "127.0.0.1:80",
        "",
        "http://",
        "http://[::1",
        "http://127.0.0.1\r\nx: y",
    ],
)
def test_all_others_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        AllowedAddresses.of(["10.0.0.0/8", "worker-1.internal"]).check(url)


def test_no_network_however_wide_allows_addresses_that_belong_to_no_machine() -> None:
    everything = AllowedAddresses.of(["0.0.0.0/0", "::/0"])
    assert everything.check("http://203.0.113.7:1")
    for url in ("http://169.254.169.254", "http://[fe80::1]", "http://0.0.0.0", "http://[ff02::1]"):
        with pytest.raises(UsageError):
            everything.check(url)


@pytest.mark.parametrize("word", ["", "http://x", "10.0.0.0/99", "a b:c", " x"])
def test_words_that_are_neither_network_nor_name_are_refused(word: str) -> None:
    with pytest.raises(UsageError):
        AllowedAddresses.of([word])
