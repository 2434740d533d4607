"""Many questions: every chain is the one that the question gives alone, whatever else is made beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import make_tiny

from selfee.chain import Budgets, Chain, ChainEnd, RevisionPolicy, run_chain, run_chains
from selfee.chain.asking import derive_seed
from selfee.engines.base import Chunk, FinishReason, Request, SamplingParams
from selfee.engines.open import open_engine
from selfee.errors import EngineError, UsageError

QUESTIONS = ["Why?", "How much?", "Who?", "When was it?", "Where to?"]
SHORT = Budgets(answer=40, feedback=20, revision=40)
ENFORCED = RevisionPolicy(min_revisions=1, max_revisions=1)


def texts(chain: Chain) -> list[tuple[str, str | None]]:
    return [(step.answer, step.feedback) for step in chain.steps]


def test_a_chain_is_the_same_alone_and_in_company(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_ctx=4096)
    params = SamplingParams(temperature=1.0, seed=5)
    with open_engine(str(path), parallel=4) as engine:
        together = dict(run_chains(engine, QUESTIONS, ENFORCED, params, mode="guided", budgets=SHORT))
    assert sorted(together) == list(range(len(QUESTIONS)))
    for index, question in enumerate(QUESTIONS):
        with open_engine(str(path), drafting=False) as engine:
            alone = run_chain(
                engine,
                question,
                ENFORCED,
                SamplingParams(temperature=1.0, seed=derive_seed(5, index)),
                mode="guided",
                budgets=SHORT,
            )
        assert texts(together[index]) == texts(alone)
        assert together[index].seed == alone.seed


def test_each_chain_may_be_given_a_seed_of_its_own(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_ctx=4096)
    with open_engine(str(path)) as engine:
        options: dict[str, Any] = {"mode": "guided", "budgets": SHORT}
        made = dict(run_chains(engine, QUESTIONS[:2], ENFORCED, SamplingParams(), seeds=[7, 9], **options))
        assert [made[0].seed, made[1].seed] == [7, 9]
        with pytest.raises(UsageError, match="1 for 2 instructions"):
            run_chains(engine, QUESTIONS[:2], ENFORCED, SamplingParams(), seeds=[7])


class Slow:
    """Says one letter after another for ever; knows how many streams are open."""

    name = "slow"
    context_length = None

    def __init__(self) -> None:
        self.open = 0
        self.most = 0
        self.lock = threading.Lock()

    def stream(self, request: Request) -> Iterator[Chunk]:
        with self.lock:
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            if "How" in request.prompt:
                raise EngineError("slow: is gone")
            for _ in range(20 if "Who" in request.prompt else 10**9):
                time.sleep(0.001)
                yield Chunk("a")
            yield Chunk("", FinishReason.END)
        finally:
            with self.lock:
                self.open -= 1


def test_closing_cancels_every_chain_under_way() -> None:
    engine = Slow()
    results = run_chains(engine, ["Who?", *QUESTIONS], RevisionPolicy(max_revisions=0), parallel=3, mode="guided")
    assert next(results)[0] in (0, 2)
    results.close()  # type: ignore[attr-defined]
    assert (engine.open, engine.most) == (0, 3)


def test_a_failed_engine_costs_its_own_chain_only() -> None:
    results = run_chains(Slow(), ["How much?", "Who?"], RevisionPolicy(max_revisions=0), parallel=2, mode="guided")
    chains = dict(results)
    assert chains[0].end is ChainEnd.CUT_OFF
    assert "is gone" in chains[0].status
    assert chains[1].final == "a" * 20


def test_what_cannot_work_is_refused_and_nothing_is_nothing() -> None:
    with pytest.raises(UsageError, match="parallel: 0"):
        run_chains(Slow(), QUESTIONS, parallel=0)
    with pytest.raises(UsageError, match="turns"):
        list(run_chains(Slow(), QUESTIONS, mode="turns"))
    assert list(run_chains(Slow(), [])) == []
    assert list(islice(run_chains(Slow(), QUESTIONS), 0)) == []
