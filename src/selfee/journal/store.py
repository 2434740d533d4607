"""A work log in one file: what was asked, by the hash of all that was asked, with what came of it.

An answer is on the disk before ``put`` returns, so a program that is killed goes on where it stood and asks nothing
twice. Threads share one ``Journal``; processes each open their own on the same file (sqlite in WAL mode).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from selfee.errors import BadFileError, ResourceError, UnsupportedFileError, UsageError
from selfee.journal.signs import Sign, is_alive, sweep
from selfee.journal.writer import Writer

SCHEMA_VERSION = 1
_APPLICATION = 0x53466A6C  # "SFjl": what sqlite files of ours say that they are
_BUSY_SECONDS = 60.0  # another process may hold the file that long
_SCHEMA = f"""
    CREATE TABLE calls (
        key TEXT NOT NULL PRIMARY KEY,
        asked TEXT NOT NULL,
        reply TEXT,
        cost REAL,
        at REAL,
        owner TEXT,
        failures INTEGER NOT NULL DEFAULT 0,
        fault TEXT
    );
    CREATE TABLE notes (space TEXT NOT NULL, id TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (space, id));
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = {SCHEMA_VERSION};
"""


def canonical_json(value: Any) -> str:
    """The one way to write a JSON value: keys sorted, no blanks, whole floats as integers.

    Raises UsageError for what JSON cannot say.
    """
    try:
        return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"journal: {error}; expected plain JSON values") from error


def key_of(asked: Any) -> str:
    """The name of a call: a hash of everything that was asked."""
    return hashlib.sha256(canonical_json(asked).encode("ascii")).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One call as the journal holds it."""

    key: str
    asked: Any
    reply: Any | None  # None = no answer yet
    cost: float | None = None  # what it cost, in the unit of whoever put it; None = unknown or nothing
    at: float | None = None  # when the answer was put, seconds since 1970
    failures: int = 0  # attempts that certainly brought no answer
    fault: Any | None = None  # what the last of them failed with


@dataclass(frozen=True)
class Claim:
    """What ``Journal.claim`` found: an answer, the right to ask, or somebody else asking this very moment."""

    reply: Any | None = None
    is_mine: bool = False  # the caller is to ask, and then to ``put``, ``fail`` or ``release``
    failures: int = 0  # attempts that certainly brought no answer
    was_orphaned: bool = False  # a process that is gone had asked; whether the answer was paid for is unknown

    @property
    def is_done(self) -> bool:
        """Whether there is an answer."""
        return self.reply is not None


@dataclass(frozen=True)
class Merged:
    """What merging another journal into this one did."""

    added: int = 0
    known: int = 0
    conflicting: int = 0  # of the known, those that were answered differently: asked twice, the first is kept


