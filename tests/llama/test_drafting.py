"""Drafting: the native drafter is its twin, finds its place in what is revised, and learns what is worth guessing."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llama import drafting_twin

from selfee.llama.drafting import CopyDrafter, DraftMemory
from selfee.weights.quantize import native

WORDS = st.lists(st.integers(0, 4), max_size=25)
STEPS = st.lists(
    st.tuples(st.sampled_from(["read", "revise", "write"]), WORDS)
    | st.tuples(st.just("propose"), st.tuples(st.integers(0, 70), st.sampled_from([0.0, 0.05, 0.3, 0.9]))),
    max_size=14,
)


@settings(max_examples=150)
@given(st.lists(STEPS, min_size=1, max_size=3))
def test_the_native_drafter_is_its_twin(texts: list[list[tuple[str, Any]]]) -> None:
    memory, twin_memory = native().DraftMemory(1 << 16), drafting_twin.Memory()
    for steps in texts:
        fast, slow = native().Drafter(memory), drafting_twin.Drafter(twin_memory)
        for name, given_ in steps:
            if name == "propose":
                limit, least = given_
                tokens, chances = fast.propose(limit, least)
                expected, expected_chances = slow.propose(limit, least)
                same = 0  # where two guesses are as likely, or one as likely as the least wanted, rounding decides
                while same < min(len(tokens), len(expected)) and tokens[same] == expected[same]:
                    same += 1
                assert np.allclose(chances[:same], expected_chances[:same], rtol=1e-5)
                if same < max(len(tokens), len(expected)):
                    rest = [*chances[same : same + 1], *expected_chances[same : same + 1]]
                    assert np.allclose(rest, rest[0] if len(rest) == 2 else least, rtol=1e-5)
            else:
                getattr(fast, name)(np.array(given_, dtype=np.int32))
                getattr(slow, name)(given_)


@settings(max_examples=60)
@given(st.integers(0, 1 << 30), st.sampled_from([3, 8, 20, 60]))
def test_the_native_pointer_goes_where_its_twin_goes(seed: int, letters: int) -> None:
    """A long original, revised in jumps: near and far, after matches of every length."""
    rng = random.Random(seed)
    original = rng.choices(range(letters), k=90)
    fast, slow = native().Drafter(native().DraftMemory(1024)), drafting_twin.Drafter(drafting_twin.Memory())
    fast.revise(np.array(original, dtype=np.int32))
    slow.revise(original)
    for _ in range(12):
        start, length = rng.randrange(90), rng.randrange(1, 6)
        piece = rng.choices(range(letters), k=rng.randrange(2)) + original[start : start + length]
        fast.read(np.array(piece, dtype=np.int32))
        slow.read(piece)
        tokens, chances = fast.propose(3, 0.0)
        expected, expected_chances = slow.propose(3, 0.0)
        assert np.allclose(chances[:1], expected_chances[:1], rtol=1e-5)
        if tokens != expected:  # rounding may decide between two that are as likely, and then it goes on otherwise
            same = next(n for n, pair in enumerate(zip(tokens, expected, strict=True)) if pair[0] != pair[1])
            assert np.isclose(chances[same], expected_chances[same], rtol=1e-5)


def words(seed: int, count: int, most: int = 5000) -> list[int]:
    return random.Random(seed).choices(range(1, most), k=count)


def drafted(prompt: list[int], original: list[int], answer: list[int], memory: DraftMemory | None = None) -> int:
    """Passes that writing ``answer`` takes when every guess is verified."""
    drafter = CopyDrafter(memory)
    drafter.begin(prompt)
    drafter.revise(original)
    passes, at = 0, 0
    while at < len(answer):
        guesses = list(drafter.propose(64).tokens)
        right = next(
            (n for n, pair in enumerate(zip(guesses, answer[at:], strict=False)) if pair[0] != pair[1]),
            min(len(guesses), len(answer) - at),
        )
        drafter.wrote(answer[at : at + right + 1])
        at, passes = at + right + 1, passes + 1
    return passes


def test_an_answer_that_is_repeated_takes_a_pass_for_each_64_tokens() -> None:
    answer = words(0, 260)
    assert drafted(words(1, 30), answer, answer) == 4  # 65 tokens a pass


@pytest.mark.parametrize("kind", ["insert", "delete", "replace", "move"])
def test_the_pointer_finds_its_place_after_every_kind_of_change(kind: str) -> None:
    original = words(2, 200)
    new = words(3, 8)
    answer = {
        "insert": original[:100] + new + original[100:],
        "delete": original[:100] + original[108:],
        "replace": original[:100] + new + original[108:],
        "move": original[120:] + original[:120],
    }[kind]
    most = {"insert": 8, "delete": 1, "replace": 8, "move": 3}[kind] + 6
    assert drafted(words(4, 30), original, answer) <= most


def test_what_is_revised_need_not_stand_in_the_text() -> None:
    original = words(5, 64)
    assert drafted([1], original, original) == 1
    assert drafted([1], [], original) == 64


@given(WORDS, WORDS, st.integers(0, 80), st.floats(0, 1))
def test_chances_never_rise_and_limits_hold(text: list[int], original: list[int], limit: int, least: float) -> None:
    drafter = native().Drafter(native().DraftMemory(1024))
    drafter.read(np.array(text, dtype=np.int32))
    drafter.revise(np.array(original, dtype=np.int32))
    tokens, chances = drafter.propose(limit, least)
    assert len(tokens) == len(chances) <= limit
    assert chances == sorted(chances, reverse=True)
    assert all(least <= chance <= 1 for chance in chances)


def test_a_critic_who_repeats_himself_is_guessed_from_memory() -> None:
    phrase, memory = words(6, 30), DraftMemory()
    first = drafted([7], [], phrase, memory)
    for number in range(3):
        drafted([10 + number], [], phrase, memory)
    assert drafted([99], [], phrase, memory) < first / 3
    assert drafted([99], [], phrase) == first, "without the memory nothing is known"


def test_a_prompt_gets_into_no_memory() -> None:
    secret, memory = words(8, 40), DraftMemory()
    for _ in range(4):
        reader = CopyDrafter(memory)
        reader.begin(secret)
    other = CopyDrafter(memory)
    other.begin(secret[:20])
    assert list(other.propose(10).tokens) == []


def test_chances_learn_from_what_happens() -> None:
    """Copying that never comes true is soon believed no more."""
    memory = DraftMemory()
    drafter = CopyDrafter(memory)
    drafter.begin([1])
    rng = random.Random(9)
    sizes = []
    for _ in range(60):
        drafter.revise(words(rng.randrange(10**6), 30))
        sizes.append(len(drafter.propose(64).tokens))
        drafter.wrote(words(rng.randrange(10**6), 3))
    assert sizes[0] == 30
    assert sizes[-1] < 10


def test_a_full_memory_forgets_and_goes_on() -> None:
    memory = DraftMemory(entries=1024)
    for seed in range(60):
        drafted([1], [], words(seed, 100), memory)
    phrase = words(999, 20)
    first = drafted([2], [], phrase, memory)
    for _ in range(3):
        drafted([2], [], phrase, memory)
    assert drafted([2], [], phrase, memory) < first


def test_threads_may_share_a_memory() -> None:
    memory, failed = DraftMemory(), []

    def work(seed: int) -> None:
        try:
            for number in range(20):
                drafted([seed], words(seed, 50), words(seed + number % 3, 60), memory)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("entries", [0, 1024, 5000])
def test_a_memory_grows_no_larger_than_it_may(entries: int) -> None:
    memory, sizes = DraftMemory(entries), []
    for seed in range(60):
        drafted([1], [], words(seed, 100), memory)
        sizes.append(memory.bytes)
    assert sizes == sorted(sizes)
    assert sizes[0] > 0
    assert sizes[-1] == 16 * {0: 1024, 1024: 1024, 5000: 8192}[entries]


def test_what_was_often_seen_outlives_what_was_seen_once_in_a_full_memory() -> None:
    memory, habit = DraftMemory(entries=1 << 13), words(999, 20)
    for _ in range(4):
        drafted([2], [], habit, memory)
    for seed in range(200):
        drafted([1], [], words(seed, 40), memory)
    assert memory.bytes == 16 << 13
    assert drafted([2], [], habit, memory) <= 7, "a pass for each of its 20 tokens, were it forgotten"


def test_old_sightings_count_less() -> None:
    """What was right five thousand times is believed no more after it was wrong three thousand times."""
    drafter, rng = native().Drafter(native().DraftMemory(1024)), random.Random(10)
    drafter.read(np.array([1], dtype=np.int32))

    def happens(times: int, right: bool) -> float:
        for _ in range(times):
            guessed, written = rng.sample(range(1 << 30), 2)
            drafter.revise(np.array([guessed], dtype=np.int32))
            ((token,), (chance,)) = drafter.propose(1, 0.0)
            assert token == guessed
            drafter.write(np.array([guessed if right else written], dtype=np.int32))
        return float(chance)

    assert happens(5000, right=True) > 0.99
    assert happens(3000, right=False) < 0.5


def test_a_text_may_be_longer_than_a_table_of_few_entries() -> None:
    """Every end of a long text is still known: the table grows with it."""
    text = words(12, 20000, 40000)
    drafter = CopyDrafter()
    drafter.begin(text)
    for at in (0, 7000, 15000):
        drafter.wrote(text[at : at + 20])
        assert list(drafter.propose(10).tokens) == text[at + 20 : at + 30]


def test_impossible_memories_are_refused() -> None:
    with pytest.raises(ValueError, match="entries"):
        DraftMemory(1 << 40)
