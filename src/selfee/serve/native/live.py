"""A chain while it is made, and for some time after: who listens may come and go, and may say how it goes on."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from selfee.chain.continuing import steps_of, with_feedback
from selfee.chain.policy import RevisionPolicy
from selfee.chain.record import to_json
from selfee.chain.types import Chain, ChainFinished, CutReason, Step
from selfee.engines.cancelling import Cancellation
from selfee.errors import SelfeeError, UsageError
from selfee.serve.admission import Ticket
from selfee.serve.engine.backend import Backend
from selfee.serve.engine.jobs import ChainJob
from selfee.serve.native.telling import Teller, stop_cause, tell_end
from selfee.serve.protocol.errors import ApiError, from_selfee
from selfee.serve.protocol.native import ControlRequest

_TIME_TO_COME = 10.0
"""Seconds in which a chain that was just set going must be listened to."""

Place = Callable[[], Ticket]
"""Takes a place to compute, or one in line. Raises ApiError where there is none."""


@dataclass(frozen=True)
class Sent:
    """An event as it goes over the wire."""

    seq: int
    name: str
    data: bytes


class LiveChain:
    """One chain. Made with a job; ``start`` sets it going."""

    def __init__(
        self,
        backend: Backend,
        job: ChainJob,
        place: Place,
        *,
        owner: str,
        grace: float,
        most_bytes: int,
        on_end: Callable[[Chain, str], None],
    ) -> None:
        self.id = "chain_" + secrets.token_hex(16)
        self.owner = owner
        self.created = time.time()
        self.ended: float | None = None  # on the monotonic clock
        self.status = "queued"
        self.seq = 0
        self.chain: Chain | None = None
        self._backend = backend
        self._job = job
        self._place = place
        self._grace = grace
        self._most_bytes = most_bytes
        self._on_end = on_end
        self._began = time.monotonic()
        self._events: deque[Sent] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._listeners = 0
        self._wishes: list[ControlRequest] = []
        self._cancellation = Cancellation()
        self._task: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._teller = Teller()
        self._finished_answers = 0

    @property
    def is_running(self) -> bool:
        """Whether it computes, or waits for its turn."""
        return self._task is not None and not self._task.done()

    def start(self, wish: ControlRequest | None = None, chain: Chain | None = None) -> None:
        """Set it going: with its job, or from a chain that was made before, as ``wish`` says."""
        job = self._job
        self.chain = chain
        ticket = self._place()
        told = {
            "model": self._backend.info.name,
            "mode": self._backend.info.mode if job.mode == "auto" else job.mode,
            "policy": {"min_revisions": job.policy.min_revisions, "max_revisions": job.policy.max_revisions},
            "seed": job.params.seed,
            "steps": [] if chain is None else to_json(chain)["steps"],
        }
        self._publish("chain.created", told)
        try:
            if wish is not None:
                job = self._continued(wish)
        except ApiError:
            ticket.release()
            raise
        self._go(job, ticket)

    def control(self, wish: ControlRequest) -> None:
        """Do as a person says. Raises ApiError (400, 409) where that cannot be done now."""
        if self.is_running:
            self._control_running(wish)
            return
        if self.chain is None:
            raise _conflict("the chain has no finished answer to go on from")
        if wish.action == "stop":
            raise _conflict("the chain has ended already")
        if wish.action == "accept":
            self.chain = _accepted(self.chain, wish.answer)
            self._finish("accepted")
            return
        ticket = self._place()
        try:
            job = self._continued(wish)
        except ApiError:
            ticket.release()
            raise
        self._go(job, ticket)

    def _control_running(self, wish: ControlRequest) -> None:
        if wish.action == "feedback":
            _require_words(wish)
        if wish.action in ("accept", "feedback") and not self._has_answer(wish.answer):
            which = "no answer is finished yet" if wish.answer is None else f"answer {wish.answer} is not finished"
            raise _conflict(f"{which}; wait for it, or stop the chain")
        if wish.action == "go_on":
            raise _conflict("the chain goes on already")
        if self._wishes and self._wishes[-1].action != "one_more":
            raise _conflict(f"{self._wishes[-1].action} is being done already")
        self._wishes.append(wish)
        if wish.action != "one_more":
            self._cancellation.set()
        if self.status == "queued" and wish.action == "stop" and self._task is not None:
            self._task.cancel()

    def _has_answer(self, number: int | None) -> bool:
        return self._finished_answers > (0 if number is None else number)

    def stop(self) -> None:
        """Nobody wants it any more."""
        self._cancellation.set()
        if self.status == "queued" and self._task is not None:
            self._task.cancel()

    async def wait(self) -> None:
        """Until it has ended; as who listens."""
        self._listeners += 1
        self._stay()
        try:
            while self._task is not None and not self._task.done():
                await asyncio.wait([self._task])
        finally:
            self._listeners -= 1
            self._leave()

    async def listen(self, after: int = 0) -> AsyncIterator[Sent]:
        """Events after that number, then those to come, until the chain has ended; None = nothing for now.

        Raises ApiError (410) where the events asked for are no longer kept.
        """
        if self._events and after < self._events[0].seq - 1:
            raise ApiError(410, f"after: event {after + 1} is no longer kept; ask for the chain itself", param="after")
        self._listeners += 1
        self._stay()
        try:
            while True:
                news = self._news
                for sent in [each for each in self._events if each.seq > after]:
                    after = sent.seq
                    yield sent
                if self.seq > after:
                    continue
                if not self.is_running:
                    return
                await news.wait()
        finally:
            self._listeners -= 1
            self._leave()

    def as_json(self) -> dict[str, Any]:
        """How it stands."""
        return {
            "id": self.id,
            "object": "selfee.chain",
            "status": self.status,
            "last_seq": self.seq,
            "model": self._backend.info.name,
            "created": int(self.created),
            "chain": None if self.chain is None else to_json(self.chain),
        }

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def _leave(self, at_least: float = 0.0) -> None:
        """Stop it in a while, unless somebody listens."""
        if self._listeners or not self.is_running:
            return
        self._stay()
        seconds = max(self._grace, at_least)
        if seconds <= 0:
            self.stop()
        else:
            self._leaving = asyncio.get_running_loop().call_later(seconds, self.stop)

    def _publish(self, name: str, told: dict[str, Any]) -> None:
        self.seq += 1
        head = {
            "type": name,
            "seq": self.seq,
            "chain_id": self.id,
            "t": round(time.monotonic() - self._began, 3),
        }
        sent = Sent(self.seq, name, json.dumps(head | told, ensure_ascii=False).encode("utf-8", "replace"))
        self._events.append(sent)
        self._bytes += len(sent.data)
        while self._bytes > self._most_bytes and len(self._events) > 1:
            self._bytes -= len(self._events.popleft().data)
        self._news.set()
        self._news = asyncio.Event()

    def _continued(self, wish: ControlRequest, more: int = 1) -> ChainJob:
        """The job that goes on with the chain as ``wish`` says, told to those who listen."""
        assert self.chain is not None, "callers have seen to it"
        try:
            if wish.action == "feedback":
                _require_words(wish)
                steps = with_feedback(self.chain, wish.feedback or "", wish.answer)
            else:
                steps = steps_of(self.chain)
        except UsageError as error:
            raise ApiError(400, str(error), param=str(error).partition(":")[0]) from error
        self._publish("chain.continued", {"action": wish.action, "from_answer": len(steps) - 1})
        if wish.action == "feedback":
            for name, told in self._teller.tell_feedback(len(steps), steps[-1]):
                self._publish(name, told)
        if wish.action == "go_on":
            return self._resumed(steps)
        revisions = len(steps) - 1 + more
        policy = RevisionPolicy(revisions, revisions, stop_repeats=False)
        return replace(self._resumed(steps), policy=policy)

    def _resumed(self, steps: tuple[Step, ...]) -> ChainJob:
        """The job that goes on after these steps as if the chain had not been cut off."""
        assert self.chain is not None, "callers have seen to it"
        seed = self._job.params.seed if self.chain.seed is None else self.chain.seed
        params = replace(self._job.params, seed=seed)
        return replace(self._job, instruction=self.chain.instruction, params=params, start=steps)

    def _go(self, job: ChainJob, ticket: Ticket) -> None:
        self._cancellation, self._wishes, self.ended = Cancellation(), [], None
        self._finished_answers = len(job.start)
        self.status = "queued"
        if position := ticket.position:
            self._publish("chain.queued", {"position": position})
        self._task = asyncio.get_running_loop().create_task(self._run(job, ticket))
        self._task.add_done_callback(lambda task: self._note_end(task, ticket))
        self._leave(_TIME_TO_COME)

    def _note_end(self, task: asyncio.Task[None], ticket: Ticket) -> None:
        ticket.release()  # also where it was cancelled before it began
        if task.cancelled() and self.status in ("queued", "running"):
            self.status = "failed"
            gone = ApiError(499, "chain: stopped while it waited", "server_error", code="cancelled")
            self._publish("error", gone.body)
        self.ended = time.monotonic()
        self._stay()
        self._news.set()

    async def _run(self, job: ChainJob, ticket: Ticket) -> None:
        following: ChainJob | None = job
        try:
            async with ticket:
                while following is not None:
                    self._publish("chain.started", {"seed": following.params.seed})
                    self.status = "running"
                    await self._make(following)
                    following = self._follow()
        except ApiError as error:
            self._fail(error)
        except SelfeeError as error:
            self._fail(from_selfee(error))

    async def _make(self, job: ChainJob) -> None:
        self._teller.begin(job.start)
        async with aclosing(self._backend.run(job, self._cancellation)) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, ChainFinished):
                    self.chain = outcome.chain
                    continue
                for name, told in self._teller.tell(outcome):  # type: ignore[arg-type]
                    if name == "segment.completed" and told["segment"]["type"] != "feedback":
                        self._finished_answers += bool(told["segment"]["finished"])
                    self._publish(name, told)

    def _follow(self) -> ChainJob | None:
        """The next job, if a wish asks for one; otherwise the chain has ended."""
        assert self.chain is not None, "a chain's stream ends with the chain"
        wishes, self._wishes = self._wishes, []
        last = wishes[-1] if wishes else None
        if last is None or last.action == "stop":
            self._finish(stop_cause(self.chain))
            return None
        if last.action == "accept":
            self.chain = _accepted(self.chain, last.answer)
            self._finish("accepted")
            return None
        if self.chain.cut is CutReason.ERROR or not self._finished_answers:
            self._finish(stop_cause(self.chain))
            return None
        more = sum(wish.action == "one_more" for wish in wishes) if last.action == "one_more" else 1
        job = self._continued(last, more)
        self._cancellation = Cancellation()
        self._finished_answers = len(job.start)
        return job

    def _finish(self, cause: str) -> None:
        assert self.chain is not None, "callers have seen to it"
        self.status = "completed"
        self._publish(*tell_end(self.chain, cause))
        self._on_end(self.chain, cause)

    def _fail(self, error: ApiError) -> None:
        self.status = "failed"
        self._publish("error", error.body)


def _accepted(chain: Chain, number: int | None) -> Chain:
    """The chain up to its last finished answer, with the one that a person takes."""
    try:
        steps = steps_of(chain)
    except UsageError as error:
        raise _conflict("no answer is finished") from error
    taken = len(steps) - 1 if number is None else number
    if not 0 <= taken < len(steps):
        raise ApiError(400, f"answer: {taken}; expected 0 to {len(steps) - 1}", param="answer")
    return replace(chain, steps=steps, selected=taken, status=f"answer {taken} was accepted by the user")


def _require_words(wish: ControlRequest) -> None:
    if not (wish.feedback or "").strip():
        raise ApiError(400, "feedback: is empty; expected what should become better", param="feedback")


def _conflict(found: str) -> ApiError:
    return ApiError(409, f"control: {found}", code="conflict")
