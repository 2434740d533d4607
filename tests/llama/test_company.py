"""Texts written in company are the texts written alone, and nobody in it can hold up or harm the others."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import make_tiny

from selfee.errors import BadFileError, ContextOverflowError, ResourceError
from selfee.llama.company import Company, Member, _shares
from selfee.llama.drafting import NO_DRAFT, CopyDrafter, DraftMemory
from selfee.llama.generate import generate
from selfee.llama.model import Model, Session
from selfee.llama.pace import Pace
from selfee.llama.sampling import Sampler, SamplerConfig
from selfee.weights.quants import QuantType

_PASS = 0.003
PATIENCE = 60  # seconds; a test that waits longer has found a deadlock


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = make_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", type=QuantType.Q8_0, n_head_kv=2)
    with Model.load(path, threads=2) as loaded:
        yield loaded


def together(*works: Callable[[], Any]) -> list[Any]:
    """Do all at the same time; what each returned or raised."""
    results: list[Any] = [None] * len(works)

    def run(index: int) -> None:
        try:
            results[index] = works[index]()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "deadlock"
    return results


def write(
    model: Model, company: Company | None, prompt: list[int], count: int, seed: int, memory: DraftMemory | None = None
) -> list[tuple[int, bytes]]:
    session, sampler = model.new_session(), Sampler(SamplerConfig(temperature=1.0, seed=seed))
    drafter = CopyDrafter(memory) if memory is not None else None
    if company is None:
        return [(token.id, token.logits.tobytes()) for token in generate(session, prompt, sampler, drafter, count)]
    with company.join(session) as member:
        steps = generate(session, prompt, sampler, drafter, count, member)
        return [(token.id, token.logits.tobytes()) for token in steps]


TEXTS = st.lists(
    st.tuples(st.lists(st.integers(0, 20), min_size=1, max_size=150), st.integers(0, 25), st.integers(0, 5)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25)
@given(TEXTS, st.booleans(), st.integers(0, 3))
def test_a_text_is_the_same_alone_and_in_company(
    model: Model, texts: list[tuple[list[int], int, int]], drafts: bool, delay: int
) -> None:
    alone = [write(model, None, prompt, count, seed) for prompt, count, seed in texts]
    company, memory = Company(model), DraftMemory() if drafts else None

    def one(index: int) -> list[tuple[int, bytes]]:
        time.sleep(0.002 * delay * index)
        prompt, count, seed = texts[index]
        return write(model, company, prompt, count, seed, memory)

    assert together(*(lambda index=index: one(index) for index in range(len(texts)))) == alone


def until(is_so: Callable[[], bool]) -> None:
    latest = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < latest, "it never came to pass"
        time.sleep(0.0005)


def count_passes(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The numbers of tokens of each part of every pass to come; passes take as long as those of a real model."""
    passes: list[list[int]] = []
    many, single = Model.forward_many, Session.forward

    def forward_many(self: Model, parts: Any) -> Any:
        passes.append([len(tokens) for _, tokens, _ in parts])
        time.sleep(_PASS)
        return many(self, parts)

    def forward(self: Session, tokens: Any, *rest: Any, **named: Any) -> Any:
        passes.append([len(tokens)])
        time.sleep(_PASS)
        return single(self, tokens, *rest, **named)

    monkeypatch.setattr(Model, "forward_many", forward_many)
    monkeypatch.setattr(Session, "forward", forward)
    return passes


