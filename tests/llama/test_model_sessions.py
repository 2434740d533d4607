"""Several sessions in one pass, and one session's beginning copied into another: the bits are those of each alone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import make_tiny

from selfee import _native
from selfee.errors import ContextOverflowError, UsageError
from selfee.llama.model import Model, Session
from selfee.weights.quants import QuantType

CONTEXT = 700
SHAPES = {
    "one head of keys for two": {"type": QuantType.Q4_1, "n_head_kv": 2},
    "one head of keys for eight": {"type": QuantType.F16, "n_head": 8, "n_head_kv": 1},
    "padded values": {"type": QuantType.F32, "n_head": 4, "head_dim": 10},
}
SIZES = st.one_of(st.just(1), st.integers(1, 9), st.sampled_from([31, 100, 256, 257, 300]))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Model]]:
    """Every shape with one, two and three threads."""
    folder, models = tmp_path_factory.mktemp("tiny"), []
    for name, shape in SHAPES.items():
        path = make_tiny(folder / f"{name}.gguf", n_ctx=CONTEXT, **shape)  # type: ignore[arg-type]
        models += [Model.load(path, threads=threads, packed=threads == 2) for threads in (1, 2, 3)]
    yield models
    for model in models:
        model.close()


@pytest.fixture
def tiny(models: list[Model]) -> Model:
    return models[1]


def some_tokens(count: int, seed: int = 0) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, 300, count).tolist()
    return tokens


def holding(model: Model, tokens: Sequence[int]) -> Session:
    session = model.new_session()
    if len(tokens):
        session.forward(tokens, "none")
    return session


@settings(max_examples=60)
@given(
    st.integers(0, 8),
    st.lists(
        st.tuples(st.sampled_from([0, 1, 15, 200, 255, 256, 257, 399]), SIZES, st.integers(0, 300)),
        min_size=1,
        max_size=9,
    ),
    st.integers(0, 2**32),
)
def test_every_session_gets_the_same_bits_in_company_as_alone(
    models: list[Model], which: int, wanted: list[tuple[int, int, int]], seed: int
) -> None:
    model = models[which]
    texts = [some_tokens(held + grow, seed + index) for index, (held, grow, _) in enumerate(wanted)]
    rows = [min(count, grow) for _, grow, count in wanted]
    sessions = [holding(model, text[:held]) for text, (held, _, _) in zip(texts, wanted, strict=True)]
    parts = [
        (session, text[held:], count)
        for session, text, (held, _, _), count in zip(sessions, texts, wanted, rows, strict=True)
    ]
    together = model.forward_many(parts)
    for session, text, (held, _, _), count, logits in zip(sessions, texts, wanted, rows, together, strict=True):
        alone = holding(model, text[:held])
        assert logits.shape == (count, model.config.vocabulary)
        assert logits.tobytes() == alone.forward(text[held:], count).tobytes()
        assert session.length == len(text)
        if len(text) < CONTEXT:  # what was cached is the same too
            assert session.forward([7]).tobytes() == alone.forward([7]).tobytes()


def test_eight_conversations_written_side_by_side_are_what_each_would_have_been(models: list[Model]) -> None:
    for model in models:
        starts = [some_tokens(count, count) for count in (1, 3, 40, 255, 256, 257, 300, 650)]
        written: list[list[int]] = []
        sessions = [holding(model, start[:-1]) for start in starts]
        tokens = [start[-1] for start in starts]
        for _ in range(20):
            logits = model.forward_many(
                [(session, [token], 1) for session, token in zip(sessions, tokens, strict=True)]
            )
            tokens = [int(row[0].argmax()) for row in logits]
            written.append(tokens)
        for index, start in enumerate(starts):
            session = holding(model, start[:-1])
            token, alone = start[-1], []
            for _ in range(20):
                token = int(session.forward([token])[0].argmax())
                alone.append(token)
            assert alone == [step[index] for step in written]


@settings(max_examples=40)
@given(
    st.integers(0, 8),
    st.integers(0, 600),
    st.floats(0, 1),
    st.integers(0, 600),
    st.integers(1, 90),
    st.integers(0, 2**32),
)
def test_copied_and_regrown_equals_fresh_to_the_bit(
    models: list[Model], which: int, held: int, part: float, before: int, grow: int, seed: int
) -> None:
    model, text, more = models[which], some_tokens(held, seed), some_tokens(grow, seed + 1)
    source, copy = holding(model, text), holding(model, some_tokens(before, seed + 2))
    length = int(part * held)
    copy.copy_from(source, length)
    assert copy.length == length
    fresh = holding(model, text[:length])
    assert copy.forward(more, "all").tobytes() == fresh.forward(more, "all").tobytes()
    assert source.length == held
    assert source.forward(more).tobytes() == holding(model, text).forward(more).tobytes()


@settings(max_examples=30)
@given(st.integers(0, 8), st.integers(1, 700), st.floats(0, 1), st.integers(1, 300), st.integers(0, 2**32))
def test_memory_given_back_is_not_missed(
    models: list[Model], which: int, held: int, part: float, grow: int, seed: int
) -> None:
    model, text = models[which], some_tokens(held, seed)
    session, length = holding(model, text), int(part * held)
    session.truncate(length, give_back=True)
    text = (text[:length] + some_tokens(grow, seed + 1))[:CONTEXT]
    if len(text) > length:
        assert session.forward(text[length:]).tobytes() == model.new_session().forward(text).tobytes()


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs proc(5)")
def test_memory_given_back_is_the_systems_again_and_a_copy_takes_only_what_it_needs(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_embd=256, n_layer=4, n_ctx=1 << 13)
    token_bytes = 4 * 4 * (64 + 64) * 2
    slack = 5 << 21  # a huge page for each layer, where the system likes them, and one
    with Model.load(path, threads=1) as model:
        session = holding(model, some_tokens(8192))
        copy = model.new_session()
        start = resident()
        copy.copy_from(session, 1000)
        assert abs(resident() - start - 1000 * token_bytes) < slack
        start = resident()
        session.truncate(256, give_back=True)
        assert start - resident() > (8192 - 256) * token_bytes - slack
        assert session.forward([7]).tobytes() == holding(model, some_tokens(8192)[:256]).forward([7]).tobytes()


def test_a_number_of_rows_is_another_word_for_last_all_and_none(tiny: Model) -> None:
    text = some_tokens(300)
    everything = tiny.new_session().forward(text, "all")
    for number, word in ((0, "none"), (1, "last"), (300, "all")):
        assert tiny.new_session().forward(text, number).tobytes() == tiny.new_session().forward(text, word).tobytes()  # type: ignore[arg-type]
    assert tiny.new_session().forward(text, 50).tobytes() == everything[-50:].tobytes()
    for wrong in (-1, 301):
        session = tiny.new_session()
        with pytest.raises(UsageError, match=f"logits of {wrong} tokens wanted, 300 to evaluate; expected 0 to 300"):
            session.forward(text, wrong)
        assert session.length == 0


REFUSED: dict[str, tuple[Callable[[Session, Session], tuple[Session, list[int], int]], type[Exception], str]] = {
    "no tokens": (lambda good, other: (other, [], 0), UsageError, r"parts\[1\]: no tokens"),
    "no such token": (
        lambda good, other: (other, [1, 10**6], 0),
        UsageError,
        r"parts\[1\]: token 1000000 does not exist",
    ),
    "no room": (lambda good, other: (other, [1] * 697, 0), ContextOverflowError, r"parts\[1\]: 697 .* room for 696"),
    "too many rows": (lambda good, other: (other, [1, 2], 3), UsageError, r"parts\[1\]: logits of 3 tokens"),
    "twice": (lambda good, other: (good, [1], 1), UsageError, r"parts\[1\]: the session of parts\[0\]"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_one_wrong_part_is_named_and_no_session_changes(tiny: Model, case: str) -> None:
    wrong, error, message = REFUSED[case]
    good, other = holding(tiny, [1, 2, 3]), holding(tiny, [1, 2, 3, 4])
    with pytest.raises(error, match=message):
        tiny.forward_many([(good, [5], 1), wrong(good, other)])
    assert (good.length, other.length) == (3, 4)
    tiny.forward_many([(good, [5], 1), (other, [6], 1)])  # neither is left locked
    assert (good.length, other.length) == (4, 5)


def test_a_session_of_another_model_is_refused_for_a_pass_and_for_a_copy(models: list[Model]) -> None:
    here, there = holding(models[0], [1, 2]), holding(models[1], [1, 2])
    with pytest.raises(UsageError, match=r"parts\[1\]: a session of .*; expected one of this model"):
        models[0].forward_many([(here, [5], 1), (there, [5], 1)])
    with pytest.raises(UsageError, match=r"copy_from: a session of .*; expected one of the same model"):
        here.copy_from(there, 1)
    with pytest.raises(ValueError, match="sessions of several models"):
        _native.forward_many([(s._native, np.array([5], dtype=np.int32), 1) for s in (here, there)])
    with pytest.raises(UsageError, match="no parts"):
        models[0].forward_many([])
    assert (here.length, there.length) == (2, 2)


def test_no_more_is_copied_than_the_other_session_holds(tiny: Model) -> None:
    source, copy = holding(tiny, [1, 2, 3]), holding(tiny, [4])
    for wrong in (4, -1):
        with pytest.raises(UsageError, match=f"copy_from: {wrong} tokens of 3; expected 0 to 3"):
            copy.copy_from(source, wrong)
    assert copy.length == 1
    source.copy_from(source, 2)
    assert source.length == 2


def test_a_session_in_use_by_another_thread_is_neither_evaluated_nor_copied(tiny: Model) -> None:
    free, used = holding(tiny, [1, 2]), holding(tiny, [1, 2])
    with used._alone():
        for attempt in (
            lambda: tiny.forward_many([(free, [3], 1), (used, [3], 1)]),
            lambda: free.copy_from(used, 1),
            lambda: used.copy_from(free, 1),
        ):
            with pytest.raises(UsageError, match="in use by another thread"):
                attempt()
    assert (free.length, used.length) == (2, 2)
    tiny.forward_many([(free, [3], 1), (used, [3], 1)])


def test_two_threads_with_several_sessions_each_do_not_disturb_each_other(tiny: Model) -> None:
    texts = [some_tokens(40, seed) for seed in range(6)]
    alone = [tiny.new_session().forward(text, "all").tobytes() for text in texts]
    together: dict[int, bytes] = {}

    def work(own: list[int]) -> None:
        sessions = [tiny.new_session() for _ in own]
        rows: list[list[bytes]] = [[] for _ in own]
        for step in range(40):
            logits = tiny.forward_many([(s, [texts[i][step]], 1) for s, i in zip(sessions, own, strict=True)])
            for row, found in zip(logits, rows, strict=True):
                found.append(row.tobytes())
        together.update({index: b"".join(found) for index, found in zip(own, rows, strict=True)})

    threads = [threading.Thread(target=work, args=(own,)) for own in ([0, 1, 2], [3, 4, 5])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[index] for index in range(6)] == alone


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_control_c_leaves_every_session_as_it_was(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_embd=256, n_layer=8, n_ctx=1 << 15)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with Model.load(path, threads=1) as model:
        sessions = [holding(model, [1, 2, 3]), holding(model, [4])]
        kept = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                model.forward_many([(session, some_tokens(30000), 0) for session in sessions])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, kept)
        assert [session.length for session in sessions] == [3, 1]
        after = model.forward_many([(session, [9], 1) for session in sessions])
        assert after[0].tobytes() == model.new_session().forward([1, 2, 3, 9]).tobytes()


def test_who_would_use_a_session_that_is_being_copied_waits(tiny: Model) -> None:
    source, target = holding(tiny, [1, 2, 3]), tiny.new_session()
    copying, used = threading.Event(), threading.Event()
    alone: list[bool] = []

    class Slow:
        """The native session, which takes its time to copy."""

        def __init__(self, native: Any) -> None:
            self._native = native

        def __getattr__(self, name: str) -> Any:
            return getattr(self._native, name)

        def copy_from(self, other: Any, length: int) -> None:
            copying.set()
            alone.append(not used.wait(0.2))
            self._native.copy_from(other, length)

    target._native = cast(Any, Slow(target._native))
    copier = threading.Thread(target=target.copy_from, args=(source, 3))
    copier.start()
    assert copying.wait(20)
    source.truncate(2)
    used.set()
    copier.join(20)
    assert alone == [True]
    assert (source.length, target.length) == (2, 3)
    assert source.forward([4]).tobytes() == tiny.new_session().forward([1, 2, 4]).tobytes()
    assert target.forward([4]).tobytes() == tiny.new_session().forward([1, 2, 3, 4]).tobytes()


def test_an_interrupt_that_is_heard_after_the_pass_changes_no_session(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short passes are not interrupted; Python hears of the signal when they return."""
    whole = _native.forward_many

    class Interrupted:
        @staticmethod
        def forward_many(parts: Any) -> Any:
            whole(parts)
            raise KeyboardInterrupt

    sessions = [holding(tiny, [1, 2]), holding(tiny, [3])]
    with monkeypatch.context() as patch:
        patch.setattr("selfee.llama.model.native", lambda: Interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny.forward_many([(session, [4, 5], 1) for session in sessions])
    assert [session.length for session in sessions] == [2, 1]
    again = tiny.forward_many([(session, [4, 5], 1) for session in sessions])
    assert again[0].tobytes() == tiny.new_session().forward([1, 2, 4, 5]).tobytes()
