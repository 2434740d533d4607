"""One thread writes a database for all others: what waits together is committed together, with one sync to the disk."""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from selfee.errors import UsageError

T = TypeVar("T")

_MOST = 256  # actions of one transaction

Action = Callable[[sqlite3.Connection], Any]
_Waiting = tuple[Action, Future[Any], bool]


class Writer:
    """Runs actions in transactions, in the order they were given; a future is done once its action is on the disk.

    ``connect`` opens the database (called in this thread), ``translate`` turns its errors into ours. An action that
    fails leaves the others of its transaction untouched.
    """

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], translate: Callable[[sqlite3.Error], Exception]
    ) -> None:
        self._translate = translate
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._connection = connect()
        self._is_closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def submit(self, action: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> Future[T]:
        """Have ``action`` run; its result comes through the future. Raises UsageError after ``close``.

        What is not ``durable`` survives the death of this process, but not that of the machine.
        """
        done: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                raise UsageError("journal: is closed already; open it again")
            self._waiting.put((action, done, durable))
        return done

    def close(self) -> None:
        """Do what is waiting, then end."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        is_open = True
        while is_open:
            batch = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < _MOST:
                    batch.append(self._waiting.get_nowait())
            is_open = None not in batch
            self._commit([item for item in batch if item is not None])
        self._connection.close()

    def _commit(self, batch: list[_Waiting]) -> None:
        outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            level = "FULL" if any(durable for _, _, durable in batch) else "NORMAL"
            self._connection.execute(f"PRAGMA synchronous = {level}")
            self._connection.execute("BEGIN IMMEDIATE")
            for action, done, _ in batch:
                outcomes.append((done, *self._run(action)))
            self._connection.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            told = self._translate(error) if isinstance(error, sqlite3.Error) else error
            for _, done, _ in batch:
                done.set_exception(told)
            return
        for done, result, failure in outcomes:
            if failure is None:
                done.set_result(result)
            else:
                done.set_exception(failure)

    def _run(self, action: Action) -> tuple[Any, BaseException | None]:
        self._connection.execute("SAVEPOINT one")
        try:
            result = action(self._connection)
        except BaseException as error:
            self._connection.execute("ROLLBACK TO one")
            return None, self._translate(error) if isinstance(error, sqlite3.Error) else error
        finally:
            self._connection.execute("RELEASE one")
        return result, None
