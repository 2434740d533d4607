"""Do the same to many things in several threads: results keep their numbers, memory stays flat."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from selfee.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")


def run_parallel(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[tuple[int, R]]:
    """Yield ``(number, function(item))`` in the order of completion, each item once.

    Items are taken one by one as threads become free, never ahead, and no more than ``workers`` results wait to be
    fetched. The first exception, of ``function`` or of ``items``, is raised here once the calls under way have
    ended. Closing the iterator takes no new items and waits for the calls under way. Raises UsageError for less than
    one worker.
    """
    if workers < 1:
        raise UsageError(f"workers: {workers}; expected 1 or more")
    return _Run(function, enumerate(items), workers).results()


def in_order(results: Iterable[tuple[int, R]]) -> Iterator[R]:
    """Results of ``run_parallel`` by number; what came early is held until its turn."""
    early: dict[int, R] = {}
    wanted = 0
    for number, result in results:
        early[number] = result
        while wanted in early:
            yield early.pop(wanted)
            wanted += 1


class _Run(Generic[T, R]):
    def __init__(self, function: Callable[[T], R], items: Iterator[tuple[int, T]], workers: int) -> None:
        self._function = function
        self._items = items
        self._taking = threading.Lock()
        self._is_over = threading.Event()
        # A bound: a slow reader stops the workers instead of filling the memory.
        self._results: queue.Queue[tuple[int, R] | BaseException | None] = queue.Queue(workers)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]

    def results(self) -> Iterator[tuple[int, R]]:
        try:
            for thread in self._threads:
                thread.start()
            running = len(self._threads)
            failure: BaseException | None = None
            while running:
                result = self._results.get()
                if result is None:
                    running -= 1
                elif isinstance(result, BaseException):
                    failure = failure or result
                    self._is_over.set()
                else:
                    yield result
            if failure is not None:
                raise failure
        finally:
            self._is_over.set()
            self._drain()

    def _drain(self) -> None:
        """Let workers that wait to deliver go on to their end."""
        for thread in self._threads:
            while thread.ident is not None and thread.is_alive():
                try:
                    self._results.get(timeout=0.05)
                except queue.Empty:
                    continue

    def _work(self) -> None:
        try:
            while not self._is_over.is_set():
                with self._taking:
                    numbered = next(self._items, None)
                if numbered is None:
                    break
                number, item = numbered
                self._results.put((number, self._function(item)))
        except BaseException as error:
            self._results.put(error)
        finally:
            self._results.put(None)
