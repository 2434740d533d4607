"""Proves src/selfee/engines/paid: pace, concurrency, breaker, budget, keys. Time is made, not waited for."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfee.engines.base import Usage
from selfee.engines.paid.breaker import Breaker, BreakerRules
from selfee.engines.paid.calling import is_model
from selfee.engines.paid.faults import Fault
from selfee.engines.paid.gate import Gate, GateRules
from selfee.engines.paid.limits import Bucket, Concurrency, KeyPace, RateLimits, exhausted_for, parse_duration
from selfee.engines.paid.prices import Price, find_price
from selfee.errors import StoppedError, UsageError

SERVER = Fault("server", "out of order", may_pass=True)
RATE = Fault("rate", "slow down", may_pass=True, is_overload=True, counts=False)


def pace_through(pace: KeyPace, sizes: list[float], thought: float, seconds: float) -> tuple[int, float]:
    """Requests and tokens that go through in so much made time, each settled to its true size at once."""
    now, count, tokens = 0.0, 0, 0.0
    while True:
        wait = pace.wait(thought, now)
        now += wait
        if now > seconds:
            return count, tokens
        if wait > 0:
            continue
        pace.take(thought, now)
        size = sizes[count % len(sizes)]
        pace.settle(size - thought, now)
        count, tokens = count + 1, tokens + size


@settings(max_examples=12, deadline=None)
@given(st.floats(30, 6_000))
def test_requests_a_minute_are_kept_within_five_percent(rpm: float) -> None:
    count, _ = pace_through(KeyPace(RateLimits(requests=rpm), 0.0), [1.0], 1.0, 120.0)
    assert 0.95 * 2 * rpm - 1 <= count <= 1.05 * 2 * rpm + 1


@settings(max_examples=12, deadline=None)
@given(
    st.floats(5_000, 60_000), st.lists(st.floats(20, 800), min_size=1, max_size=20), st.sampled_from([0.5, 1.0, 2.0])
)
def test_tokens_a_minute_are_kept_within_five_percent_whatever_was_thought(
    tpm: float, sizes: list[float], error: float
) -> None:
    mean = sum(sizes) / len(sizes)
    _, tokens = pace_through(KeyPace(RateLimits(tokens=tpm), 0.0), sizes, error * mean, 240.0)
    assert tokens == pytest.approx(4 * tpm, rel=0.05, abs=2000)


def test_a_request_larger_than_the_bucket_goes_and_is_owed() -> None:
    bucket = Bucket(600, burst_seconds=1.0, smallest=1.0, now=0.0)  # ten a second
    assert bucket.wait(100, 0.0) == 0
    bucket.take(100, 0.0)
    assert bucket.wait(1, 0.0) == pytest.approx(9.1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("12", 12),
        ("", None),
        ("soon", None),
        ("9d", None),
    ],
)
def test_durations_are_read_as_servers_write_them(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=12))
def test_no_duration_crashes_the_reader(text: str) -> None:
    found = parse_duration(text)
    assert found is None or found >= 0


def test_a_spent_allowance_pauses_until_it_is_filled_again() -> None:
    headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2s"}
    assert exhausted_for(headers) == 2
    assert exhausted_for(headers | {"x-ratelimit-remaining-tokens": "5"}) is None


def test_concurrency_doubles_until_the_server_is_overloaded_and_then_creeps() -> None:
    concurrency = Concurrency(most=100, start=4)
    for _ in range(28):
        concurrency.succeeded(concurrency.limit - 1)
    assert concurrency.limit == 32
    concurrency.overloaded(started=0.0, now=1.0)
    assert concurrency.limit == 16
    concurrency.overloaded(started=0.5, now=1.1)  # sent before the cut: tells nothing new
    assert concurrency.limit == 16
    for _ in range(16):
        concurrency.succeeded(concurrency.limit - 1)
    assert concurrency.limit == 16
    concurrency.succeeded(concurrency.limit - 1)
    assert concurrency.limit == 17


def test_a_limit_that_is_not_reached_does_not_grow() -> None:
    concurrency = Concurrency(most=100, start=8)
    for _ in range(50):
        concurrency.succeeded(2)
    assert concurrency.limit == 8


def test_the_breaker_pauses_tries_once_and_gives_up_at_last() -> None:
    breaker = Breaker(BreakerRules(window=20, share=0.5, fewest=4, pause=10, pauses=2))
    now = 0.0
    for _ in range(4):
        assert breaker.wait(now) == 0
        breaker.failed("server", now, tried=breaker.begin())
    assert breaker.wait(now) == 10
    assert breaker.wait(10) == 0
    tried = breaker.begin()
    assert breaker.wait(10) is None, "one tries, the others wait"
    breaker.failed("server", 10, tried=False)  # an old one comes back
    assert breaker.wait(10) is None
    breaker.failed("server", 10, tried=tried)
    assert breaker.wait(10) == 20
    breaker.failed("timeout", 30, tried=breaker.begin())
    assert breaker.given_up == "7 of the last 7 attempts failed (6 server, 1 timeout)"


def test_the_breaker_closes_when_the_trial_goes_well() -> None:
    breaker = Breaker(BreakerRules(fewest=2, window=4, pause=1))
    for _ in range(2):
        breaker.failed("server", 0.0, tried=breaker.begin())
    assert breaker.begin()
    breaker.succeeded()
    assert breaker.wait(0.0) == 0
    assert not breaker.begin()


def test_some_failures_among_many_replies_do_not_pause() -> None:
    breaker = Breaker(BreakerRules())
    for number in range(500):
        if number % 3 == 0:
            breaker.failed("server", 0.0)
        else:
            breaker.succeeded()
    assert breaker.wait(0.0) == 0


def test_the_budget_is_not_exceeded_and_the_state_is_kept() -> None:
    gate = Gate(GateRules(max_cost=1.0), spent=0.6)

    def enter() -> None:
        with pytest.raises(StoppedError):
            gate.enter(10, 0.15)

    first = gate.enter(10, 0.15)
    second = gate.enter(10, 0.15)
    waiting = threading.Thread(target=enter, daemon=True)
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive(), "what is in flight may turn out cheaper"
    assert gate.waits_for == "budget"
    gate.succeeded(first, 10, 0.15, {})
    gate.succeeded(second, 10, 0.15, {})
    waiting.join(5)
    assert not waiting.is_alive()
    assert gate.spent == pytest.approx(0.9)
    with pytest.raises(StoppedError, match="max-cost"):
        gate.enter(10, 0.15)


def test_a_bad_key_is_taken_out_and_the_last_one_stops_the_run() -> None:
    gate = Gate(GateRules(), ["one", "two"])
    bad = Fault("key", "who are you", may_pass=False, counts=False, spoils_key=True)
    used = []
    for _ in range(3):
        entry = gate.enter(1)
        used.append(entry.key)
        if entry.key == 0:
            gate.failed(entry, bad, {})
        else:
            gate.succeeded(entry, 1, 0, {})
    assert used == [0, 1, 1]
    assert gate.keys_left == 1
    gate.failed(gate.enter(1), bad, {})
    with pytest.raises(StoppedError, match="no key is left"):
        gate.enter(1)


def test_keys_take_turns_and_a_paused_one_is_passed_over() -> None:
    now = [0.0]
    gate = Gate(GateRules(concurrency=50, start_concurrency=50), ["one", "two", "three"], clock=lambda: now[0])
    assert [gate.enter(1).key for _ in range(4)] == [0, 1, 2, 0]
    entry = gate.enter(1)
    assert entry.key == 1
    gate.failed(entry, Fault("rate", "slow", may_pass=True, counts=False, retry_after=100.0), {})
    assert [gate.enter(1).key for _ in range(4)] == [2, 0, 2, 0]


def test_stopping_wakes_who_waits() -> None:
    gate = Gate(GateRules(concurrency=1, start_concurrency=1))
    gate.enter(1)
    told = []

    def wait() -> None:
        try:
            gate.enter(1)
        except StoppedError as error:
            told.append(str(error))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.stop("enough")
    for thread in threads:
        thread.join(5)
    assert told == ["enough"] * 3


def test_overload_halves_what_may_be_under_way() -> None:
    gate = Gate(GateRules(concurrency=16, start_concurrency=16))
    gate.failed(gate.enter(1), RATE, {})
    assert gate.limit == 8
    gate.failed(gate.enter(1), SERVER, {})
    assert gate.limit == 8


@pytest.mark.parametrize(
    ("asked", "answered", "same"),
    [
        ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", True),
        ("gpt-4", "gpt-4-turbo", False),
        ("llama3", "llama3:latest", True),
        ("org/Model-7B", "model-7b", True),
        ("m", "", True),
        ("a", "b", False),
    ],
)
def test_a_dated_version_is_the_model_asked_for_and_another_model_is_not(asked: str, answered: str, same: bool) -> None:
    assert is_model(asked, answered) is same


def test_prices_count_what_was_cached() -> None:
    usage = Usage(1_000_000, 400_000, 500_000, 0.0, 0.0)
    assert Price(2.0, 8.0).of(usage) == pytest.approx(6.0)
    assert Price(2.0, 8.0, cached_input=0.5).of(usage) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 4.0)
    with pytest.raises(UsageError, match="price: input"):
        Price(-1.0, 0.0)


def test_the_price_list_knows_providers_models_and_says_so_of_others() -> None:
    price = find_price("gpt-4o-mini", "https://api.openai.com/v1")
    assert price is not None
    assert 0 < price.input < price.output
    assert find_price("no-such-model-anywhere") is None
    assert find_price("gpt-4o-mini", "http://127.0.0.1:8000/v1") is None
