"""A download survives what networks do, and never leaves a bad file behind."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.weights.fetch.file_server import File, Server, serve

from selfee.errors import DownloadError, ResourceError, UsageError
from selfee.weights.disk import file_lock, human_size
from selfee.weights.fetch.download import Fetched, Wanted, fetch
from selfee.weights.fetch.store import what_it_is
from selfee.weights.fetch.transport import Network, Secret, Transport, origin_of, without_secrets

BODY = b"GGUF" + bytes(range(256)) * 4000
SHA256 = hashlib.sha256(BODY).hexdigest()
QUICK = Network(backoff_seconds=0.0, stall_seconds=5.0, connect_seconds=5.0, attempts=3)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


class Log:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.begins: list[tuple[int | None, int]] = []
        self.notes: list[str] = []
        self.received = 0

    def begin(self, label: str, total: int | None, done: int) -> None:
        self.begins.append((total, done))

    def advance(self, count: int) -> None:
        self.received += count

    def note(self, text: str) -> None:
        self.notes.append(text)

    def end(self) -> None:
        self.received += 0


class Outcome(NamedTuple):
    fetched: Fetched
    log: Log


def get(wanted: Wanted, target: Path, network: Network = QUICK) -> Outcome:
    log = Log()
    with Transport(network) as transport:
        return Outcome(fetch(wanted, target, transport, log), log)


def leftovers(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_arrives_whole_and_nothing_else_is_left(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(BODY))
    outcome = get(Wanted(url, "m", SHA256, len(BODY)), tmp_path / "m.gguf")
    assert outcome.fetched == Fetched(tmp_path / "m.gguf", SHA256, len(BODY), is_verified=True)
    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert leftovers(tmp_path / "m.gguf") == ["m.gguf"]
    assert outcome.log.received == len(BODY)


def test_a_connection_cut_in_the_middle_is_resumed_where_it_was_cut(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(BODY, cut_at=[len(BODY) // 2]))
    outcome = get(Wanted(url, "m", SHA256), tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert [headers.get("range") for _, headers in server.asked] == [None, f"bytes={len(BODY) // 2}-"]
    assert outcome.log.received == len(BODY)


def test_a_resume_without_any_checksum_asks_that_the_file_be_the_same(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(BODY, cut_at=[1000], then=BODY[:4] + b"new" * 999))
    outcome = get(Wanted(url, "m"), tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == BODY[:4] + b"new" * 999
    assert server.asked[1][1]["if-range"] == f'"{hash(BODY)}"'
    assert not outcome.fetched.is_verified


def test_a_server_without_resume_sends_everything_again(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(BODY, cut_at=[5000], ignores_range=True))
    outcome = get(Wanted(url, "m", SHA256), tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert [done for _, done in outcome.log.begins] == [0, 0]


def test_server_errors_are_retried(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(BODY, failures=[500, 503]))
    outcome = get(Wanted(url, "m", SHA256), tmp_path / "m.gguf")
    assert outcome.fetched.size == len(BODY)
    assert "answers 500" in outcome.log.notes[0]


def test_a_server_that_keeps_failing_is_given_up_and_what_came_is_kept(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(BODY, cut_at=[7000, 0, 0, 0]))
    target = tmp_path / "m.gguf"
    with pytest.raises(DownloadError, match=r"cannot be reached|cut off"):
        get(Wanted(url, "m", SHA256), target)
    assert not target.exists()
    assert (tmp_path / "m.gguf.part").stat().st_size == 7000
    get(Wanted(url, "m", SHA256), target)
    assert target.read_bytes() == BODY
    assert server.asked[-1][1]["range"] == "bytes=7000-"


def test_a_wrong_checksum_is_fetched_again_once_and_then_refused(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(BODY[:-1] + b"!"))
    with pytest.raises(DownloadError, match=f"expected {SHA256}; nothing was kept"):
        get(Wanted(url, "m", SHA256, len(BODY)), tmp_path / "m.gguf")
    assert len(server.asked) == 2
    assert leftovers(tmp_path / "m.gguf") == []


def test_a_file_damaged_once_on_the_way_is_repaired(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(BODY[:-1] + b"!", then=BODY))
    outcome = get(Wanted(url, "m", SHA256, len(BODY)), tmp_path / "m.gguf")
    assert outcome.log.notes == ["the checksum does not match; fetching it again"]
    assert (tmp_path / "m.gguf").read_bytes() == BODY


@pytest.mark.parametrize("length", [len(BODY) - 1, len(BODY) + 1, 10**17])
def test_a_wrong_length_is_refused_before_a_byte_is_read(server: Server, tmp_path: Path, length: int) -> None:
    url = server.add("/m.gguf", File(BODY, lies_about_length=length))
    with pytest.raises(DownloadError, match=f"has {length} bytes; expected {len(BODY)}"):
        get(Wanted(url, "m", SHA256, len(BODY)), tmp_path / "m.gguf")
    assert leftovers(tmp_path / "m.gguf") == []


def test_a_body_without_length_that_does_not_end_is_cut_off(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(BODY * 3, is_chunked=True))
    with pytest.raises(DownloadError, match="sends more than the"):
        get(Wanted(url, "m", None, None, max_bytes=len(BODY)), tmp_path / "m.gguf")
    assert leftovers(tmp_path / "m.gguf") == []


def test_a_web_page_instead_of_a_model_is_refused(server: Server, tmp_path: Path) -> None:
    page = b"<html>log in</html>"
    url = server.add("/m.gguf", File(page, headers={"content-type": "text/html; charset=utf-8"}))
    with pytest.raises(DownloadError, match=r"a web page .* came instead"):
        get(Wanted(url, "m", check_head=what_it_is), tmp_path / "m.gguf")
    plain = server.add("/n.gguf", File(page * 10))
    with pytest.raises(DownloadError, match="a web page came instead of a model"):
        get(Wanted(plain, "n", check_head=what_it_is), tmp_path / "n.gguf")
    assert leftovers(tmp_path / "m.gguf") == []


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n" + b" " * 64, "a Git LFS pointer"),
        (b"PK\x03\x04" + bytes(99), "a zip archive"),
        (b"", "an empty file"),
        (b"junk" * 30, "a file that starts with b'junk'"),
    ],
)
def test_what_came_instead_of_a_model_is_named(server: Server, tmp_path: Path, body: bytes, name: str) -> None:
    url = server.add("/m.gguf", File(body))
    with pytest.raises(DownloadError, match=f"{name} came instead of a model"):
        get(Wanted(url, "m", check_head=what_it_is), tmp_path / "m.gguf")
    assert leftovers(tmp_path / "m.gguf") == []


def test_a_redirect_to_another_host_does_not_carry_the_secret(server: Server, tmp_path: Path) -> None:
    with serve() as other:
        there = other.add("/cdn/m.gguf", File(BODY))
        url = server.add("/m.gguf", File(status=302, headers={"location": there, "x-linked-etag": f'"{SHA256}"'}))
        secret = Secret(origin_of(url), "Bearer hf_secret")
        outcome = get(Wanted(url, "m", secrets=(secret,)), tmp_path / "m.gguf")
        assert server.asked[0][1]["authorization"] == "Bearer hf_secret"
        assert "authorization" not in other.asked[0][1]
    assert outcome.fetched.is_verified  # by the checksum that the hub announced


def test_the_checksum_that_a_hub_announces_is_enforced(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(BODY, headers={"x-linked-etag": f'"{"0" * 64}"'}))
    with pytest.raises(DownloadError, match="expected " + "0" * 64):
        get(Wanted(url, "m"), tmp_path / "m.gguf")


def test_an_etag_is_a_checksum_at_a_hub_only(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(BODY, headers={"etag": f'"{"0" * 64}"'}))
    assert not get(Wanted(url, "m"), tmp_path / "m.gguf").fetched.is_verified
    with pytest.raises(DownloadError, match="expected " + "0" * 64):
        get(Wanted(url, "m", etag_is_sha256=True), tmp_path / "n.gguf")


def test_a_secret_is_in_no_error(server: Server, tmp_path: Path) -> None:
    host = server.address.removeprefix("http://")
    url = f"http://user:pa55@{host}/missing.gguf?token=s3cret#s3cret"
    with pytest.raises(DownloadError) as caught:
        get(Wanted(url, "m"), tmp_path / "m.gguf")
    assert "answers 404" in str(caught.value)
    assert "pa55" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert server.asked[0][1]["authorization"] == "Basic dXNlcjpwYTU1"


def test_redirects_in_a_circle_end(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(status=302, headers={"location": "/m.gguf"}))
    with pytest.raises(DownloadError, match="more than 10 redirects"):
        get(Wanted(url, "m"), tmp_path / "m.gguf")


def test_a_redirect_to_a_file_of_this_machine_is_refused(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(status=302, headers={"location": "file:///etc/passwd"}))
    with pytest.raises(DownloadError, match="expected http or https"):
        get(Wanted(url, "m"), tmp_path / "m.gguf")


def test_a_server_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with serve() as gone:
        url = f"{gone.address}/m.gguf"
    with pytest.raises(DownloadError, match=r"cannot be reached .*; check the connection"):
        get(Wanted(url, "m"), tmp_path / "m.gguf")


def test_a_silent_server_is_given_up(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(BODY, silent_seconds=1.0))
    hurried = Network(backoff_seconds=0.0, stall_seconds=0.1, attempts=2)
    with pytest.raises(DownloadError, match="no answer in time"):
        get(Wanted(url, "m"), tmp_path / "m.gguf", hurried)
    assert len(server.asked) == 2


def test_a_full_disk_is_said_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.add("/m.gguf", File(BODY))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ResourceError, match=r"1\.0 MB more are needed and 1\.0 kB are free.*SELFEE_MODELS"):
        get(Wanted(url, "m", SHA256), tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf.part").exists()


def test_a_disk_that_fills_up_on_the_way_keeps_what_has_come(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.add("/m.gguf", File(BODY))
    log = Log()

    def full(count: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(log, "advance", full)
    with Transport(QUICK) as transport, pytest.raises(ResourceError, match=r"the disk is full.*is kept"):
        fetch(Wanted(url, "m", SHA256, len(BODY)), tmp_path / "m.gguf", transport, log)
    assert (tmp_path / "m.gguf.part").stat().st_size > 0
    assert get(Wanted(url, "m", SHA256, len(BODY)), tmp_path / "m.gguf").fetched.sha256 == SHA256


CHILD = """
import sys
from pathlib import Path
from selfee.weights.fetch.download import Wanted, fetch
from selfee.weights.fetch.transport import Network, Transport
with Transport(Network()) as transport:
    fetch(Wanted(sys.argv[1], "m", sys.argv[2]), Path(sys.argv[3]), transport)
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_process_killed_in_the_middle_is_resumed_by_the_next(
    server: Server, tmp_path: Path, kill: signal.Signals
) -> None:
    url = server.add("/m.gguf", File(BODY, bytes_per_second=400_000))
    target = tmp_path / "m.gguf"
    child = subprocess.Popen([sys.executable, "-c", CHILD, url, SHA256, str(target)], stderr=subprocess.DEVNULL)
    part = tmp_path / "m.gguf.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 200_000):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(kill)
    child.wait()
    assert not target.exists()
    here = part.stat().st_size
    assert 0 < here < len(BODY)
    server.files["/m.gguf"].bytes_per_second = None
    outcome = get(Wanted(url, "m", SHA256), target)
    assert target.read_bytes() == BODY
    assert server.asked[-1][1]["range"] == f"bytes={here}-"
    assert outcome.log.received == len(BODY) - here


