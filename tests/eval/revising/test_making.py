"""What an analysis needs is made once, whatever interrupts it, and is the same however many problems are worked on."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import make_tiny

from selfee.chain.budgets import Budgets
from selfee.chain.types import Chain
from selfee.engines.base import Request, SamplingParams
from selfee.engines.local import LocalEngine
from selfee.engines.runtime import load_runtime
from selfee.engines.scripted import Reply, Rule, ScriptedEngine
from selfee.errors import EngineError, UsageError
from selfee.eval.revising.making import Maker, Plan, Pool, pool_to_json
from selfee.eval.revising.problems import Problem, problem_of
from selfee.journal import Journal

PLAN = Plan(revisions=2, mode="guided", prompts="plain", budgets=Budgets(64, 32, 64))
ROWS = [{"question": f"What is {n} + {n}?", "answer": f"It is {2 * n}.\n#### {2 * n}"} for n in range(1, 5)]
PROBLEMS = [problem_of(row, number, "rows") for number, row in enumerate(ROWS, start=1)]


def script(**reply: Any) -> ScriptedEngine:
    """Answers every problem, is never content, and revises; long answers are long."""
    return ScriptedEngine(
        rules=[
            Rule("Count again. Revision is needed.", pattern=r"### Feedback \d+:\n\Z"),
            Rule(" needed.", pattern=r"Revision is\Z"),
            Rule("I counted again, and it is 5.", pattern=r"### Revision 1:\n\Z"),
            Rule("I counted once more, and it is 4 after all.", pattern=r"### Revision 2:\n\Z"),
            Rule("Thinking aloud for long, it is 4.", pattern=r"think aloud(?s:.*)### Answer:\n\Z"),
            Rule(Reply("It is 4.", **reply), ends_with="### Answer:\n"),
        ],
        strict=False,
    )


def made(engine: object, journal: Path, plan: Plan = PLAN, parallel: int = 1) -> list[Pool]:
    with Journal(journal) as opened:
        found = dict(Maker(engine, "model", plan, opened).make(PROBLEMS, parallel))
    return [found[index] for index in range(len(PROBLEMS))]


def essence(pools: list[Pool]) -> list[Any]:
    """Everything but times and what a cache or a draft saved."""
    return [_timeless(pool_to_json(pool)) for pool in pools]


SAVED = ("seconds", "cached_tokens", "drafted_tokens", "accepted_tokens")


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in SAVED}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def test_each_problem_gets_a_chain_attempts_of_equal_tokens_and_a_longer_answer(tmp_path: Path) -> None:
    for pool in made(script(), tmp_path / "journal"):
        assert [step.answer[-12:] for step in pool.chain.steps] == ["It is 4.", "and it is 5.", "4 after all."]
        budget = pool.chain.cost.tokens
        first = pool.chain.steps[0]
        criticised = [chain.cost.tokens for chain in pool.criticised]
        answers = [_answer(chain) for chain in (*pool.criticised, *pool.plain)]
        assert first.answer_cost is not None
        assert first.feedback_cost is not None
        spent = first.answer_cost.tokens + first.feedback_cost.tokens
        assert spent + sum(criticised) >= budget > spent + sum(criticised[:-1])
        assert first.answer_cost.tokens + sum(answers) >= budget > first.answer_cost.tokens + sum(answers[:-1])
        assert all(chain.steps[0].verdict is not None for chain in pool.criticised)
        assert all(chain.steps[0].feedback is None for chain in pool.plain)
        assert pool.longer is not None
        assert pool.longer.final == "Thinking aloud for long, it is 4."


def test_the_attempt_that_the_critic_doubts_less_is_revised_too(tmp_path: Path) -> None:
    rules = [
        Rule("Hm. Revision is needed.", pattern=r"### Feedback \d+:\n\Z"),
        Rule(" not needed.", pattern=r"It is 9\.\s+### Feedback 1:\n.*Revision is\Z"),
        Rule(" needed.", pattern=r"Revision is\Z"),
        Rule("I counted again, and it is 5.", pattern=r"### Revision 1:\n\Z"),
        Rule("I counted once more, and it is 4 after all.", pattern=r"### Revision 2:\n\Z"),
    ]
    engine = ScriptedEngine(["It is 4.", *["It is 9."] * 30], rules=rules, strict=False)
    with Journal(tmp_path / "journal") as journal:
        [(_, pool)] = Maker(engine, "model", PLAN, journal).make(PROBLEMS[:1])
    assert pool.resampled is not None
    assert pool.resampled.steps[0].answer == pool.criticised[0].final == "It is 9."
    assert pool.resampled.num_revisions == 2
    assert all(other.resampled is None for other in made(script(), tmp_path / "other"))  # of equals, the first


def _answer(chain: Chain) -> int:
    cost = chain.steps[0].answer_cost
    return 0 if cost is None else cost.tokens


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    first = made(script(), tmp_path / "journal")
    again = ScriptedEngine(strict=False, rules=[], replies=[])
    assert essence(made(again, tmp_path / "journal")) == essence(first)
    assert again.requests == []


def test_other_settings_are_other_chains(tmp_path: Path) -> None:
    made(script(), tmp_path / "journal")
    for other in (replace(PLAN, seed=1), replace(PLAN, budgets=Budgets(65, 32, 64)), replace(PLAN, revisions=1)):
        engine = script()
        made(engine, tmp_path / "journal", other)
        assert engine.requests


def test_an_engine_that_fails_costs_only_what_was_under_way(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="broken wire"):
        made(script(error="broken wire", error_after=1), tmp_path / "journal")
    engine = script()
    undisturbed = essence(made(script(), tmp_path / "other"))
    assert essence(made(engine, tmp_path / "journal")) == undisturbed


def test_closing_early_keeps_what_was_finished(tmp_path: Path) -> None:
    engine = script(delay=0.001)
    with Journal(tmp_path / "journal") as journal:
        pools = Maker(engine, "model", PLAN, journal).make(PROBLEMS)
        next(pools)
        pools.close()  # type: ignore[attr-defined]
        kept = len(journal)
        assert kept >= 3
    assert threading.active_count() < 20
    more = script()
    whole = essence(made(more, tmp_path / "journal"))
    assert whole == essence(made(script(), tmp_path / "other"))


def test_problems_made_side_by_side_are_those_made_one_by_one(tmp_path: Path) -> None:
    assert essence(made(script(), tmp_path / "one", parallel=1)) == essence(
        made(script(), tmp_path / "four", parallel=4)
    )


def test_a_real_model_gives_the_same_pools_in_company_and_after_a_break(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "tiny.gguf")
    ending = SamplingParams(temperature=1.0, logit_bias={2: 3.0})  # it would hardly ever end by itself
    plan = replace(PLAN, budgets=Budgets(24, 12, 24), params=ending, most_attempts=3)
    with LocalEngine(load_runtime(tiny)) as alone:
        first = essence(made(alone, tmp_path / "one", plan))
    with LocalEngine(load_runtime(tiny, parallel=3), parallel=3) as together:
        assert essence(made(together, tmp_path / "two", plan, parallel=3)) == first
    revised = [row for row in first if row["resampled"]]
    assert 0 < len(revised) < len(first)
    for row in revised:  # a chain with the seed of an attempt begins with that attempt
        [attempt], again = row["attempts"][0]["steps"], row["resampled"]["steps"][0]
        assert (again["answer"], again["overruled"] or again["feedback"]) == (attempt["answer"], attempt["feedback"])


def test_seeds_of_attempts_and_problems_differ(tmp_path: Path) -> None:
    engine = script()
    made(engine, tmp_path / "journal")
    answers = [
        request.params.seed
        for request in engine.requests
        if isinstance(request, Request) and request.prompt.endswith("### Answer:\n") and "aloud" not in request.prompt
    ]
    assert len(set(answers)) == len(answers)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"revisions": 0}, "nothing to analyse"),
        ({"most_attempts": 0}, "attempts: 0"),
        ({"params": SamplingParams(temperature=0)}, "temperature: 0 makes every attempt the same"),
    ],
)
def test_plans_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Plan(**fields)


def test_a_problem_asks_so_that_its_answer_can_be_found() -> None:
    gsm8k = problem_of({"question": "1 + 1?", "answer": "#### 2"}, 7, "x")
    assert (gsm8k.id, gsm8k.task, gsm8k.question) == ("7", "gsm8k", "1 + 1?")
    assert "a number, on a line of its own" in gsm8k.prompt
    mbpp = problem_of({"text": "Add.", "task_id": 3, "test_list": ["assert add(1, 1) == 2"]}, 1, "x")
    assert (mbpp.id, mbpp.task) == ("3", "mbpp")
    assert "assert add(1, 1) == 2" in mbpp.prompt
    aqua = problem_of({"question": "1 + 1?", "options": ["A)1", "B)2"], "correct": "B"}, 1, "x")
    assert "A)1\nB)2" in aqua.prompt
    code = {"prompt": "def f():\n", "test": "def check(c): pass", "entry_point": "f", "canonical_solution": " pass"}
    assert problem_of(code, 1, "x").task == "humaneval"
    assert "about 50 words" in Problem("1", "gsm8k", "q", "q", "2").longer_prompt(50)
