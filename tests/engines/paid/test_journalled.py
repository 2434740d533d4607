"""Proves src/selfee/engines/paid over real sockets and with scripts: stored before used, never asked twice."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
from tests.engines.paid.faulty_teacher import FAULTS, MODEL, FaultyTeacher, Plan

from selfee.chain.run import run_chain, stream_chain
from selfee.engines.base import ChatRequest, Message, Request, SamplingParams
from selfee.engines.paid import PaidServer, Price, journal_local, open_paid
from selfee.engines.paid.breaker import BreakerRules
from selfee.engines.paid.calling import CallFailedError, CallRules
from selfee.engines.paid.courier import CourierDesk
from selfee.engines.paid.gate import GateRules
from selfee.engines.paid.journalled import JournalledEngine
from selfee.engines.paid.plain import from_plain, to_plain
from selfee.engines.paid.reply import asked_of, request_of
from selfee.engines.retry import RetryPolicy
from selfee.engines.scripted import Reply, ScriptedEngine
from selfee.errors import ContextOverflowError, EngineError, StoppedError, UsageError
from selfee.journal import Journal, key_of

PATIENT = CallRules(RetryPolicy(attempts=8, first_delay=0.01, max_delay=0.1))


def ask(text: str, seed: int = 1) -> ChatRequest:
    return ChatRequest((Message("user", text),), SamplingParams(seed=seed), 64)


def server_of(teacher: FaultyTeacher, **settings: object) -> PaidServer:
    fields = {"calls": PATIENT, "total": 0.6, "stall": 5.0, "price": Price(1.0, 2.0)} | settings
    return PaidServer(teacher.address, MODEL, **fields)  # type: ignore[arg-type]


def test_a_reply_is_stored_with_all_that_is_known_and_replayed_without_a_call(tmp_path: Path) -> None:
    with FaultyTeacher() as teacher, Journal(tmp_path / "j") as journal:
        with open_paid(server_of(teacher), journal) as engine:
            first = engine.obtain(ask("hello"))
            again = list(engine.stream_chat(ask("hello")))
            assert again == [first.chunk]
            assert (engine.read().paid, engine.read().replayed) == (1, 1)
        assert teacher.requests == 1
        (entry,) = journal.entries()
        assert entry.key == key_of(entry.asked)
        assert entry.reply is not None
        assert first.usage is not None
        assert entry.asked["messages"] == [["user", "hello"]]
        assert entry.reply["model"] == MODEL
        assert entry.reply["usage"]["prompt_tokens"] == 1
        assert entry.cost == first.cost == pytest.approx((1 + 2 * first.usage.completion_tokens) / 1e6)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("streaming", [False, True])
def test_every_kind_of_fault_is_survived_and_counted_by_its_name(tmp_path: Path, fault: str, streaming: bool) -> None:
    names = {"drop": "connection", "drip": "timeout", "wrong-model": "model"}
    plan = Plan(faults=(fault,), share=1.0, most=1)
    with FaultyTeacher(plan) as teacher, Journal(tmp_path / "j") as journal:
        with open_paid(server_of(teacher, streaming=streaming), journal) as engine:
            reply = engine.obtain(ask("hello"))
            assert reply.attempts == 2
            assert engine.read().faults == {names.get(fault, fault): 1}
        assert teacher.served == Counter({fault: 1, "reply": 1})
        assert max(teacher.paid.values()) == 1


def test_a_call_that_fails_for_good_says_why_and_can_be_made_again_later(tmp_path: Path) -> None:
    plan = Plan(faults=("server",), share=1.0, most=10**6)
    calls = CallRules(RetryPolicy(attempts=3, first_delay=0.01))
    with FaultyTeacher(plan) as teacher, Journal(tmp_path / "j") as journal:
        with open_paid(server_of(teacher, calls=calls), journal) as engine:
            with pytest.raises(CallFailedError, match=r"out of order.*gave up after 3 attempts") as caught:
                engine.obtain(ask("hello"))
            assert (caught.value.kind, caught.value.attempts) == ("server", 3)
            teacher.plan.share = 0.0
            assert engine.obtain(ask("hello")).text
        assert len(journal) == 1


def test_an_identical_question_of_many_threads_is_paid_for_once(tmp_path: Path) -> None:
    with FaultyTeacher(Plan(latency=0.1)) as teacher, Journal(tmp_path / "j") as journal:
        with open_paid(server_of(teacher), journal) as engine:
            texts = []
            threads = [
                threading.Thread(target=lambda: texts.append(engine.obtain(ask("same")).text)) for _ in range(12)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(texts) == 12
        assert len(set(texts)) == 1
        assert teacher.requests == 1


def test_a_bad_key_is_taken_out_and_never_shown(tmp_path: Path) -> None:
    plan = Plan(bad_keys={"bad-key-1": 401, "bad-key-2": 403})
    with FaultyTeacher(plan) as teacher, Journal(tmp_path / "j") as journal:
        server = server_of(teacher, keys=("bad-key-1", "good-key", "bad-key-2"))
        with open_paid(server, journal) as engine:
            for number in range(12):
                assert engine.obtain(ask(f"question {number}")).text
            reading = engine.read()
        assert teacher.keys == Counter({"good-key": 12, "bad-key-1": 1, "bad-key-2": 1})
        assert reading.faults == {"key": 2}
        assert "bad-key" not in reading.last_fault
        assert "good-key" not in repr(server)
    assert b"good-key" not in (tmp_path / "j").read_bytes()


def test_a_retry_after_is_obeyed_by_all_threads(tmp_path: Path) -> None:
    plan = Plan(faults=("rate",), share=1.0, most=1)
    with FaultyTeacher(plan) as teacher, Journal(tmp_path / "j") as journal:
        with open_paid(server_of(teacher, gate=GateRules(concurrency=1, start_concurrency=1)), journal) as engine:
            engine.obtain(ask("hello"))
        first, second = teacher.arrivals
        assert second - first >= 0.1


def test_a_broken_server_stops_the_run_instead_of_burning_through_it(tmp_path: Path) -> None:
    plan = Plan(faults=("server",), share=1.0, most=10**6)
    gate = GateRules(breaker=BreakerRules(window=8, fewest=4, pause=0.02, pauses=2))
    with FaultyTeacher(plan) as teacher, Journal(tmp_path / "j") as journal:
        with open_paid(server_of(teacher, gate=gate), journal) as engine:
            kinds = Counter[str]()
            for number in range(20):
                try:
                    engine.obtain(ask(f"question {number}"))
                except StoppedError as error:
                    kinds["stopped" if "attempts failed" in str(error) else "otherwise"] += 1
                except CallFailedError:
                    kinds["failed"] += 1
        assert kinds["stopped"] >= 15
        assert teacher.requests < 12


def test_the_budget_stops_before_it_is_exceeded(tmp_path: Path) -> None:
    with FaultyTeacher() as teacher, Journal(tmp_path / "j") as journal:
        gate = GateRules(max_cost=0.01)
        with open_paid(server_of(teacher, price=Price(10.0, 20.0), gate=gate), journal) as engine:

            def spend() -> None:
                for number in range(1000):
                    engine.obtain(ask(f"question {number} " * 20))

            with pytest.raises(StoppedError, match="max-cost"):
                spend()
            made = engine.read().paid
        assert 0 < made < 50
        assert journal.spent() <= 0.01
        with pytest.raises(UsageError, match="price"):
            server_of(teacher, price=None, gate=gate)


def test_an_overflow_is_an_answer_too_and_not_asked_again(tmp_path: Path) -> None:
    script = ScriptedEngine(["one two three"], context_length=3, strict=False)
    with Journal(tmp_path / "j") as journal:
        engine = journal_local(script, journal)
        for _ in range(2):
            with pytest.raises(ContextOverflowError, match="context window holds 3"):
                list(engine.stream(Request("far too long a prompt for it", SamplingParams(seed=1))))
        assert len(script.requests) == 1


def test_a_chain_killed_between_two_calls_goes_on_inside(tmp_path: Path) -> None:
    replies = ["A.", "No. Revision is needed.", "B.", "Good. Revision is not needed."]
    params = SamplingParams(seed=3)

    def chain(script: ScriptedEngine) -> object:
        with Journal(tmp_path / "j") as journal, journal_local(script, journal, model="script") as engine:
            return run_chain(engine, "question", params=params, mode="turns", prompts="standard")

    def chain_that_dies() -> None:
        failing = ScriptedEngine([*replies[:2], Reply("", error="killed")], strict=False)
        with Journal(tmp_path / "j") as journal:
            engine = journal_local(failing, journal, model="script")
            list(stream_chain(engine, "question", params=params, mode="turns", prompts="standard"))

    with pytest.raises(EngineError, match="killed"):
        chain_that_dies()
    resumed = chain(rest := ScriptedEngine(replies[2:]))
    assert len(rest.requests) == 2
    assert resumed == chain(ScriptedEngine(["never asked"], strict=False))


def test_scores_are_journalled_too_and_tokens_counted_by_the_engine(tmp_path: Path) -> None:
    script = ScriptedEngine(scores={" yes": -0.1, " no": float("-inf")}, strict=False)
    with Journal(tmp_path / "j") as journal:
        engine = journal_local(script, journal)
        for _ in range(2):
            assert list(engine.score("is it?", [" yes", " no"])) == [-0.1, float("-inf")]  # type: ignore[attr-defined]
        assert engine.count_tokens("two words") == 2  # type: ignore[attr-defined]
    assert len(script.scored) == 1


def test_a_remote_engine_does_not_claim_to_count_or_score(tmp_path: Path) -> None:
    with FaultyTeacher() as teacher, Journal(tmp_path / "j") as journal:
        with open_paid(server_of(teacher), journal) as engine:
            assert not hasattr(engine, "count_tokens")
            assert not hasattr(engine, "score")
            with pytest.raises(UsageError, match="prefix"):
                list(engine.stream_chat(ChatRequest((Message("user", "x"),), prefix="The")))
        assert teacher.requests == 0


@pytest.mark.parametrize(
    "request_",
    [
        ask("hello"),
        Request("text", SamplingParams(seed=2, logit_bias={5: float("-inf"), 7: 0.5}), 10, ("\n",), 3, True),
        ChatRequest((Message("system", "s"), Message("user", "u")), stop=("a", "b"), prefix="p"),
    ],
)
def test_what_was_asked_can_be_told_from_the_journal(request_: Request | ChatRequest) -> None:
    asked = json.loads(json.dumps(asked_of(request_, "m")))
    told = request_of(asked)
    assert asked_of(told, "m") == asked
    assert key_of(asked) == key_of(asked_of(request_, "m"))


def test_the_key_depends_on_everything_that_is_asked() -> None:
    base = ask("hello")
    others = [
        ask("hello", seed=2),
        ask("hello "),
        ChatRequest(base.messages, base.params, 65),
        ChatRequest(base.messages, SamplingParams(seed=1, temperature=0.5), 64),
        ChatRequest(base.messages, base.params, 64, ("x",)),
    ]
    keys = {key_of(asked_of(request, "m")) for request in (base, *others)} | {key_of(asked_of(base, "n"))}
    assert len(keys) == len(others) + 2


def test_settings_reach_the_courier_unchanged() -> None:
    gate = GateRules(concurrency=3, max_cost=5.0)
    server = PaidServer("http://127.0.0.1:1/v1", "m", ("k",), gate, PATIENT, Price(1, 2, 0.5), True, 3.0, 4.0)
    assert from_plain(PaidServer, json.loads(json.dumps(to_plain(server)))) == server


def test_the_courier_brings_replies_failures_and_numbers(tmp_path: Path) -> None:
    plan = Plan(faults=("server",), share=0.5, most=1)
    with FaultyTeacher(plan) as teacher, Journal(tmp_path / "j") as journal:
        server = server_of(teacher)
        with open_paid(server, journal, desk=CourierDesk(server, journal, workers=8)) as engine:
            texts = [engine.obtain(ask(f"question {number}")).text for number in range(20)]
            assert engine.obtain(ask("question 0")).text == texts[0]
            engine.desk.stop("enough")
            with pytest.raises(StoppedError, match="enough"):
                engine.obtain(ask("another"))
        reading = engine.read()
        assert (reading.paid, reading.replayed) == (20, 1)
        assert reading.faults["server"] == teacher.served["server"] > 0
        assert len(journal) == 20


def test_a_killed_courier_stops_the_run_and_fails_no_row(tmp_path: Path) -> None:
    with FaultyTeacher(Plan(latency=5.0)) as teacher, Journal(tmp_path / "j") as journal:
        server = server_of(teacher, total=30.0)
        desk = CourierDesk(server, journal, workers=2)
        engine = JournalledEngine(desk, MODEL)
        killer = threading.Timer(0.8, os.kill, (desk.pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(StoppedError, match="ended unexpectedly"):
            engine.obtain(ask("hello"))
        engine.close()
        assert journal.num_orphaned() <= 1
