"""Retries are bounded in number and time, and wait as long as the server asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from selfee.engines.retry import RETRYABLE_STATUSES, RefusedError, RetryPolicy, call_with_retries, parse_retry_after
from selfee.errors import EngineError, UsageError

NOON = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "٣"}, None),
        ({}, None),
    ],
)
def test_every_way_to_say_retry_after_is_understood(headers: Mapping[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, lambda: NOON) == seconds


def test_statuses_worth_a_retry() -> None:
    assert {408, 409, 429, 500, 502, 503, 504, 529} <= RETRYABLE_STATUSES
    assert not {400, 401, 403, 404, 422, 501} & RETRYABLE_STATUSES


class Fake:
    """A clock that only moves when somebody sleeps."""

    def __init__(self, failures: int, again: bool = True, retry_after: float | None = None) -> None:
        self.failures, self.again, self.retry_after = failures, again, retry_after
        self.now = 0.0
        self.slept: list[float] = []

    def attempt(self) -> str:
        if self.failures:
            self.failures -= 1
            raise RefusedError(EngineError("busy"), again=self.again, retry_after=self.retry_after)
        return "done"

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def run(self, policy: RetryPolicy, uniform: Callable[[float, float], float] = max) -> str:
        return call_with_retries(policy, self.attempt, sleep=self.sleep, clock=lambda: self.now, uniform=uniform)


def test_delays_double_up_to_a_limit() -> None:
    fake = Fake(5)
    assert fake.run(RetryPolicy(attempts=6, first_delay=1.0, max_delay=5.0)) == "done"
    assert fake.slept == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_jitter_shortens_a_delay_by_half_at_most() -> None:
    fake = Fake(2)
    fake.run(RetryPolicy(first_delay=1.0), uniform=min)
    assert fake.slept == [0.5, 1.0]


def test_the_server_is_never_asked_earlier_than_it_wants() -> None:
    fake = Fake(1, retry_after=7.0)
    fake.run(RetryPolicy(), uniform=min)
    assert fake.slept == [7.0]


def test_giving_up_says_how_often_it_was_tried() -> None:
    with pytest.raises(EngineError, match=r"busy; gave up after 3 attempts in 1\.5 s") as caught:
        Fake(9).run(RetryPolicy(attempts=3))
    assert caught.value.retryable


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    fake = Fake(9, retry_after=3600.0)
    with pytest.raises(EngineError, match="would have to wait 3600 s; allowed are 120 s"):
        fake.run(RetryPolicy(), uniform=min)
    assert fake.slept == []


def test_what_cannot_get_better_is_not_retried_and_keeps_its_kind() -> None:
    def refuse() -> None:
        raise RefusedError(UsageError("wrong"), again=False)

    with pytest.raises(UsageError, match=r"^wrong$"):
        call_with_retries(RetryPolicy(), refuse)