def test_a_whole_part_left_by_a_kill_before_the_rename_needs_no_server(tmp_path: Path) -> None:
    with serve() as server:
        url = server.add("/m.gguf", File(BODY))
        target = tmp_path / "m.gguf"
        get(Wanted(url, "m", SHA256, len(BODY)), target)
    target.rename(tmp_path / "m.gguf.part")
    (tmp_path / "m.gguf.part.json").write_text(f'{{"sha256": "{SHA256}", "size": {len(BODY)}}}')
    assert get(Wanted(url, "m", SHA256, len(BODY)), target).fetched.size == len(BODY)


@pytest.mark.parametrize("notes", ["", "[]", "{", '{"sha256": 5, "size": "x"}', '{"sha256": null}'])
def test_damaged_notes_beside_a_part_mean_starting_afresh(server: Server, tmp_path: Path, notes: str) -> None:
    url = server.add("/m.gguf", File(BODY))
    (tmp_path / "m.gguf.part").write_bytes(b"GGUF of something else")
    (tmp_path / "m.gguf.part.json").write_text(notes)
    get(Wanted(url, "m", SHA256), tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == BODY


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(1, len(BODY) - 1), max_size=6), ignores=st.booleans())
def test_wherever_it_is_cut_the_file_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], ignores: bool
) -> None:
    target = tmp_path_factory.mktemp("cuts") / "m.gguf"
    with serve() as server:
        url = server.add("/m.gguf", File(BODY, cut_at=list(cuts), ignores_range=ignores))
        patient = Network(backoff_seconds=0.0, attempts=20)
        assert get(Wanted(url, "m", SHA256, len(BODY)), target, patient).fetched.sha256 == SHA256
    assert target.read_bytes() == BODY


