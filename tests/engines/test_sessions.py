"""Sessions are lent with the longest beginning that any of them holds, to the first who came, within bounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.test_local import ToySession

from selfee.engines.sessions import HeldSession, SessionPool, count_shared
from selfee.errors import ResourceError

# Sessions are told apart from 16 tokens on.
LONG = st.lists(st.sampled_from([0, 1]), max_size=6).map(lambda tokens: [token for token in tokens for _ in range(9)])
TEXTS = st.lists(LONG, max_size=12)


def fill(held: HeldSession[ToySession], tokens: list[int]) -> int:
    """Hold exactly these tokens; returns how many were there."""
    cached = held.align(tokens, len(tokens))
    if tokens[cached:]:
        held.session.forward(tokens[cached:])
    return cached


@given(TEXTS, st.integers(1, 3), st.sampled_from([None, 30, 120]))
def test_a_lent_session_holds_what_its_tokens_say_and_bounds_hold(
    texts: list[list[int]], parallel: int, most: int | None
) -> None:
    made: list[ToySession] = []

    def make() -> ToySession:
        made.append(ToySession())
        return made[-1]

    pool = SessionPool(make, parallel, most)
    for tokens in texts:
        with pool.borrow(tokens) as held:
            shared = held.shared(tokens)
            assert held.session.tokens[:shared] == tokens[:shared]
            fill(held, tokens)
            assert held.session.tokens == tokens
            assert len(pool._idle) + len(pool._lent) <= 2 * parallel
        assert len(pool._idle) <= 2 * parallel
        if most is not None:
            assert len(pool._idle) == 1 or sum(each.session.length for each in pool._idle) <= most


def test_author_and_critic_take_turns_and_nothing_is_read_twice() -> None:
    pool, read = SessionPool(ToySession), 0
    author, critic = [1] * 40, [2] * 40
    for _ in range(5):
        for conversation in (author, critic):
            conversation += [3] * 20
            with pool.borrow(conversation) as held:
                read += len(conversation) - fill(held, conversation)
    assert read == len(author) + len(critic)


def test_a_beginning_is_copied_from_a_session_in_use() -> None:
    pool = SessionPool(ToySession, parallel=2)
    with pool.borrow([5] * 30) as first:
        fill(first, [5] * 30)
        second: list[int] = []

        def other() -> None:
            with pool.borrow([5] * 25 + [6]) as held:
                second.append(fill(held, [5] * 25 + [6]))
                assert held.session is not first.session

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(20)
    assert second == [25]


def test_who_came_first_is_served_first() -> None:
    pool: SessionPool[ToySession] = SessionPool(ToySession)
    order: list[int] = []

    def wait(number: int) -> None:
        with pool.borrow():
            order.append(number)

    with pool.borrow():
        threads = []
        for number in range(5):
            threads.append(threading.Thread(target=wait, args=(number,)))
            threads[-1].start()
            until = time.monotonic() + 20
            while len(pool._queue) < number + 1 and time.monotonic() < until:
                time.sleep(0.001)
        assert order == [], "one at a time"
    for thread in threads:
        thread.join(20)
    assert order == [0, 1, 2, 3, 4]


def test_a_session_comes_back_also_from_a_request_that_failed() -> None:
    pool: SessionPool[ToySession] = SessionPool(ToySession)
    for _ in range(3):
        with pytest.raises(RuntimeError), pool.borrow([1]):
            raise RuntimeError
    assert not pool._lent
    assert len(pool._idle) == 1


def test_the_latest_is_what_was_used_last_or_adopted() -> None:
    pool: SessionPool[ToySession] = SessionPool(ToySession)
    with pool.borrow_latest() as held:
        assert held is None
    with pool.borrow([1] * 20) as used:
        fill(used, [1] * 20)
        with pool.borrow_latest() as held:
            assert held is used, "this thread is in the middle of it"
    adopted = HeldSession(ToySession(), [])
    fill(adopted, [2] * 20)
    pool.adopt(adopted)
    with pool.borrow_latest() as held:
        assert held is adopted
    with pool.borrow([2] * 20 + [3]) as held:
        assert held is adopted


class Quiet:
    """A context that takes a while to begin, as long as passes are under way."""

    def __init__(self) -> None:
        self.wanted, self.granted = threading.Event(), threading.Event()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.wanted.set()
        assert self.granted.wait(20)
        yield


def test_who_waits_for_quiet_holds_up_nobody_who_gives_a_session_back() -> None:
    """Else a pass whose end waits for the sessions, and whoever copies one, would wait for each other for ever."""
    quiet = Quiet()
    pool = SessionPool(ToySession, 2, None, quiet)
    given_back, cached = threading.Event(), []

    def copies() -> None:
        with pool.borrow([5] * 25 + [6]) as held:
            cached.append(fill(held, [5] * 25 + [6]))

    def gives_back() -> None:
        with pool.borrow([5] * 30) as held:
            fill(held, [5] * 30)
            other = threading.Thread(target=copies, daemon=True)
            other.start()
            assert quiet.wanted.wait(20)
        given_back.set()

    threading.Thread(target=gives_back, daemon=True).start()
    assert given_back.wait(5), "it waits for whoever waits for quiet"
    quiet.granted.set()
    until = time.monotonic() + 20
    while not cached and time.monotonic() < until:
        time.sleep(0.001)
    assert cached == [25]


def test_what_computes_whether_it_is_quiet_or_not_is_not_copied() -> None:
    pool = SessionPool(ToySession, parallel=2)
    cached: list[int] = []

    def other() -> None:
        with pool.borrow([5] * 25 + [6]) as held:
            cached.append(fill(held, [5] * 25 + [6]))

    for copied in (True, False):
        with pool.borrow([5] * 30, copied=copied) as held:
            fill(held, [5] * 30)
            pool._idle.clear()
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(20)
            pool._idle.clear()
    assert cached == [25, 0]
    assert not pool._private


def test_saving_the_latest_holds_up_nobody_who_needs_another() -> None:
    pool = SessionPool(ToySession, parallel=2)
    with pool.borrow([1] * 20) as used:
        fill(used, [1] * 20)
    served = threading.Event()

    def other() -> None:
        with pool.borrow([2]) as held:
            assert held is not used
        served.set()

    with pool.borrow_latest() as saved:
        assert saved is used
        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        assert served.wait(5), "it waits for what is being saved"
    thread.join(20)
    assert not pool._lent
    assert used in pool._idle


def test_another_waits_for_the_latest_and_gets_it_as_it_was_left() -> None:
    pool: SessionPool[ToySession] = SessionPool(ToySession, parallel=2)
    seen: list[int] = []

    def save() -> None:
        with pool.borrow_latest() as saved:
            assert saved is not None
            seen.append(saved.session.length)

    with pool.borrow([1] * 20) as held:
        thread = threading.Thread(target=save)
        thread.start()
        time.sleep(0.02)
        assert seen == []
        fill(held, [1] * 20)
    thread.join(20)
    assert seen == [20]


@given(st.lists(LONG, max_size=4), LONG)
def test_the_longest_beginning_that_any_holds_is_found_or_one_that_is_hardly_shorter(
    texts: list[list[int]], wanted: list[int]
) -> None:
    pool: SessionPool[ToySession] = SessionPool(ToySession, parallel=4)
    with ExitStack() as stack:
        for index, tokens in enumerate(texts):
            # Some stay in use, by this thread, and some do not.
            with ExitStack() as shortly:
                fill((stack if index % 2 else shortly).enter_context(pool.borrow(tokens)), tokens)
        held_now = [each.session.tokens[:] for each in (*pool._idle, *pool._lent)]
        longest = max((count_shared(tokens, wanted) for tokens in held_now), default=0)
        with pool.borrow(wanted) as held:
            shared = held.shared(wanted)
            assert longest - 16 < shared <= longest
            assert held.session.tokens[:shared] == wanted[:shared]


def test_a_session_that_cannot_be_made_leaves_the_pool_as_it_was() -> None:
    failing = [True]

    def make() -> ToySession:
        if failing[0]:
            raise ResourceError("no memory")
        return ToySession()

    pool = SessionPool(make)
    with pytest.raises(ResourceError), pool.borrow([1]):
        pass
    assert not pool._queue
    assert not pool._lent
    failing[0] = False
    with pool.borrow([1]) as held:
        assert held.session.length == 0


def test_a_copy_that_fails_gives_the_session_back() -> None:
    class Failing(ToySession):
        def copy_from(self, other: ToySession, length: int) -> None:
            raise MemoryError

    pool: SessionPool[ToySession] = SessionPool(Failing, parallel=2)
    with pool.borrow([5] * 30) as first:
        fill(first, [5] * 30)
        with pytest.raises(MemoryError), pool.borrow([5] * 25 + [6]):
            pass
        assert list(pool._lent) == [first]
    assert not pool._lent