def test_texts_that_are_written_at_the_same_time_share_passes(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    passes, company = count_passes(model, monkeypatch), Company(model)
    results = together(*(lambda seed=seed: write(model, company, [1, seed], 40, seed) for seed in range(4)))
    assert [len(text) for text in results] == [40] * 4
    shared = sum(len(parts) for parts in passes if len(parts) > 1)
    assert shared > sum(map(len, passes)) / 2
    assert len(passes) < 120, "160 if each had its own"


def test_a_long_prompt_never_holds_the_others_for_more_than_a_piece(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    company, started, ready = Company(model), threading.Event(), threading.Event()

    def steady() -> int:
        session = model.new_session()
        with company.join(session) as member:
            steps = generate(session, [1, 2], Sampler(SamplerConfig(seed=1)), None, 200, member)
            for number, _ in enumerate(steps):
                if number == 5:
                    started.set()
                    ready.wait(PATIENCE)
        return number

    def reader() -> None:
        started.wait(PATIENCE)
        ready.set()
        write(model, company, [3] * 400, 2, 1)

    seen = count_passes(model, monkeypatch)
    assert together(steady, reader)[0] == 199
    mixed = [parts for parts in seen if len(parts) == 2 and max(parts) > 1]
    assert mixed, "the prompt was read beside the other text"
    assert max(max(parts) for parts in mixed) <= 64


def test_a_line_does_not_wait_behind_a_book(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    company, reading = Company(model), threading.Event()
    held: list[int] = []

    def book() -> None:
        session = model.new_session()
        with company.join(session) as member:
            for _ in generate(session, [3] * 480, Sampler(SamplerConfig(seed=1)), None, 1, member):
                held.append(session.length)

    def line() -> None:
        reading.wait(PATIENCE)
        write(model, company, [4] * 40, 1, 1)
        held.append(0)

    original = Session.forward

    def forward(self: Session, *given: Any, **named: Any) -> Any:
        reading.set()
        time.sleep(0.05)  # so that the line arrives while the book's first piece is read
        return original(self, *given, **named)

    monkeypatch.setattr(Session, "forward", forward)
    together(book, line)
    assert held == [0, 480], "the line first"


@given(st.lists(st.integers(1, 500), max_size=20), st.integers(1, 300))
def test_prompts_share_the_room_of_a_pass(asked: list[int], room: int) -> None:
    shares = _shares(asked, room)
    prompts = [(count, share) for count, share in zip(asked, shares, strict=True) if count > 1]
    assert all(share == 1 for count, share in zip(asked, shares, strict=True) if count == 1)
    assert all(0 <= share <= count for count, share in prompts)
    assert sum(share for _, share in prompts) == min(room, sum(count for count, _ in prompts)), "nothing is left unused"
    if prompts:
        assert prompts[0][1] >= min(prompts[0][0], room // 2), "the first is never put off"
        short = sorted(prompts[1:], key=lambda each: (each[0], -each[1]))
        assert all(later == 0 for (count, share), (_, later) in itertools.pairwise(short) if share < count)


def test_who_stops_pulling_does_not_stop_the_others(model: Model) -> None:
    company, session = Company(model), model.new_session()
    with company.join(session) as member:
        steps = generate(session, [1, 2], Sampler(SamplerConfig(seed=1)), None, 100, member)
        for _ in range(3):
            next(steps)
        started = time.monotonic()
        (text,) = together(lambda: write(model, company, [4], 50, 2))
        assert len(text) == 50
        assert time.monotonic() - started < PATIENCE / 2
        assert len(list(steps)) == 97, "and it can go on"


def test_who_leaves_is_not_waited_for(model: Model) -> None:
    company = Company(model)
    for number in range(3):
        session = model.new_session()
        with company.join(session) as member:
            steps = generate(session, [1, number], Sampler(SamplerConfig(seed=1)), None, 100, member)
            next(steps)
            steps.close()
    assert not company._expected
    assert not company._waiting
    assert write(model, company, [4], 5, 2) == write(model, None, [4], 5, 2)


class Broken:
    """A session that fails at its third pass."""

    def __init__(self, session: Session, error: BaseException) -> None:
        self._session = session
        self._error = error
        self.passes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def forward(self, *given: Any, **named: Any) -> Any:
        self.passes += 1
        if self.passes >= 3:
            raise self._error
        return self._session.forward(*given, **named)


@pytest.mark.parametrize("error", [ResourceError("no memory"), ValueError("broken")])
def test_who_fails_harms_nobody_else(model: Model, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    many = Model.forward_many

    def forward_many(self: Model, parts: Any) -> Any:
        if any(isinstance(session, Broken) for session, _, _ in parts):
            raise error  # a pass fails as a whole, and no session has changed
        return many(self, parts)

    monkeypatch.setattr(Model, "forward_many", forward_many)
    company = Company(model)

    def failing() -> int:
        session: Any = Broken(model.new_session(), error)
        with company.join(session) as member:
            return len(list(generate(session, [1, 2], Sampler(SamplerConfig(seed=1)), None, 100, member)))

    good = [lambda seed=seed: write(model, company, [1, seed], 60, seed) for seed in range(3)]
    results = together(failing, *good)
    assert results[0] is error
    assert results[1:] == [write(model, None, [1, seed], 60, seed) for seed in range(3)]


def test_who_asks_for_more_than_fits_or_draws_no_token_harms_nobody_else(model: Model) -> None:
    company = Company(model)

    class Refusing(Sampler):
        left = 10

        def sample(self, logits: Any) -> int:
            self.left -= 1
            if self.left == 0:
                raise BadFileError("a damaged model")
            return super().sample(logits)

    def refusing() -> int:
        session = model.new_session()
        with company.join(session) as member:
            return len(list(generate(session, [1, 2], Refusing(SamplerConfig(seed=1)), None, 100, member)))

    def overflowing() -> list[tuple[int, bytes]]:
        return write(model, company, [1] * 480, 100, 1)  # of 512

    good = [lambda seed=seed: write(model, company, [1, seed], 60, seed) for seed in range(3)]
    refused, overflowed, *texts = together(refusing, overflowing, *good)
    assert isinstance(refused, BadFileError)
    assert isinstance(overflowed, ContextOverflowError)
    assert texts == [write(model, None, [1, seed], 60, seed) for seed in range(3)]
    assert not company._waiting
    assert write(model, company, [1], 5, 1) == write(model, None, [1], 5, 1)


def test_who_closes_is_in_no_pass_after_the_one_under_way(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    passes, company = count_passes(model, monkeypatch), Company(model)
    closed: list[int] = []

    def closing() -> None:
        session = model.new_session()
        with company.join(session) as member:
            steps = generate(session, [1, 2], Sampler(SamplerConfig(seed=1)), None, 300, member)
            for _ in range(10):
                next(steps)
            steps.close()
        closed.append(len(passes))

    _, text = together(closing, lambda: write(model, company, [4], 60, 2))
    assert len(text) == 60
    assert any(len(parts) > 1 for parts in passes[: closed[0]])
    assert all(len(parts) == 1 for parts in passes[closed[0] + 1 :])


def test_a_prompt_is_read_in_small_pieces_also_beside_a_text_that_is_late(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has just got a token will ask again before the pass is over."""
    passes, company = count_passes(model, monkeypatch), Company(model)

    def slow() -> int:
        session = model.new_session()
        with company.join(session) as member:
            count = 0
            for _ in generate(session, [1, 2], Sampler(SamplerConfig(seed=1)), None, 12, member):
                count += 1
                time.sleep(2 * _PASS)  # later than anybody waits for
            return count

    def reading() -> None:
        until(lambda: len(passes) > 2)
        write(model, company, [3] * 500, 2, 1)

    assert together(slow, reading)[0] == 12
    beside = [max(parts) for parts in passes if max(parts) > 1 and parts != [2]]
    assert beside.count(256) <= 1, "one where nobody was there yet, at most"
    assert len(beside) >= 4


def test_an_interrupt_in_the_one_who_computes_leaves_the_others_at_work(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, left = Company._forward, [7]

    def forward(self: Company, todo: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return whole(self, todo)

    monkeypatch.setattr(Company, "_forward", forward)
    company = Company(model)
    works = [lambda seed=seed: write(model, company, [1, seed], 50, seed) for seed in range(4)]
    results = together(*works)
    interrupted = [result for result in results if isinstance(result, KeyboardInterrupt)]
    assert len(interrupted) == 1
    for seed, result in enumerate(results):
        if result is not interrupted[0]:
            assert result == write(model, None, [1, seed], 50, seed)


def test_a_pause_is_quiet(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    company, computing, done = Company(model), threading.Event(), threading.Event()
    overlapped: list[str] = []
    single = Session.forward

    def forward(self: Session, *given: Any, **named: Any) -> Any:
        computing.set()
        try:
            return single(self, *given, **named)
        finally:
            computing.clear()

    monkeypatch.setattr(Session, "forward", forward)

    def pausing() -> None:
        while not done.is_set():
            with company.pause():
                if computing.is_set():
                    overlapped.append("computing")
            time.sleep(0.001)

    def writing() -> int:
        try:
            return len(write(model, company, [1], 300, 1))
        finally:
            done.set()

    assert together(pausing, writing) == [None, 300]
    assert not overlapped


def test_much_coming_and_going_ends(model: Model) -> None:
    company, memory = Company(model), DraftMemory()

    def restless(seed: int) -> int:
        rng, made = random.Random(seed), 0
        for _ in range(6):
            session = model.new_session()
            with company.join(session) as member:
                prompt = rng.choices(range(50), k=rng.randrange(1, 100))
                sampler = Sampler(SamplerConfig(seed=seed))
                steps = generate(session, prompt, sampler, CopyDrafter(memory), rng.randrange(1, 30), member)
                for _ in range(rng.randrange(0, 35)):
                    if next(steps, None) is None:
                        break
                    made += 1
                    if rng.random() < 0.1:
                        time.sleep(0.003)
                steps.close()
        return made

    results = together(*(lambda seed=seed: restless(seed) for seed in range(8)))
    assert all(isinstance(made, int) and made > 0 for made in results)
    assert not company._waiting
    assert not company._is_busy


def test_a_member_asks_for_one_thing_at_a_time(model: Model) -> None:
    company, session = Company(model), model.new_session()
    with company.join(session) as member:
        assert isinstance(member, Member)
        rows = member.evaluate([1, 2, 3], NO_DRAFT)
        assert rows.shape[0] == 1
        assert session.length == 3


def test_a_pause_that_begins_while_a_pass_is_gathered_is_quiet_too(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    company, computing, overlapped = Company(model), [0], []
    whole, done = Company._forward, threading.Event()

    def forward(self: Company, todo: Any) -> Any:
        computing[0] += 1
        try:
            if computing[0] > 1:
                overlapped.append("two passes")
            time.sleep(_PASS)
            return whole(self, todo)
        finally:
            computing[0] -= 1

    monkeypatch.setattr(Company, "_forward", forward)

    def pausing() -> None:
        while not done.is_set():
            with company.pause():
                for _ in range(3):
                    if computing[0]:
                        overlapped.append("a pass within a pause")
                    time.sleep(_PASS / 2)
            time.sleep(_PASS)

    def writing(seed: int) -> list[tuple[int, bytes]]:
        session = model.new_session()
        with company.join(session) as member:
            steps = generate(session, [1, seed], Sampler(SamplerConfig(temperature=1.0, seed=seed)), None, 40, member)
            text = []
            for step in steps:
                text.append((step.id, step.logits.tobytes()))
                time.sleep(_PASS / 4 * seed)  # so that the others gather
        return text

    def all_writing() -> list[Any]:
        try:
            return together(*(lambda seed=seed: writing(seed) for seed in range(3)))
        finally:
            done.set()

    _, texts = together(pausing, all_writing)
    assert texts == [write(model, None, [1, seed], 40, seed) for seed in range(3)]
    assert not overlapped


def test_a_pause_gets_its_turn_however_busy_the_company_is(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_passes(model, monkeypatch)
    company, waited, ready = Company(model), [], threading.Event()

    def pausing() -> None:
        ready.wait(PATIENCE)
        for _ in range(10):
            before = len(passes)
            with company.pause():
                waited.append(len(passes) - before)
            time.sleep(_PASS)

    def writing() -> int:
        ready.set()
        return len(write(model, company, [1], 200, 1))

    assert together(pausing, writing) == [None, 200]
    assert max(waited) <= 2, "the pass under way, and one that began before the pause was asked for"


class Watched(Pace):
    """A pace that sees whether several threads use it at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.overlaps = 0, 0

    def _look(self) -> None:
        self.inside += 1
        time.sleep(0.0005)
        self.overlaps += self.inside > 1
        self.inside -= 1

    def observe(self, *given: Any) -> None:
        self._look()
        super().observe(*given)

    def choose(self, *given: Any) -> list[int]:
        self._look()
        return super().choose(*given)


def test_what_passes_cost_is_told_and_asked_by_one_at_a_time(model: Model) -> None:
    """Else a table would change while another thread walks through it, and a text would end with an error."""
    pace = Watched()
    company = Company(model, pace)
    results = together(*(lambda seed=seed: len(write(model, company, [1, seed], 30, seed)) for seed in range(4)))
    assert results == [30] * 4
    assert pace.overlaps == 0


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("size", [1, 100])
def test_an_interrupted_pass_is_not_counted_twice(
    model: Model, monkeypatch: pytest.MonkeyPatch, moment: str, size: int
) -> None:
    """A signal is heard when the native pass is over: the sessions have grown, and nobody has got the logits."""
    count_passes(model, monkeypatch)
    many, left, hit = Model.forward_many, [4], []

    def forward_many(self: Model, parts: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and moment == "before":
            raise KeyboardInterrupt
        rows = many(self, parts)
        if left[0] == 0:
            hit.append(len(parts))
            raise KeyboardInterrupt
        return rows

    monkeypatch.setattr(Model, "forward_many", forward_many)
    company = Company(model)
    works = [lambda seed=seed: write(model, company, [1 + seed] * size, 30, seed) for seed in range(4)]
    results = together(*works)
    interrupted = [seed for seed, result in enumerate(results) if isinstance(result, KeyboardInterrupt)]
    assert len(interrupted) == 1
    assert moment == "before" or hit[0] > 1
    for seed in set(range(4)) - set(interrupted):
        assert results[seed] == write(model, None, [1 + seed] * size, 30, seed)


def test_a_text_may_be_thrown_away_wherever_its_thread_stands(model: Model) -> None:
    """Python collects a forgotten stream at any moment, also while this very thread arranges a pass."""
    company, session = Company(model), model.new_session()

    def work() -> str:
        with company.join(session) as member:
            steps = generate(session, [1, 2], Sampler(SamplerConfig(seed=1)), None, 100, member)
            next(steps)
            with company._lock:
                with company.join(model.new_session()):
                    pass
                steps.close()
        return "done"

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "deadlock"


@pytest.mark.parametrize("interrupts", [1, 2])
def test_who_is_interrupted_while_others_read_its_prompt_is_let_go_and_harms_nobody(
    model: Model, monkeypatch: pytest.MonkeyPatch, interrupts: int
) -> None:
    """The second interrupt comes while the first waits for the pass under way."""
    count_passes(model, monkeypatch)
    company, session, left = Company(model), model.new_session(), [interrupts]

    class Interrupted(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            woken = super().wait(0.001)
            if left[0] and any(work.session is session and work.taken for work in company._waiting):
                left[0] -= 1
                raise KeyboardInterrupt
            return woken

    def waits(own: Session) -> bool:
        return any(work.session is own for work in company._waiting)

    single = Session.forward

    def forward(self: Session, *given: Any, **named: Any) -> Any:
        until(lambda: waits(session) or left[0] == 0)  # the one who leads, in its first pass
        return single(self, *given, **named)

    monkeypatch.setattr(Session, "forward", forward)

    def leading() -> list[tuple[int, bytes]]:
        return write(model, company, [2] * 484, 3, 2)  # whose last piece leaves room for others

    def interrupted() -> int:
        until(lambda: bool(company._waiting))
        with company.join(session) as member:
            member._asleep = Interrupted(company._lock)
            with pytest.raises(KeyboardInterrupt):
                member.evaluate([3] * 500, NO_DRAFT)
            assert not waits(session)
            return session.length

    def following(seed: int) -> list[tuple[int, bytes]]:
        until(lambda: waits(session))
        return write(model, company, [1, seed], 60, seed)

    first, length, *others = together(leading, interrupted, lambda: following(0), lambda: following(1))
    assert isinstance(length, int), length
    assert length < 200, "it was not read to its end"
    assert first == write(model, None, [2] * 484, 3, 2)
    assert others == [write(model, None, [1, seed], 60, seed) for seed in range(2)]
    assert not company._waiting
