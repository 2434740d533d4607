"""Makes what an analysis needs of each problem: a chain of enforced revisions, separate attempts of equal tokens.

Every chain is kept in a journal under the hash of all that shaped it, so that work goes on after any kill and nothing
is written twice. The same settings give the same chains, whatever was interrupted and however many are made at a time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from selfee.chain.allowance import Allowance
from selfee.chain.asking import derive_seed
from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.chain.record import from_json, to_json
from selfee.chain.run import Mode, choose_mode, stream_chain
from selfee.chain.types import Chain, CutReason, Instruction
from selfee.engines.base import SamplingParams
from selfee.errors import EngineError, UsageError
from selfee.eval.revising.cases import is_second_better
from selfee.eval.revising.problems import Problem
from selfee.journal import Journal, key_of

FORMAT = 1
"""Part of every key: changed where the same words would be asked for in another way."""

_WORDS_PER_TOKEN = 0.6  # of English prose, on the safe side: words asked for should fit into the tokens given
_LEAST_WORDS = 40
_PARAMS, _BUDGETS = SamplingParams(), Budgets()


@dataclass(frozen=True)
class Plan:
    """What is made of each problem."""

    revisions: int = 3  # enforced in the chain
    seed: int = 0  # all others are derived from it
    params: SamplingParams = _PARAMS
    budgets: Budgets = _BUDGETS
    mode: Mode = "auto"
    prompts: str | None = None
    most_attempts: int = 32  # separate attempts at a problem, whatever the chain spent
    longer: bool = True  # also one long answer with the chain's tokens

    def __post_init__(self) -> None:
        if self.revisions < 1:
            raise UsageError(f"revisions: {self.revisions}; expected 1 or more, or there is nothing to analyse")
        if self.most_attempts < 1:
            raise UsageError(f"attempts: {self.most_attempts}; expected 1 or more")
        if self.params.temperature == 0:
            raise UsageError("temperature: 0 makes every attempt the same; expected more, such as 0.7")


@dataclass(frozen=True)
class Pool:
    """All that was made of one problem."""

    problem: Problem
    chain: Chain  # with the revisions enforced
    criticised: tuple[Chain, ...]  # separate attempts after the chain's own first answer, each with feedback
    plain: tuple[Chain, ...]  # further attempts without feedback
    longer: Chain | None = None
    resampled: Chain | None = None  # revisions of the second attempt, where the critic doubts it less than the first


@dataclass
class Tally:
    """How far the work is."""

    problems: int = 0
    chains: int = 0  # written now
    known: int = 0  # found in the journal
    tokens: int = 0  # generated now
    listeners: list[Callable[[Tally], None]] = field(default_factory=list)


class Maker:
    """Makes pools with an engine. ``model`` names what no setting does: the hash of the model file, or a server's."""

    def __init__(self, engine: object, model: str, plan: Plan, journal: Journal) -> None:
        self._engine = engine
        self._model = model
        self._plan = replace(plan, mode=choose_mode(engine, plan.mode))
        self._journal = journal
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self.tally = Tally()

    def make(self, problems: Sequence[Problem], parallel: int = 1) -> Iterator[tuple[int, Pool]]:
        """Yields (index, pool) as they are finished; ``parallel`` problems are worked on at a time.

        Closing the iterator cancels. Raises what the engine raises: what was finished before is kept.
        """
        if parallel < 1:
            raise UsageError(f"parallel: {parallel}; expected 1 or more")
        self._cancelled.clear()
        results: queue.SimpleQueue[tuple[int, Pool] | BaseException] = queue.SimpleQueue()
        waiting = iter(range(len(problems)))

        def work() -> None:
            try:
                while not self._cancelled.is_set():
                    with self._lock:
                        index = next(waiting, None)
                    if index is None:
                        return
                    results.put((index, self._pool(problems[index])))
            except BaseException as error:
                results.put(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(parallel, len(problems)))]
        return self._results(results, threads, len(problems))

    def _results(
        self,
        results: queue.SimpleQueue[tuple[int, Pool] | BaseException],
        threads: Sequence[threading.Thread],
        count: int,
    ) -> Iterator[tuple[int, Pool]]:
        try:
            for thread in threads:
                thread.start()
            for _ in range(count):
                result = results.get()
                if isinstance(result, BaseException):
                    raise result
                self._count(problems=1)
                yield result
        finally:
            self._cancelled.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def _pool(self, problem: Problem) -> Pool:
        plan, instruction = self._plan, Instruction(problem.prompt)
        seed = derive_seed(plan.seed, 1, f"problem {problem.task} {problem.id} ")
        enforced = RevisionPolicy(plan.revisions, plan.revisions)
        chain = self._chain("chain", instruction, enforced, seed, plan.budgets)
        budget = chain.cost.tokens
        criticised, plain = self._attempts(instruction, chain, seed, budget)
        longer = self._longer(problem, seed, budget) if plan.longer else None
        resampled = None
        if criticised and is_second_better(chain, criticised[0]):
            # The seed of that attempt: the chain begins with it, word for word.
            resampled = self._chain("chain", instruction, enforced, _attempt_seed(seed, 1), plan.budgets)
        return Pool(problem, chain, tuple(criticised), tuple(plain), longer, resampled)

    def _attempts(
        self, instruction: Instruction, chain: Chain, seed: int, budget: int
    ) -> tuple[list[Chain], list[Chain]]:
        """Attempts with feedback until these spend the budget, then without until the answers alone do.

        The chain's own first answer and feedback are the first attempt.
        """
        first = chain.steps[0]
        answers = first.answer_cost.tokens if first.answer_cost else 0
        all_of_it = answers + (first.feedback_cost.tokens if first.feedback_cost else 0)
        made: tuple[list[Chain], list[Chain]] = ([], [])
        for number in range(1, self._plan.most_attempts):
            if answers >= budget:
                break
            criticises = all_of_it < budget
            policy = RevisionPolicy(0, 0, always_criticise=criticises)
            own = _attempt_seed(seed, number)
            attempt = self._chain("attempt", instruction, policy, own, self._plan.budgets)
            made[not criticises].append(attempt)
            answers += max(1, _answer_tokens(attempt))
            all_of_it += max(1, attempt.cost.tokens)
        return made

    def _longer(self, problem: Problem, seed: int, budget: int) -> Chain:
        """One answer that may use all tokens of the chain, and is told so."""
        words = max(_LEAST_WORDS, int(budget * _WORDS_PER_TOKEN) // 10 * 10)
        instruction = Instruction(problem.longer_prompt(words))
        budgets = replace(self._plan.budgets, answer=max(1, budget))
        return self._chain("longer", instruction, RevisionPolicy(0, 0), seed, budgets)

    def _chain(self, kind: str, instruction: Instruction, policy: RevisionPolicy, seed: int, budgets: Budgets) -> Chain:
        """A chain from the journal, or made now and kept there."""
        params = replace(self._plan.params, seed=seed)
        asked = {
            "selfee": FORMAT,
            "kind": kind,
            "model": self._model,
            "instruction": instruction.text,
            "policy": asdict(policy),
            "params": {name: value for name, value in asdict(params).items() if name != "logit_bias"}
            | {"logit_bias": {str(token): str(bias) for token, bias in params.logit_bias.items()}},
            "budgets": asdict(budgets),
            "mode": self._plan.mode,
            "prompts": self._plan.prompts,
        }
        key = key_of(asked)
        known = self._journal.get(key)
        if known is not None:
            self._count(known=1)
            return from_json(known, f"{self._journal.path}: {key[:12]}")
        chain = self._write(instruction, policy, params, budgets)
        self._journal.put(key, asked, to_json(chain))
        self._count(chains=1, tokens=chain.cost.tokens)
        return chain

    def _write(
        self, instruction: Instruction, policy: RevisionPolicy, params: SamplingParams, budgets: Budgets
    ) -> Chain:
        options: dict[str, Any] = {"mode": self._plan.mode, "prompts": self._plan.prompts, "budgets": budgets}
        with stream_chain(self._engine, instruction, policy, params, allowance=Allowance(), **options) as stream:
            for _ in stream:
                if self._cancelled.is_set():
                    raise EngineError("cancelled")
        chain = stream.chain
        if chain.cut in (CutReason.CANCELLED, CutReason.ERROR):
            raise EngineError(f"{chain.engine}: a chain was not finished ({chain.status})", retryable=True)
        return chain

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, value in more.items():
                setattr(self.tally, name, getattr(self.tally, name) + value)
            for listener in self.tally.listeners:
                listener(self.tally)


def pool_to_json(pool: Pool) -> dict[str, Any]:
    """A pool as plain JSON values: what a reader of the results looks at."""
    return {
        "id": pool.problem.id,
        "task": pool.problem.task,
        "reference": pool.problem.reference,
        "chain": to_json(pool.chain),
        "attempts": [to_json(chain) for chain in (*pool.criticised, *pool.plain)],
        "longer": None if pool.longer is None else to_json(pool.longer),
        "resampled": None if pool.resampled is None else to_json(pool.resampled),
    }


def _attempt_seed(seed: int, number: int) -> int:
    return derive_seed(seed, number, "attempt ")


def _answer_tokens(chain: Chain) -> int:
    cost = chain.steps[0].answer_cost if chain.steps else None
    return cost.tokens if cost else 0
