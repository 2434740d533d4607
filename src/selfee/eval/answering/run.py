"""Make the chains of a plan, several at once, each in the journal as soon as it is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from selfee.chain.many import run_chains
from selfee.chain.policy import RevisionPolicy
from selfee.chain.record import from_json, to_json
from selfee.chain.types import Chain, CutReason
from selfee.eval.answering.plan import Job, Made, Plan, first_jobs, next_jobs
from selfee.eval.questions import Question
from selfee.journal import Journal


@dataclass(frozen=True)
class Failure:
    """A chain that the engine could not finish; asked again, it may."""

    question_id: str
    turn: int
    reason: str


@dataclass
class Outcome:
    """What came of a run."""

    made: list[Made] = field(default_factory=list)  # in the order of the questions
    failures: list[Failure] = field(default_factory=list)
    recalled: int = 0  # chains that the journal had


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    done: int  # chains
    total: int  # as far as is known: second turns follow from first ones
    question_id: str  # of the chain that has just come
    recalled: bool  # the journal had it
    tokens: int  # generated in this run


Listener = Callable[[Progress], None]


def answer_questions(
    engine: object,
    questions: Sequence[Question],
    plan: Plan,
    journal: Journal,
    *,
    parallel: int | None = None,
    listen: Listener = lambda progress: None,
) -> Outcome:
    """Answer every question for every number of revisions that the plan asks for.

    What the journal has is not made again. A chain that failed because of its engine is not journalled, and its
    question has no answers; the others go on. Raises UsageError for what does not fit the engine, and what the engine
    raises if it stops altogether.
    """
    outcome = Outcome()
    counter = _Counter(len(questions), listen)
    jobs = first_jobs(questions, plan)
    while jobs:
        made = _make_all(engine, jobs, plan, journal, outcome, counter, parallel)
        outcome.made += made
        jobs = next_jobs(made)
        counter.total += len(jobs)
    return outcome


class _Counter:
    def __init__(self, total: int, listen: Listener) -> None:
        self.total = total
        self._done = self._tokens = 0
        self._listen = listen

    def count(self, job: Job, tokens: int, *, recalled: bool) -> None:
        self._done += 1
        self._tokens += 0 if recalled else tokens
        self._listen(Progress(self._done, self.total, job.question.id, recalled, self._tokens))


def _make_all(
    engine: object,
    jobs: Sequence[Job],
    plan: Plan,
    journal: Journal,
    outcome: Outcome,
    counter: _Counter,
    parallel: int | None,
) -> list[Made]:
    """The chains of these jobs, in their order, those left out that failed."""
    chains: dict[int, Chain] = {}
    waiting: dict[RevisionPolicy, list[int]] = {}
    for number, job in enumerate(jobs):
        if (stored := journal.get(job.key)) is not None:
            chains[number] = from_json(stored, f"{journal.path}: chain {job.chain_id}")
            outcome.recalled += 1
            counter.count(job, chains[number].cost.tokens, recalled=True)
        else:
            waiting.setdefault(job.policy, []).append(number)
    for policy, numbers in waiting.items():
        chosen = [jobs[number] for number in numbers]
        for index, chain in _run(engine, chosen, policy, plan, parallel):
            job = chosen[index]
            if chain.cut in (CutReason.ERROR, CutReason.CANCELLED):
                outcome.failures.append(Failure(job.question.id, job.turn, chain.status))
            else:
                journal.put(job.key, {"question": job.question.id, "turn": job.turn}, to_json(chain))
                chains[numbers[index]] = chain
            counter.count(job, chain.cost.tokens, recalled=False)
    outcome.failures.sort(key=lambda failure: (failure.turn, failure.question_id))
    return [Made(job, chains[number]) for number, job in enumerate(jobs) if number in chains]


def _run(
    engine: object, jobs: Sequence[Job], policy: RevisionPolicy, plan: Plan, parallel: int | None
) -> Iterator[tuple[int, Chain]]:
    return run_chains(
        engine,
        [job.instruction for job in jobs],
        policy,
        plan.params,
        parallel=parallel,
        seeds=[job.seed for job in jobs],
        mode=plan.mode,
        prompts=plan.prompts,
        budgets=plan.budgets,
    )
