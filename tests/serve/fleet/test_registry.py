"""Who gets the next job."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from selfee.serve.fleet.registry import Registry, Worker


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def registry(count: int = 3, clock: Clock | None = None) -> Registry:
    made = Registry(clock or Clock(), expiry=10)
    for number in range(count):
        made.put(Worker(f"http://w{number}", ("model",)))
    return made


@given(st.integers(1, 6), st.integers(0, 40))
def test_jobs_are_shared_out_evenly(workers: int, jobs: int) -> None:
    made = registry(workers)
    given_to = Counter(made.choose("model").address for _ in range(jobs))  # type: ignore[union-attr]
    counts = [given_to[f"http://w{number}"] for number in range(workers)]
    assert max(counts) - min(counts) <= 1


def test_a_fast_worker_gets_more() -> None:
    made = Registry(Clock())
    made.put(Worker("http://slow", ("model",), speed=1))
    made.put(Worker("http://fast", ("model",), speed=3))
    given_to = Counter(made.choose("model").address for _ in range(40))  # type: ignore[union-attr]
    assert given_to["http://fast"] == 30


@given(st.text(min_size=1), st.integers(2, 6))
def test_a_conversation_goes_to_the_worker_that_knows_it(affinity: str, workers: int) -> None:
    made = registry(workers)
    first = made.choose("model", affinity)
    assert first is not None
    made.beat(first.address, 0)
    again = made.choose("model", affinity)
    assert again is not None
    assert again.address == first.address


def test_unless_that_worker_is_much_busier_than_another() -> None:
    made = registry(2)
    favourite = made.choose("model", "talk")
    assert favourite is not None
    made.beat(favourite.address, 9)
    other = made.choose("model", "talk")
    assert other is not None
    assert other.address != favourite.address


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20, unique=True))
def test_when_a_worker_goes_only_its_own_conversations_move(affinities: list[str]) -> None:
    def homes(made: Registry) -> dict[str, str]:
        found = {}
        for affinity in affinities:
            worker = made.choose("model", affinity)
            assert worker is not None
            found[affinity] = worker.address
            made.beat(worker.address, 0)
        return found

    before, fewer = homes(registry(4)), registry(4)
    fewer.remove("http://w2")
    for affinity, home in homes(fewer).items():
        assert home == before[affinity] or before[affinity] == "http://w2"


def test_a_worker_that_says_nothing_is_forgotten_and_told_so() -> None:
    clock = Clock()
    made = registry(2, clock)
    clock.now = 9
    assert made.beat("http://w0", 0)
    clock.now = 11
    assert [worker.address for worker in made.workers] == ["http://w0"]
    assert not made.beat("http://w1", 0)


def test_nobody_gets_a_job_for_a_model_that_nobody_has_or_all_are_excluded() -> None:
    made = registry(2)
    assert made.choose("other") is None
    assert made.choose("model", exclude={"http://w0", "http://w1"}) is None
    assert made.models() == ["model"]
