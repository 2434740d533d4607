"""What is to be answered: which numbers of revisions, with which settings, and which chains that takes.

One chain that must revise N times holds the shorter ones (``selfee.chain.shorter``): one is made for each first turn.
A second turn follows what was delivered for the first, which differs from system to system: those that delivered the
same text share a chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from selfee import __version__
from selfee.chain.asking import derive_seed
from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.chain.run import Mode
from selfee.chain.shorter import shorten
from selfee.chain.types import Chain, ChainEnd, Exchange, Instruction
from selfee.engines.base import SamplingParams
from selfee.errors import UsageError
from selfee.eval.answers import Answer, Turn, answer_id
from selfee.eval.questions import Question
from selfee.journal import key_of

_BUDGETS, _PARAMS = Budgets(), SamplingParams(seed=0)


@dataclass(frozen=True)
class Plan:
    """How a set of questions is answered. ``params.seed`` must be given: a run that goes on needs the same."""

    name: str  # of the answers' file
    revisions: int = 3  # enforced at most; answers for 0, 1, … so many are read off
    enforces: bool = True  # False: only what the model delivers if it decides itself, within ``revisions``
    stop_repeats: bool = True  # a revision that repeats an earlier answer ends its chain
    params: SamplingParams = _PARAMS
    budgets: Budgets = _BUDGETS
    mode: Mode = "auto"
    prompts: str | None = None
    model: str = ""  # name and checksum: what a chain in the journal belongs to

    def __post_init__(self) -> None:
        if self.params.seed is None:
            raise UsageError("seed: none given; expected one, so that a run can go on where it stopped")
        if self.revisions < 0:
            raise UsageError(f"revisions: {self.revisions} is negative; expected 0 or more")
        if not self.name or any(sign in self.name for sign in "/\\@\0") or self.name.startswith("."):
            raise UsageError(f"name: {self.name!r} cannot name a file of answers; expected letters, digits, - and _")

    @property
    def systems(self) -> tuple[int | None, ...]:
        """The numbers of revisions that are answered for; None = the model decides itself."""
        return (*range(self.revisions + 1), None) if self.enforces else (None,)

    def policy(self, system: int | None) -> RevisionPolicy:
        """What such a system does by itself."""
        least, most = (0, self.revisions) if system is None else (system, system)
        return RevisionPolicy(least, most, self.stop_repeats)


@dataclass(frozen=True)
class Job:
    """One chain to make, and the systems that read their answers off it."""

    question: Question
    turn: int
    history: tuple[Exchange, ...]
    systems: tuple[int | None, ...]
    plan: Plan

    @property
    def instruction(self) -> Instruction:
        """What is asked."""
        return Instruction(self.question.turns[self.turn], history=self.history)

    @property
    def policy(self) -> RevisionPolicy:
        """One that holds those of all systems."""
        enforced = [system for system in self.systems if system is not None]
        least = max(enforced, default=0)
        most = self.plan.revisions if None in self.systems else least
        return RevisionPolicy(least, most, self.plan.stop_repeats)

    @property
    def seed(self) -> int:
        """Depends on question and turn only: every order, selection and resumption gives the same chain."""
        assert self.plan.params.seed is not None, "Plan sees to it"
        return derive_seed(self.plan.params.seed, self.turn + 1, f"question {self.question.id} turn ")

    @property
    def key(self) -> str:
        """The chain's name in the journal: all that could change it."""
        plan = self.plan
        return key_of(
            {
                "chain": plan.model,
                "selfee": __version__,  # another version may have other words for its critic
                "instruction": self.question.turns[self.turn],
                "history": [[turn.question, turn.answer] for turn in self.history],
                "policy": asdict(self.policy),
                "params": {name: str(value) for name, value in asdict(plan.params).items()},
                "seed": self.seed,
                "budgets": asdict(plan.budgets),
                "mode": plan.mode,
                "prompts": plan.prompts,
            }
        )

    @property
    def chain_id(self) -> str:
        """A short name for files."""
        return self.key[:16]


@dataclass(frozen=True)
class Made:
    """A job's chain."""

    job: Job
    chain: Chain

    def turn_of(self, system: int | None) -> Turn:
        """What a system delivers, read off the chain."""
        chain = shorten(self.chain, self.job.plan.policy(system))
        delivered = None if chain.delivered is None else chain.steps[chain.delivered]
        cost = None if delivered is None else delivered.answer_cost
        return Turn(
            chain.final,
            chain.delivered,
            status_of(chain, system),
            self.job.chain_id,
            None if cost is None else cost.tokens,
            chain.cost.tokens,
            round(chain.cost.seconds, 3),
        )


def status_of(chain: Chain, system: int | None) -> str:
    """How an answer came about: "complete", "repeated" (the chain ended early because a revision said the same),
    "fallback" (cut off: an earlier answer is delivered) or "cut" (not even the first answer was finished)."""
    if chain.end is not ChainEnd.CUT_OFF:
        return "repeated" if chain.end in (ChainEnd.UNCHANGED, ChainEnd.REPEATED) else "complete"
    if chain.delivered is None:
        return "cut"
    wanted = chain.num_revisions if system is None else system
    return "complete" if chain.delivered == wanted else "fallback"


def first_jobs(questions: Sequence[Question], plan: Plan) -> list[Job]:
    """The chains of all first turns."""
    return [Job(question, 0, (), plan.systems, plan) for question in questions]


def next_jobs(made: Sequence[Made]) -> list[Job]:
    """The chains of the turn that follows: one for each text delivered so far."""
    jobs = []
    for one in made:
        turn = one.job.turn
        if turn + 1 == len(one.job.question.turns):
            continue
        texts: dict[str, list[int | None]] = {}
        for system in one.job.systems:
            texts.setdefault(one.turn_of(system).text, []).append(system)
        for text, systems in texts.items():
            told = (*one.job.history, Exchange(one.job.question.turns[turn], text))
            jobs.append(Job(one.job.question, turn + 1, told, tuple(systems), one.job.plan))
    return jobs


def collect(questions: Sequence[Question], plan: Plan, made: Sequence[Made]) -> list[Answer]:
    """Every system's answer to every question whose chains are all there, in order."""
    turns: dict[tuple[str, int | None, int], Turn] = {}
    for one in made:
        for system in one.job.systems:
            turns[one.job.question.id, system, one.job.turn] = one.turn_of(system)
    answers = []
    for question in questions:
        for system in plan.systems:
            told = [turns.get((question.id, system, number)) for number in range(len(question.turns))]
            given = [turn for turn in told if turn is not None]
            if len(given) == len(question.turns):
                answers.append(_answer(question, plan, system, given))
    return answers


def _answer(question: Question, plan: Plan, system: int | None, turns: Sequence[Turn]) -> Answer:
    texts = [turn.text for turn in turns]
    name = f"{plan.name}@{system}"
    return Answer(
        question.id,
        plan.name,
        tuple(turns),
        system,
        question.category,
        plan.model,
        answer_id(question.id, name, texts),
    )
