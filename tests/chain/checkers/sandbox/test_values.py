"""Plain values go from one process to the other and back unchanged; others are refused."""

from __future__ import annotations

import datetime
import io
import json
import math
from collections import Counter, OrderedDict, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfee.chain.checkers.sandbox.values import NotPlainError, decode, encode, receive, send

HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.timedeltas(),
    lambda inner: st.lists(inner).map(tuple) | st.frozensets(inner),
    max_leaves=4,
)
VALUES = st.recursive(
    HASHABLE, lambda inner: st.lists(inner) | st.sets(HASHABLE) | st.dictionaries(HASHABLE, inner), max_leaves=6
)


@settings(max_examples=60)
@given(VALUES)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "value",
    [Counter("aab"), OrderedDict(b=1, a=2), deque([1, 2]), bytearray(b"x"), range(1, 9, 2), "\ud800", -0.0],
)
def test_the_other_kinds_come_back_too(value: Any) -> None:
    back = decode(encode(value))
    assert (back, type(back)) == (value, type(value))


def test_an_integer_of_any_size_comes_back() -> None:
    assert decode(json.loads(json.dumps(encode(10**6000)))) == 10**6000


def test_not_a_number_comes_back_as_that() -> None:
    assert math.isnan(decode(encode(math.nan)))


def test_a_class_of_ones_own_arrives_as_what_it_holds() -> None:
    class Liar(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return iter([1, 2, 3])

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None

    class Number(int):
        def __index__(self) -> int:
            return 99

    assert decode(encode(Liar([7]))) == [7]
    assert decode(encode(Number(7))) == 7


def test_what_is_not_plain_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (object(), print, iter([1]), endless, int, {1: object()}):
        with pytest.raises(NotPlainError):
            encode(value)


@pytest.mark.parametrize("value", [[1], {"?": 1}, {"i": "1", "f": "2"}, 3])
def test_what_was_not_encoded_is_no_value(value: Any) -> None:
    with pytest.raises(ValueError, match="no"):
        decode(value)


def test_messages_are_read_as_they_were_written() -> None:
    pipe = io.BytesIO()
    send(pipe, b"one")
    send(pipe, b"")
    pipe.seek(0)
    assert [receive(pipe), receive(pipe), receive(pipe)] == [b"one", b"", None]
    with pytest.raises(ValueError, match="bytes"):
        receive(io.BytesIO(b"\xff\xff\xff\xff"))
    assert receive(io.BytesIO(b"\0\0\0\x09half")) is None


def test_kinds_of_numbers_stay_apart() -> None:
    for value in (1, 1.0, True, Decimal(1), Fraction(1), datetime.timedelta(1)):
        assert type(decode(encode(value))) is type(value)