class Journal:
    """Calls and notes in one file, made if missing. Close it, or use it in a ``with`` block.

    Raises BadFileError for a file that is not a journal or is damaged, UnsupportedFileError for one of a newer selfee.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._owner = secrets.token_hex(8)
        self._reading = threading.Lock()
        self._reader = self._open()
        self._sign = Sign(self.path, self._owner)
        sweep(self.path)
        self._writer = Writer(self._connect, lambda error: self._translate(error))

    def get(self, key: str) -> Any | None:
        """The answer to a call, or None if there is none yet."""
        row = self._one("SELECT reply FROM calls WHERE key = ?", key)
        return None if row is None or row[0] is None else json.loads(row[0])

    def find(self, key: str) -> Entry | None:
        """Everything about one call, or None if it was never asked."""
        row = self._one(f"SELECT {_COLUMNS} FROM calls WHERE key = ?", key)
        return None if row is None else _entry(row)

    def put(self, key: str, asked: Any, reply: Any, *, cost: float | None = None) -> None:
        """Store an answer (any JSON value but null); it is on the disk when this returns. A first answer stays."""
        if reply is None:
            raise UsageError("journal: a reply is null; expected something to store")
        values = (key, canonical_json(asked), _text(reply), cost, time.time())
        self._write(
            "INSERT INTO calls (key, asked, reply, cost, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
            "reply = excluded.reply, cost = excluded.cost, at = excluded.at, owner = NULL WHERE reply IS NULL",
            values,
        )

    def claim(self, key: str, asked: Any) -> Claim:
        """Ask for the right to ask: of all threads and processes, one at a time gets it, until there is an answer."""
        text = canonical_json(asked)

        def take(connection: sqlite3.Connection) -> Claim:
            query = "SELECT reply, owner, failures FROM calls WHERE key = ?"
            row = connection.execute(query, (key,)).fetchone()
            if row is None:
                connection.execute("INSERT INTO calls (key, asked, owner) VALUES (?, ?, ?)", (key, text, self._owner))
                return Claim(is_mine=True)
            reply, owner, failures = row
            if reply is not None:
                return Claim(reply=json.loads(reply))
            if owner is not None and (owner == self._owner or is_alive(self.path, owner)):
                return Claim(failures=failures)
            connection.execute("UPDATE calls SET owner = ? WHERE key = ?", (self._owner, key))
            return Claim(is_mine=True, failures=failures, was_orphaned=owner is not None)

        return self._writer.submit(take, durable=False).result()

    def fail(self, key: str, fault: Any) -> None:
        """Give a claim back: one more attempt certainly brought no answer, for the reason given."""
        self._write(
            "UPDATE calls SET owner = NULL, failures = failures + 1, fault = ? WHERE key = ? AND reply IS NULL",
            (_text(fault), key),
            durable=False,
        )

    def release(self, key: str) -> None:
        """Give a claim back: nothing was asked."""
        self._write("UPDATE calls SET owner = NULL WHERE key = ? AND owner = ?", (key, self._owner), durable=False)

    def entries(self) -> Iterator[Entry]:
        """Every call in the order of first asking; answers put meanwhile may be among them."""
        last = 0
        while rows := self._all(f"SELECT rowid, {_COLUMNS} FROM calls WHERE rowid > ? ORDER BY rowid LIMIT 500", last):
            last = rows[-1][0]
            yield from (_entry(row[1:]) for row in rows)

    def __len__(self) -> int:
        """Number of answers."""
        row = self._one("SELECT count(*) FROM calls WHERE reply IS NOT NULL")
        return 0 if row is None else int(row[0])

    def spent(self) -> float:
        """The cost of all answers, as far as it is known."""
        row = self._one("SELECT total(cost) FROM calls")
        return 0.0 if row is None else float(row[0])

    def num_orphaned(self) -> int:
        """Calls that a process which is gone had asked and got no answer to: whether they were paid for is unknown."""
        rows = self._all("SELECT owner, count(*) FROM calls WHERE reply IS NULL AND owner IS NOT NULL GROUP BY owner")
        return sum(count for owner, count in rows if owner != self._owner and not is_alive(self.path, owner))

    def note(self, space: str, name: str, value: Any, *, durable: bool = True) -> None:
        """Remember a JSON value under a name; a later value replaces it.

        It is on the disk when this returns; what is not ``durable`` may be lost with the machine's power, not sooner.
        """
        query = "INSERT OR REPLACE INTO notes VALUES (?, ?, ?)"
        self._write(query, (space, name, _text(value)), durable=durable)

    def read_note(self, space: str, name: str) -> Any | None:
        """The value noted under a name, or None."""
        row = self._one("SELECT value FROM notes WHERE space = ? AND id = ?", space, name)
        return None if row is None else json.loads(row[0])

    def forget_note(self, space: str, name: str) -> None:
        """Remove a note, if it is there."""
        self._write("DELETE FROM notes WHERE space = ? AND id = ?", (space, name))

    def notes(self, space: str) -> Iterator[tuple[str, Any]]:
        """Every (name, value) of a space, by name."""
        last = ""
        query = "SELECT id, value FROM notes WHERE space = ? AND id > ? ORDER BY id LIMIT 500"
        while rows := self._all(query, space, last):
            last = rows[-1][0]
            yield from ((name, json.loads(value)) for name, value in rows)

    def merge(self, other: str | Path) -> Merged:
        """Take over the answers and notes of another journal; where both know something, ours stays."""
        with Journal(other) as source:
            merged = Merged()
            for entry in source.entries():
                if entry.reply is not None:
                    merged = self._take_over(entry, merged)
            for space in [row[0] for row in source._all("SELECT DISTINCT space FROM notes ORDER BY space")]:
                for name, value in source.notes(space):
                    self._write("INSERT OR IGNORE INTO notes VALUES (?, ?, ?)", (space, name, _text(value)))
        return merged

    def close(self) -> None:
        """Write what is waiting and close the file; claims not given back are free again."""
        self._writer.close()
        with self._reading:
            self._reader.close()
        self._sign.remove()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Journal({str(self.path)!r})"

    def _take_over(self, entry: Entry, merged: Merged) -> Merged:
        ours = self.get(entry.key)
        if ours is None:
            values = (entry.key, canonical_json(entry.asked), _text(entry.reply), entry.cost, entry.at)
            self._write(
                "INSERT INTO calls (key, asked, reply, cost, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET reply = excluded.reply, cost = excluded.cost, at = excluded.at, owner = NULL WHERE reply IS NULL",
                values,
                wait=False,
            )
            return Merged(merged.added + 1, merged.known, merged.conflicting)
        return Merged(merged.added, merged.known + 1, merged.conflicting + (ours != entry.reply))

    def _open(self) -> sqlite3.Connection:
        if self.path.is_dir():
            raise BadFileError(f"{self.path}: is a folder; expected a file for the journal; give a file's name")
        connection = self._connect()
        try:
            with self._errors():
                self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")  # another process may be making it this moment
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if application != _APPLICATION and (tables or application or version):
                raise BadFileError(
                    f"{self.path}: a database of something else; expected a journal of selfee; give another file"
                )
            if not tables:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
            elif version > SCHEMA_VERSION:
                raise UnsupportedFileError(
                    f"{self.path}: a journal of version {version}; this selfee reads up to {SCHEMA_VERSION}; update it"
                )
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("PRAGMA journal_mode = WAL")

    def _connect(self) -> sqlite3.Connection:
        with self._errors():
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA synchronous = FULL")
            except BaseException:
                connection.close()
                raise
            return connection

    def _one(self, query: str, *values: Any) -> Any:
        with self._reading, self._errors():
            return self._reader.execute(query, values).fetchone()

    def _all(self, query: str, *values: Any) -> list[Any]:
        with self._reading, self._errors():
            return self._reader.execute(query, values).fetchall()

    def _write(self, query: str, values: tuple[Any, ...], *, wait: bool = True, durable: bool = True) -> None:
        done = self._writer.submit(lambda connection: connection.execute(query, values), durable=durable)
        if wait:
            done.result()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: sqlite3.Error) -> Exception:
        text = str(error)
        if "not a database" in text:
            return BadFileError(f"{self.path}: not a database; expected a journal of selfee; give another file")
        if "malformed" in text or isinstance(error, sqlite3.IntegrityError):
            return BadFileError(
                f"{self.path}: damaged ({text}); expected a sound journal; recover what is left with: "
                f"sqlite3 {self.path.name} .recover"
            )
        if "closed" in text:
            return UsageError(f"{self.path}: the journal is closed already")
        return ResourceError(f"{self.path}: cannot be read or written ({text}); check folder, disk space and rights")


_COLUMNS = "key, asked, reply, cost, at, failures, fault"


def _entry(row: Any) -> Entry:
    key, asked, reply, cost, at, failures, fault = row
    loaded = [None if text is None else json.loads(text) for text in (reply, fault)]
    return Entry(key, json.loads(asked), loaded[0], cost, at, failures, loaded[1])


def _text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"journal: {error}; expected plain JSON values") from error


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
