"""Fetch one file: resumable after any interruption, verified, and put in its place whole or not at all.

While it grows, ``model.gguf`` is ``model.gguf.part``; what the next attempt must know to go on (address, validator,
length) lies beside it in ``model.gguf.part.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

import httpx2

from selfee.errors import DownloadError
from selfee.weights.disk import check_space, disk_error, put_in_place
from selfee.weights.fetch.transport import Opened, Secret, Transport, without_secrets

_BLOCK = 1 << 18  # bytes of a local file read and written at once
_MAX_ATTEMPTS = 60  # however much each brought
_LONGEST_WAIT = 30.0  # seconds between attempts, whatever the server asks for
_RETRYABLE = (408, 425, 429, 500, 502, 503, 504, 529)


class Progress(Protocol):
    """Is told how a download goes."""

    def begin(self, label: str, total: int | None, done: int) -> None:
        """A file of ``total`` bytes (None = unknown) starts, or starts again, with ``done`` bytes already here."""
        ...

    def advance(self, count: int) -> None:
        """``count`` more bytes are on disk."""
        ...

    def note(self, text: str) -> None:
        """Something a person may want to know: a wait, a retry."""
        ...

    def end(self) -> None:
        """The file is there, or the attempt was given up."""
        ...


class NoProgress:
    """Tells nobody."""

    def begin(self, label: str, total: int | None, done: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True)
class Wanted:
    """What to fetch and what it must turn out to be."""

    url: str  # http, https or file
    label: str  # what a person calls it
    sha256: str | None = None  # None = whatever the server announces, if it does
    size: int | None = None
    etag_is_sha256: bool = False  # a model hub's ETag is its file's checksum; elsewhere it may be anything
    secrets: tuple[Secret, ...] = ()
    check_head: Callable[[bytes], str | None] | None = None  # first bytes -> what they are instead, or None if fine
    max_bytes: int = 1 << 40


@dataclass(frozen=True)
class Fetched:
    """A file that is in its place."""

    path: Path
    sha256: str
    size: int
    is_verified: bool  # whether the checksum was known beforehand, not merely computed


class _AgainError(Exception):
    """This attempt failed; the next may not."""

    def __init__(self, error: DownloadError, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


def fetch(wanted: Wanted, target: Path, transport: Transport, progress: Progress | None = None) -> Fetched:
    """Bring ``wanted`` to ``target``; goes on where an earlier call was interrupted.

    Raises DownloadError (unreachable, wrong content; nothing is left at ``target``) or ResourceError (disk full; what
    has arrived is kept for the next call).
    """
    progress = progress or NoProgress()
    target.parent.mkdir(parents=True, exist_ok=True)
    download = _Download(wanted, target, transport, progress)
    try:
        return download.run()
    except OSError as error:
        raise disk_error(error, target, wanted.size) from error
    finally:
        download.close()
        progress.end()


class _Download:
    """One file on its way. ``done`` bytes are on disk, and ``hasher`` has seen exactly those."""

    def __init__(self, wanted: Wanted, target: Path, transport: Transport, progress: Progress) -> None:
        self.wanted = wanted
        self.target = target
        self.part = target.with_name(target.name + ".part")
        self.notes = target.with_name(target.name + ".part.json")
        self.transport = transport
        self.progress = progress
        self.where = without_secrets(wanted.url)
        self.address = hashlib.sha256(wanted.url.encode()).hexdigest()  # an address may hold a secret
        self.sha256 = wanted.sha256
        self.total = wanted.size
        self.validator: str | None = None
        self.done = 0
        self.hasher = hashlib.sha256()
        self.file: BinaryIO | None = None
        self._recall()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def run(self) -> Fetched:
        for is_last in (False, True):
            self._complete()
            found = self.hasher.hexdigest()
            if self.sha256 is None or found == self.sha256:
                return self._commit(found)
            self._restart()
            if not is_last:
                self.progress.note("the checksum does not match; fetching it again")
        self._forget()
        raise DownloadError(
            f"{self.where}: what came has the sha256 {found}, twice; expected {self.sha256}; nothing was kept; "
            "the server or something on the way changes the file: use another mirror"
        )

    def _complete(self) -> None:
        """Try until every byte is here."""
        if self.done and self.done == self.total and self.sha256:
            return  # it had arrived whole and was killed before the rename
        idle = 0
        for _ in range(_MAX_ATTEMPTS):
            before = self.done
            try:
                self._attempt()
                return
            except _AgainError as failure:
                idle = 1 if self.done > before else idle + 1
                last = failure.error
                if idle >= self.transport.network.attempts:
                    break
                wait = failure.wait if failure.wait is not None else self._backoff(idle)
                self.progress.note(f"{failure.error}; trying again")
                time.sleep(min(wait, _LONGEST_WAIT))
        raise last

    def _backoff(self, idle: int) -> float:
        return self.transport.network.backoff_seconds * 2.0 ** (idle - 1)

    def _attempt(self) -> None:
        if urlsplit(self.wanted.url).scheme == "file":
            self._copy_local()
            return
        if self.done and not (self.validator or self.sha256):
            self._restart()  # nothing would tell whether the rest belongs to the same file
        headers = {}
        if self.done:
            headers["range"] = f"bytes={self.done}-"
            if self.validator:
                headers["if-range"] = self.validator
        try:
            with self.transport.get(self.wanted.url, headers, self.wanted.secrets) as opened:
                if self._agree(opened):
                    self._receive(opened.response)
        except httpx2.TimeoutException as error:
            raise _AgainError(DownloadError(f"{self.where}: no answer in time; check the connection")) from error
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise _AgainError(
                DownloadError(f"{self.where}: cannot be reached ({reason}); check the connection")
            ) from error
        if self.total is not None and self.done < self.total:
            raise _AgainError(DownloadError(f"{self.where}: cut off at {self.done} of {self.total} bytes"))
        self._check_head(is_whole=True)

    def _agree(self, opened: Opened) -> bool:
        """Look at status and headers; False if every byte is here already."""
        response = opened.response
        if response.status_code == 416 and self.done:
            if self.done == self.total:
                return False
            self._restart()
            raise _AgainError(DownloadError(f"{self.where}: the server's file is another than before"), 0.0)
        if response.status_code not in (200, 206):
            raise self._refusal(response)
        self._check_type(response)
        self._learn(opened)
        length = _number(response.headers.get("content-length"))
        total = length
        if response.status_code == 206:
            start, total = _content_range(response.headers.get("content-range", ""))
            if start != self.done:
                self._restart()
                raise _AgainError(DownloadError(f"{self.where}: the server sent another part than asked for"))
        elif self.done:
            self._restart()  # the server does not resume, or its file has changed: this is all of it
        self._expect(total)
        self._remember()
        self.progress.begin(self.wanted.label, self.total, self.done)
        return True

    def _refusal(self, response: httpx2.Response) -> Exception:
        status = response.status_code
        if status in _RETRYABLE:
            wait = _number(response.headers.get("retry-after"))
            return _AgainError(DownloadError(f"{self.where}: the server answers {status}; try again later"), wait)
        hint = {
            401: "it wants a name and password or a token; for hf: set HF_TOKEN, for an index use pip's settings",
            403: "access is refused; accept the model's terms at its page and set HF_TOKEN",
            404: "no such file; check the name",
        }.get(status, "check the address")
        return DownloadError(f"{self.where}: the server answers {status}; expected the file; {hint}")

    def _check_type(self, response: httpx2.Response) -> None:
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml"):
            raise DownloadError(
                f"{self.where}: a web page ({kind}) came instead of {self.wanted.label}; expected the file itself; "
                "check the address, and whether a login page or a mirror stands in the way"
            )
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            raise DownloadError(f"{self.where}: sent as {encoding}, which was not asked for; use another mirror")

    def _learn(self, opened: Opened) -> None:
        """Take the checksum that a model hub announces for large files, and a validator for resuming."""
        etag = opened.response.headers.get("etag", "")
        if self.wanted.sha256 is None:
            said_by_hub = opened.first_headers.get("x-linked-etag", "")
            for said in (said_by_hub, etag if self.wanted.etag_is_sha256 else ""):
                if re.fullmatch(r"[0-9a-f]{64}", said.strip('"')):
                    if self.sha256 not in (None, said.strip('"')):
                        self._restart()
                        self.sha256 = said.strip('"')
                        raise _AgainError(DownloadError(f"{self.where}: the server's file is another than before"), 0.0)
                    self.sha256 = said.strip('"')
                    break
        is_strong = etag.startswith('"')
        self.validator = etag if is_strong else opened.response.headers.get("last-modified")

    def _expect(self, total: int | None) -> None:
        """Compare the length announced with what is known, and with the disk."""
        expected = self.wanted.size
        if total is not None and expected is not None and total != expected:
            raise DownloadError(
                f"{self.where}: the server's file has {total} bytes; expected {expected}; use another mirror"
            )
        self.total = expected if total is None else total
        if self.total is not None:
            if self.total > self.wanted.max_bytes:
                raise self._too_large()
            check_space(self.target.parent, self.total - self.done)

    def _receive(self, response: httpx2.Response) -> None:
        limit = min(self.wanted.max_bytes, self.total if self.total is not None else self.wanted.max_bytes)
        is_checked = self.done > 0
        try:
            for block in response.iter_raw():  # no block size: it would hold back bytes that a cut then loses
                if self.done + len(block) > limit:
                    raise self._too_large()
                self._write(block)
                if not is_checked:
                    self._check_head()
                    is_checked = True
        finally:
            if self.file is not None:
                self.file.flush()

    def _write(self, block: bytes) -> None:
        if self.file is None:
            self.file = self.part.open("r+b" if self.done else "wb")
            self.file.seek(self.done)
        self.file.write(block)
        self.hasher.update(block)
        self.done += len(block)
        self.progress.advance(len(block))

    def _check_head(self, *, is_whole: bool = False) -> None:
        """Refuse what is no model as soon as its first bytes are here."""
        if self.wanted.check_head is None or (not is_whole and self.done < 64):
            return
        if self.file is not None:
            self.file.flush()
        head = b""
        if self.part.exists():
            with self.part.open("rb") as file:
                head = file.read(64)
        if wrong := self.wanted.check_head(head):
            self._restart()
            self._forget()
            raise DownloadError(f"{self.where}: {wrong} came instead of a model; expected GGUF or GGML; check the name")

    def _too_large(self) -> DownloadError:
        limit = self.total if self.total is not None else self.wanted.max_bytes
        self._restart()
        self._forget()
        return DownloadError(f"{self.where}: sends more than the {limit} bytes expected; nothing was kept")

    def _copy_local(self) -> None:
        """A folder that pip's find-links names: copied, so that removing a model never touches the folder."""
        self._restart()
        source = Path(unquote(urlsplit(self.wanted.url).path))
        try:
            with source.open("rb") as file:
                self._expect(os.fstat(file.fileno()).st_size)
                self.progress.begin(self.wanted.label, self.total, 0)
                while block := file.read(_BLOCK):
                    self._write(block)
        except FileNotFoundError as error:
            raise DownloadError(f"{source}: no such file; check pip's find-links and index-url") from error

    def _commit(self, found: str) -> Fetched:
        if self.file is None:
            self.file = self.part.open("r+b" if self.part.exists() else "wb")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.close()
        put_in_place(self.part, self.target)
        self._forget()
        return Fetched(self.target, found, self.done, is_verified=self.sha256 is not None)

    def _recall(self) -> None:
        """Take up what an earlier run has left, if it is surely a beginning of the same file."""
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
            size = self.part.stat().st_size
        except (OSError, ValueError):
            return
        if not isinstance(notes, dict) or size == 0:
            return
        is_same = notes.get("sha256") == self.sha256 if self.sha256 else notes.get("address") == self.address
        can_resume = bool(notes.get("sha256") or notes.get("validator"))
        if not (is_same and can_resume) or (self.total is not None and size > self.total):
            return
        self.sha256 = notes.get("sha256")
        self.validator = notes.get("validator") if notes.get("address") == self.address else None
        self.total = self.wanted.size or notes.get("size")
        with self.part.open("rb") as file:
            while block := file.read(1 << 20):
                self.hasher.update(block)
                self.done += len(block)

    def _remember(self) -> None:
        notes = {"address": self.address, "validator": self.validator, "size": self.total, "sha256": self.sha256}
        fresh = self.notes.with_name(self.notes.name + ".new")
        fresh.write_text(json.dumps(notes), encoding="utf-8")
        os.replace(fresh, self.notes)

    def _restart(self) -> None:
        self.close()
        self.part.unlink(missing_ok=True)
        self.done = 0
        self.hasher = hashlib.sha256()

    def _forget(self) -> None:
        self.notes.unlink(missing_ok=True)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text.strip()) else None


def _content_range(text: str) -> tuple[int | None, int | None]:
    """First byte and total length of ``bytes 5-9/10``."""
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", text.strip())
    return (int(match[1]), _number(match[2])) if match else (None, None)
