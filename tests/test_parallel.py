"""Proves src/selfee/parallel.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfee.errors import UsageError
from selfee.parallel import in_order, run_parallel


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 6))
def test_every_item_comes_once_with_its_number_whatever_the_order_of_completion(
    delays: list[int], workers: int
) -> None:
    def slow(delay: int) -> int:
        time.sleep(delay / 2000)
        return delay * 10

    results = list(run_parallel(slow, delays, workers))
    assert sorted(results) == sorted(enumerate(delay * 10 for delay in delays))
    assert list(in_order(run_parallel(slow, delays, workers))) == [delay * 10 for delay in delays]


def test_items_are_not_taken_ahead_of_what_is_worked_on() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = run_parallel(lambda item: item, items(), 2)
    next(results)
    time.sleep(0.05)
    assert len(taken) <= 8  # two results wait, two workers hold one each, and what was read
    results.close()  # type: ignore[attr-defined]


def test_the_first_failure_is_raised_after_the_calls_under_way_have_ended() -> None:
    ended = []

    def work(item: int) -> int:
        if item == 0:
            raise ValueError("the first fails")
        time.sleep(0.02)
        ended.append(item)
        return item

    with pytest.raises(ValueError, match="the first fails"):
        list(run_parallel(work, range(1000), 3))
    assert len(ended) < 10


def test_closing_waits_for_the_calls_under_way_and_starts_no_more() -> None:
    running = threading.Semaphore(0)
    ended = []

    def work(item: int) -> int:
        running.release()
        time.sleep(0.03)
        ended.append(item)
        return item

    results = run_parallel(work, range(1000), 4)
    next(results)
    results.close()  # type: ignore[attr-defined]
    count = len(ended)
    time.sleep(0.1)
    assert len(ended) == count < 20


def test_no_workers_are_refused() -> None:
    with pytest.raises(UsageError, match="workers: 0"):
        list(run_parallel(str, [1], 0))
