"""Sessions are lent with the longest beginning that any of them holds, to the first who came, within bounds."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.test_local import ToySession

from selfee.engines.sessions import HeldSession, SessionPool

TEXTS = st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=12)


def fill(held: HeldSession[ToySession], tokens: list[int]) -> int:
    """Hold exactly these tokens; returns how many were there."""
    cached = held.align(tokens, len(tokens))
    if tokens[cached:]:
        held.session.forward(tokens[cached:])
    return cached


@given(TEXTS, st.integers(1, 3), st.sampled_from([None, 10, 40]))
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