def test_a_local_file_is_copied_and_stays_where_it_is(tmp_path: Path) -> None:
    source = tmp_path / "with space & ä.whl"
    source.write_bytes(BODY)
    target = tmp_path / "store" / "m"
    get(Wanted(source.as_uri(), "m", SHA256, len(BODY)), target)
    assert target.read_bytes() == source.read_bytes()


def test_a_lock_is_held_against_another_process_and_freed_by_its_death(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from selfee.weights.disk import file_lock\n"
        "with file_lock(Path(sys.argv[1]), print): print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    waited: list[bool] = []

    def kill() -> None:
        waited.append(True)
        child.kill()

    with file_lock(lock, kill):
        assert waited == [True]
    child.wait()
    child.stdout.close()


@pytest.mark.parametrize("url", ["ftp://host/f", "http://", "http://[::1", "https://host:99999/x", "http://a b/c"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no address to download from"):
        origin_of(url)


def test_an_address_is_shown_without_what_is_secret_in_it() -> None:
    assert without_secrets("https://u:p@host:1/a/b?sig=1#x") == "https://host:1/a/b"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (98_362_432, "98.4 MB"), (2**42, "4.4 TB")]
)
def test_sizes_read_as_a_person_writes_them(count: int, text: str) -> None:
    assert human_size(count) == text
