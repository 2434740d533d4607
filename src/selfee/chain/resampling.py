"""Best-of-N: ask the same question again and again, within a number or an allowance, and deliver one of the answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Literal

from selfee.chain.allowance import Allowance, Purse
from selfee.chain.asking import derive_seed
from selfee.chain.budgets import Budgets
from selfee.chain.checkers.base import Checker, CheckFunction, as_checker
from selfee.chain.policy import RevisionPolicy
from selfee.chain.prompts import GuidedPrompt, PromptSet
from selfee.chain.run import ChainStream, Mode, stream_chain
from selfee.chain.samples import (
    Choice,
    Chooser,
    Sampled,
    Samples,
    SamplesEnd,
    SamplesFinished,
    choose_by_check,
    choose_by_doubt,
    choose_by_score,
    choose_by_vote,
    choose_first,
)
from selfee.chain.selectors import last_finished, least_doubted
from selfee.chain.types import Chain, ChainEnd, ChainFinished, CutReason, Instruction
from selfee.chain.votes import Extractor, short_answer
from selfee.engines.base import SamplingParams
from selfee.errors import SelfeeError, UsageError

Keep = Literal["first", "score", "doubt", "check", "vote"]
KEEPS: tuple[Keep, ...] = ("first", "score", "doubt", "check", "vote")

SampleEvent = Sampled | SamplesFinished

_PARAMS, _BUDGETS, _ALLOWANCE = SamplingParams(), Budgets(), Allowance()


class SamplesStream(Iterator[SampleEvent]):
    """The events of attempts while they are made; ends with SamplesFinished. Closing it cancels.

    ``samples`` is everything, or what there is so far, as if cancelled now: also after closing.
    """

    def __init__(self, sampler: _Sampler) -> None:
        self._sampler = sampler
        self._events = sampler.events()

    @property
    def samples(self) -> Samples:
        """The attempts as they stand."""
        return self._sampler.snapshot()

    def __next__(self) -> SampleEvent:
        return next(self._events)

    def close(self) -> None:
        """Cancel. Nothing more comes."""
        self._events.close()
        self._sampler.close()

    def __enter__(self) -> SamplesStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stream_samples(
    engine: object,
    instruction: Instruction | str,
    count: int | None = None,
    params: SamplingParams = _PARAMS,
    *,
    keep: Keep | None = None,
    extractor: Extractor = short_answer,
    allowance: Allowance = _ALLOWANCE,
    checker: Checker | CheckFunction | None = None,
    until_passed: bool = False,
    mode: Mode = "auto",
    budgets: Budgets = _BUDGETS,
    prompts: PromptSet | GuidedPrompt | str | None = None,
    stop: Sequence[str] = (),
    reference: str = "",
) -> SamplesStream:
    """Make attempts, event by event: ``count`` of them, or as many as begin within ``allowance``, or both.

    An attempt that began within the allowance is finished: the cost then tells what was really spent. ``keep`` says
    which is delivered: "first"; by the critic's "score" or "doubt" (each attempt is criticised once, and that costs its
    tokens); by the "check" of ``checker``; by "vote" over what ``extractor`` finds. None = "check" if there is a
    checker, else "doubt". With ``until_passed`` the first attempt that passes is the last.

    Attempt 0 has the seed of ``params``, so it is what ``run_chain`` would have answered; the others' are derived.
    The rest is as for ``stream_chain``; so is what happens if the engine fails.
    """
    if isinstance(instruction, str):
        instruction = Instruction(instruction)
    checker = as_checker(checker)
    keep = keep or ("doubt" if checker is None else "check")
    plan = _Plan(count, allowance, keep, extractor, checker, until_passed)
    if params.temperature == 0 and count != 1:
        raise UsageError("samples: temperature is 0, so that every attempt would be the same; expected more than 0")
    seed = random.getrandbits(32) if params.seed is None else params.seed
    policy = RevisionPolicy(0, 0, always_criticise=keep in ("score", "doubt"))

    def attempt(number: int) -> ChainStream:
        return stream_chain(
            engine,
            instruction,
            policy,
            replace(params, seed=derive_seed(seed, number, "attempt ")),
            mode=mode,
            budgets=budgets,
            prompts=prompts,
            selector=least_doubted if keep == "doubt" else last_finished,
            stop=stop,
            reference=reference,
            checker=checker,
            until_passed=until_passed,
        )

    attempt(0).close()  # arguments that do not fit the engine are refused now and not with the first event
    return SamplesStream(_Sampler(instruction, plan, seed, attempt))


def run_samples(
    engine: object,
    instruction: Instruction | str,
    count: int | None = None,
    params: SamplingParams = _PARAMS,
    *,
    keep: Keep | None = None,
    extractor: Extractor = short_answer,
    allowance: Allowance = _ALLOWANCE,
    checker: Checker | CheckFunction | None = None,
    until_passed: bool = False,
    mode: Mode = "auto",
    budgets: Budgets = _BUDGETS,
    prompts: PromptSet | GuidedPrompt | str | None = None,
    stop: Sequence[str] = (),
    reference: str = "",
) -> Samples:
    """Make attempts and return them all; arguments as for ``stream_samples``.

    An engine's failure is raised only if no attempt was finished: else ``end`` and ``status`` tell.
    """
    stream = stream_samples(
        engine,
        instruction,
        count,
        params,
        keep=keep,
        extractor=extractor,
        allowance=allowance,
        checker=checker,
        until_passed=until_passed,
        mode=mode,
        budgets=budgets,
        prompts=prompts,
        stop=stop,
        reference=reference,
    )
    try:
        for _ in stream:
            pass
    except SelfeeError:
        if stream.samples.delivered is None:
            raise
    return stream.samples


@dataclass(frozen=True)
class _Plan:
    """How many attempts to make, and which to deliver."""

    count: int | None
    allowance: Allowance
    keep: Keep
    extractor: Extractor
    checker: Checker | None
    until_passed: bool

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise UsageError(f"samples: count is {self.count}; expected 1 or more, or None for as many as are allowed")
        if self.count is None and not self.allowance.is_limited:
            raise UsageError("samples: neither a count nor an allowance is given; expected one, or it would never end")
        if self.keep not in KEEPS:
            raise UsageError(f"samples: keep is {self.keep!r}; expected one of {', '.join(KEEPS)}")
        if self.checker is None and (self.until_passed or self.keep == "check"):
            raise UsageError("samples: there is no checker that could say what passes; give one")
        if self.until_passed and self.keep != "check":
            raise UsageError(f"samples: until_passed delivers what passes, not by {self.keep}; set keep to 'check'")

    @property
    def chooser(self) -> Chooser:
        """Which attempt is delivered."""
        choosers: dict[Keep, Chooser] = {
            "first": choose_first,
            "score": choose_by_score,
            "doubt": choose_by_doubt,
            "check": choose_by_check,
            "vote": choose_by_vote(self.extractor),
        }
        return choosers[self.keep]

    def settings(self) -> dict[str, object]:
        """The plan as plain JSON values; how each attempt was made stands in the attempts."""
        optional = {
            "allowance": asdict(self.allowance) if self.allowance.is_limited else None,
            "extractor": getattr(self.extractor, "__name__", str(self.extractor)) if self.keep == "vote" else None,
            "checker": self.checker and {"name": self.checker.name, "signal": self.checker.signal.value},
            "until_passed": self.until_passed,
        }
        plain: dict[str, object] = {"count": self.count, "keep": self.keep}
        return plain | {name: value for name, value in optional.items() if value}


class _Sampler:
    def __init__(self, instruction: Instruction, plan: _Plan, seed: int, attempt: Callable[[int], ChainStream]) -> None:
        self._instruction = instruction
        self._plan = plan
        self._seed = seed
        self._attempt = attempt
        self._purse = Purse(plan.allowance)
        self._made: list[Chain] = []
        self._open: ChainStream | None = None
        self._finished: Samples | None = None

    def events(self) -> Generator[SampleEvent, None, None]:
        """Attempts until one of the reasons to end holds."""
        self._purse.open()
        failure: SelfeeError | None = None
        while (end := self._end()) is None and failure is None:
            try:
                yield from self._sample()
            except SelfeeError as error:
                failure = error
        if failure is not None or end is None:
            end = SamplesEnd.CUT_OFF
        self._finished = self._finish(end, "" if failure is None else f" ({failure})")
        yield SamplesFinished(self._finished)
        if failure is not None:
            raise failure

    def snapshot(self) -> Samples:
        """What there is; an attempt under way counts as cancelled."""
        if self._finished is not None:
            return self._finished
        under_way = [] if self._open is None else [self._open.chain]
        return self._finish(SamplesEnd.CUT_OFF, ", then cancelled", under_way)

    def close(self) -> None:
        """Cancel the attempt under way."""
        if self._open is not None:
            self._open.close()

    def _sample(self) -> Generator[SampleEvent, None, None]:
        number = len(self._made)
        with self._attempt(number) as self._open:
            stream = self._open
            for event in stream:
                if isinstance(event, ChainFinished):
                    self._keep(event.chain)
                yield Sampled(number, event)

    def _keep(self, chain: Chain) -> None:
        self._made.append(chain)
        self._open = None
        self._purse.tokens += max(1, chain.cost.tokens)  # an engine that says nothing must not be asked for ever

    def _end(self) -> SamplesEnd | None:
        """Why no further attempt begins; None = one does."""
        last = self._made[-1] if self._made else None
        if last is not None and last.end is ChainEnd.PASSED:
            return SamplesEnd.PASSED
        if last is not None and last.cut in (CutReason.CANCELLED, CutReason.ERROR):
            return SamplesEnd.CUT_OFF
        if self._plan.count is not None and len(self._made) >= self._plan.count:
            return SamplesEnd.COMPLETE
        return SamplesEnd.SPENT if self._purse.is_empty else None

    def _finish(self, end: SamplesEnd, more: str, under_way: Sequence[Chain] = ()) -> Samples:
        attempts = (*self._made, *under_way)
        choice = self._plan.chooser(attempts)
        status = f"{len(attempts)} attempt{'' if len(attempts) == 1 else 's'}{self._spent_text(end)}{more}"
        return Samples(
            self._instruction,
            attempts,
            end,
            f"{status}; {_choice_text(choice, attempts)}",
            choice.attempt,
            choice.votes,
            self._seed,
            self._plan.settings(),
        )

    def _spent_text(self, end: SamplesEnd) -> str:
        return f", {self._purse} of {self._plan.allowance} spent" if end is SamplesEnd.SPENT else ""


def _choice_text(choice: Choice, attempts: Sequence[Chain]) -> str:
    failed = [step.check for attempt in attempts for step in attempt.steps if step.check and step.check.failed]
    text = f"attempt {choice.attempt + 1} is delivered" if choice.attempt is not None else "the first is delivered"
    text += f": {choice.reason}" if choice.reason else ""
    return text + (f"; {len(failed)} checks failed themselves: {failed[-1].reason}" if failed else "")
