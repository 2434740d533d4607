"""The chains of one request: how they are to be made, and their events while they are."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from selfee.chain.allowance import Allowance
from selfee.chain.asking import derive_seed
from selfee.chain.policy import RevisionPolicy
from selfee.chain.types import Chain, ChainFinished, CutReason, Event, Instruction
from selfee.engines.cancelling import Cancellation
from selfee.serve.admission import Ticket
from selfee.serve.asking import Suffix, View, fresh_seed, params_of, policy_of
from selfee.serve.engine.jobs import ChainJob
from selfee.serve.native.telling import stop_cause
from selfee.serve.openai.merging import once_written
from selfee.serve.protocol.chat import OpenAiFields, SelfeeOptions
from selfee.serve.protocol.errors import ApiError
from selfee.serve.service import Served, Service


@dataclass(frozen=True)
class Plan:
    """One request, ready to be done: a job for each choice."""

    model: Served
    jobs: tuple[ChainJob, ...]
    view: View
    includes_usage: bool

    @property
    def is_plain(self) -> bool:
        """Whether there is one answer and nothing else to tell."""
        policy = self.jobs[0].policy
        return policy.max_revisions == 0 and self.view == "final"


def chain_job(
    model: Served,
    asked: OpenAiFields,
    instruction: Instruction,
    options: SelfeeOptions,
    policy: RevisionPolicy,
    limit: int | None,
    schema: str | None = None,
) -> ChainJob:
    """The chain that is asked for; ``limit`` is what all of it may generate. Raises ApiError (400)."""
    defaults = model.defaults
    budgets = defaults.budgets
    if limit is not None and policy.max_revisions == 0:
        budgets = replace(budgets, answer=limit)
    return ChainJob(
        instruction,
        policy,
        fresh_seed(params_of(asked, defaults.params)),
        budgets,
        Allowance(limit),
        options.drive or defaults.mode,
        options.prompts or (defaults.prompts if options.drive in (None, defaults.mode) else None),
        asked.stops(),
        schema=schema,
    )


def choices_of(job: ChainJob, count: int) -> tuple[ChainJob, ...]:
    """The same job for each choice, with a seed of its own."""
    seed = job.params.seed or 0
    seeds = (derive_seed(seed, index, "choice") for index in range(count))
    return tuple(replace(job, params=replace(job.params, seed=each)) for each in seeds)


def checked_count(service: Service, count: int | None) -> int:
    """How many choices are wanted. Raises ApiError (400)."""
    most = service.config.limits.choices
    if (count or 1) > most:
        raise ApiError(400, f"n: {count}; expected 1 to {most} here", param="n", code="invalid_value")
    return count or 1


def revisions_of(
    options: SelfeeOptions, suffix: Suffix, effort: int | None, defaults: RevisionPolicy
) -> RevisionPolicy:
    """How many revisions to make: said by a field, else by the model's name, else by the effort."""
    if options.mode == "off":
        return RevisionPolicy(0, 0)
    least, most = options.min_revisions, options.max_revisions
    if options.mode == "enforce" and least is None:
        least = 1 if most is None else most
    if least is None and most is None:
        if suffix.revisions is not None:
            return RevisionPolicy(suffix.revisions, suffix.revisions)
        most = effort
    return policy_of(least, most, defaults)


class Chains:
    """Does the jobs of a plan, each in its turn, and keeps the chains."""

    def __init__(self, service: Service, plan: Plan, tickets: Sequence[Ticket]) -> None:
        self._service = service
        self._plan = plan
        self._tickets = tickets
        self._began = time.monotonic()
        self._made: dict[int, Chain] = {}

    def __len__(self) -> int:
        return len(self._plan.jobs)

    def __getitem__(self, index: int) -> Chain:
        return self._made[index]

    @property
    def made(self) -> list[Chain]:
        """Those that have ended, in the order of the choices."""
        return [self._made[index] for index in sorted(self._made)]

    def release(self) -> None:
        """Give places back that were never used."""
        for ticket in self._tickets:
            ticket.release()

    async def events(self, index: int) -> AsyncGenerator[Event, None]:
        """The events of one choice, when its turn has come. Raises where its chain failed."""
        model = self._plan.model
        async with (
            self._tickets[index],
            aclosing(model.backend.run(self._plan.jobs[index], Cancellation())) as stream,
            aclosing(once_written(stream)) as outcomes,
        ):
            async for outcome in outcomes:
                if self._began:
                    self._service.metrics.first_piece(model.name, time.monotonic() - self._began)
                    self._began = 0
                if isinstance(outcome, ChainFinished):
                    chain = outcome.chain
                    self._made[index] = chain
                    self._service.note_chain(model.name, chain, stop_cause(chain))
                    if chain.cut in (CutReason.ERROR, CutReason.CANCELLED):
                        continue  # the error comes next
                yield outcome  # type: ignore[misc]
        if self._made[index].cut is CutReason.CANCELLED:
            raise ApiError.stopping()
