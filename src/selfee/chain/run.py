"""One entry for all ways to make a chain: choose how to drive the engine, and keep what was made whatever happens."""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Literal

from selfee.chain.allowance import Allowance, Purse
from selfee.chain.asking import Asker
from selfee.chain.budgets import Budgets
from selfee.chain.checkers.base import Checker, CheckFunction, as_checker
from selfee.chain.continuing import check_start
from selfee.chain.draft import Draft, Ending
from selfee.chain.guided import guided_events
from selfee.chain.judging import score_verdicts
from selfee.chain.policy import RevisionPolicy
from selfee.chain.prompts import GUIDED_PROMPTS, PROMPT_SETS, GuidedPrompt, PromptSet, find_guided_prompt, find_prompts
from selfee.chain.rounds import cut_off
from selfee.chain.selectors import Selector, best_checked, last_finished, least_doubted, select
from selfee.chain.single_pass import single_pass_events
from selfee.chain.turn_by_turn import turn_events
from selfee.chain.types import Chain, ChainFinished, CutReason, Event, Instruction, Step
from selfee.engines.base import Engine, SamplingParams, chat_of, check_limits
from selfee.errors import ContextOverflowError, SelfeeError, UsageError

Mode = Literal["auto", "single-pass", "guided", "turns"]
MODES: tuple[Mode, ...] = ("auto", "single-pass", "guided", "turns")

SMALL_MODEL = 1_000_000_000
"""Engines that say they have fewer parameters (attribute ``num_parameters``) get the prompt set "small"."""

_POLICY, _PARAMS, _BUDGETS, _ALLOWANCE = RevisionPolicy(), SamplingParams(), Budgets(), Allowance()


@dataclass(frozen=True)
class Options:
    """How to make a chain, beside policy and sampling."""

    mode: Mode = "auto"
    budgets: Budgets = _BUDGETS
    prompts: PromptSet | GuidedPrompt | str | None = None  # None = fitting the mode and the model's size
    selector: Selector = last_finished
    stop: Sequence[str] = ()
    reference: str = ""
    allowance: Allowance = _ALLOWANCE
    checker: Checker | None = None
    until_passed: bool = False


class ChainStream(Iterator[Event]):
    """The events of a chain while it is made; ends with ChainFinished. Closing it cancels the request under way.

    ``chain`` is the finished chain, or what there is so far, as if cancelled now: also after closing.
    """

    def __init__(self, draft: Draft, events: Generator[Event, None, None]) -> None:
        self._draft = draft
        self._events = events
        self._finished: Chain | None = None

    @property
    def chain(self) -> Chain:
        """The chain as it stands."""
        return self._finished or self._draft.snapshot()

    def __next__(self) -> Event:
        event = next(self._events)
        if isinstance(event, ChainFinished):
            self._finished = event.chain
        return event

    def close(self) -> None:
        """Cancel. Nothing more comes."""
        self._events.close()

    def __enter__(self) -> ChainStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stream_chain(
    engine: object,
    instruction: Instruction | str,
    policy: RevisionPolicy = _POLICY,
    params: SamplingParams = _PARAMS,
    *,
    mode: Mode = "auto",
    budgets: Budgets = _BUDGETS,
    prompts: PromptSet | GuidedPrompt | str | None = None,
    selector: Selector | None = None,
    stop: Sequence[str] = (),
    reference: str = "",
    allowance: Allowance = _ALLOWANCE,
    checker: Checker | CheckFunction | None = None,
    until_passed: bool = False,
    start: Sequence[Step] = (),
    schema: str | None = None,
) -> ChainStream:
    """Make a chain, event by event.

    ``mode`` "single-pass" reads the stream of a model trained on chains, "turns" asks a chat model section by section,
    "guided" writes the headers for any completion model; "auto" takes single-pass if the engine says so (attribute
    ``trained_on_chains``), else turns if its model can chat, else guided. ``params.seed`` None draws a seed; the
    chain records it. ``stop`` ends answers and revisions, never feedback. ``reference`` is a good answer for the
    critic's eyes, for prompt sets with a place for it.

    ``allowance`` limits the chain as a whole. ``checker``, or a plain function, looks at every finished answer; with
    ``until_passed`` the chain ends with the first that passes. ``selector`` None delivers the answer that did best in
    its check, without a checker the last finished one.

    ``start`` holds the steps of a chain to go on with (``selfee.chain.continuing``): only what is new is made and told.
    With the chain's own seed and settings, what comes is what would have come had it not been stopped; in single pass,
    where one request may write several sections, only for greedy sampling.

    ``schema`` is a JSON schema (as text) that answers and revisions satisfy, section by section: not in single pass,
    and only by engines that can (attribute ``takes_schemas``).

    If the engine fails, ChainFinished with all that was made comes first, then the error is raised, unless the context
    window was full and a finished answer exists. Raises UsageError for arguments that do not fit the engine.
    """
    if isinstance(instruction, str):
        instruction = Instruction(instruction)
    check_limits(None, stop)
    check_start(start)
    checker = as_checker(checker)
    if until_passed and checker is None:
        raise UsageError("until_passed: there is no checker that could say so; give one")
    selector = selector or (last_finished if checker is None else best_checked)
    mode = choose_mode(engine, mode)
    if schema is not None:
        _check_schema(engine, mode)
    options = Options(mode, budgets, prompts, selector, tuple(stop), reference, allowance, checker, until_passed)
    seed = random.getrandbits(32) if params.seed is None else params.seed
    driver, purse = _Driver(engine, options), Purse(allowance)
    draft = Draft(
        instruction,
        policy,
        seed=seed,
        mode=options.mode,
        engine=str(getattr(engine, "name", type(engine).__name__)),
        settings=_settings(engine, policy, replace(params, seed=seed), options, driver.prompts_name),
        purse=purse,
        checker=checker,
        until_passed=until_passed,
        start=start,
        schema=schema,
    )
    asker = Asker(engine, params, seed, purse, sum(len(seeds) for seeds in _seeds(start)))
    return ChainStream(draft, _guard(draft, driver.events(draft, asker), selector, engine))


def run_chain(
    engine: object,
    instruction: Instruction | str,
    policy: RevisionPolicy = _POLICY,
    params: SamplingParams = _PARAMS,
    *,
    mode: Mode = "auto",
    budgets: Budgets = _BUDGETS,
    prompts: PromptSet | GuidedPrompt | str | None = None,
    selector: Selector | None = None,
    stop: Sequence[str] = (),
    reference: str = "",
    allowance: Allowance = _ALLOWANCE,
    checker: Checker | CheckFunction | None = None,
    until_passed: bool = False,
    start: Sequence[Step] = (),
    schema: str | None = None,
) -> Chain:
    """Make a chain and return it whole; arguments as for ``stream_chain``.

    An engine's failure is raised only if not even the first answer was finished: else the chain's ``cut`` and
    ``status`` tell.
    """
    stream = stream_chain(
        engine,
        instruction,
        policy,
        params,
        mode=mode,
        budgets=budgets,
        prompts=prompts,
        selector=selector,
        stop=stop,
        reference=reference,
        allowance=allowance,
        checker=checker,
        until_passed=until_passed,
        start=start,
        schema=schema,
    )
    try:
        for _ in stream:
            pass
    except SelfeeError:
        if stream.chain.delivered is None:
            raise
    return stream.chain


def _check_schema(engine: object, mode: Mode) -> None:
    """Raise UsageError where answers cannot be held to a schema."""
    if not getattr(engine, "takes_schemas", False):
        name = getattr(engine, "name", type(engine).__name__)
        raise UsageError(
            f"response_format: {name} cannot hold its text to a schema; expected a model file; ask for text"
        )
    if mode == "single-pass":
        raise UsageError(
            "response_format: in single pass the model writes answers and feedback as one text, which no schema "
            "fits; expected the mode guided or turns; say so, or ask for text"
        )


def _seeds(steps: Sequence[Step]) -> Iterator[tuple[int, ...]]:
    return (cost.seeds for step in steps for cost in (step.answer_cost, step.feedback_cost) if cost is not None)


def choose_mode(engine: object, mode: Mode = "auto") -> Mode:
    """The way to drive this engine. Raises UsageError if it cannot be driven the way asked for."""
    if mode not in MODES:
        raise UsageError(f"mode: {mode!r} is unknown; expected one of {', '.join(MODES)}")
    completes, chats = isinstance(engine, Engine), chat_of(engine) is not None
    if mode == "auto":
        if completes and getattr(engine, "trained_on_chains", False):
            return "single-pass"
        return "turns" if chats else "guided"
    if mode == "turns" and not chats:
        raise UsageError("mode: turns needs a chat model, and this one has no chat template; use guided")
    if mode != "turns" and not completes:
        raise UsageError(f"mode: {mode} needs an engine that completes text, and this one only chats; use turns")
    return mode


class _Driver:
    """The chosen way to drive an engine, with its prompts."""

    def __init__(self, engine: object, options: Options) -> None:
        self._engine = engine
        self._options = options
        self._guided = _find_guided(options.prompts) if options.mode == "guided" else None
        self._turns = _find_turns(engine, options.prompts) if options.mode == "turns" else None

    @property
    def prompts_name(self) -> str | None:
        """Name of the prompts in use."""
        prompts = self._guided or self._turns
        return prompts.name if prompts else None

    def events(self, draft: Draft, asker: Asker) -> Generator[Event, None, Ending]:
        """The chain's events; the generator returns why it ended."""
        engine, budgets, stop = self._engine, self._options.budgets, self._options.stop
        if self._turns is not None:
            chat = chat_of(engine)
            assert chat is not None, "choose_mode has seen to it"
            return turn_events(chat, draft, asker, budgets, self._turns, stop, self._options.reference)
        assert isinstance(engine, Engine), "choose_mode has seen to it"
        if self._guided is not None:
            return guided_events(engine, draft, asker, budgets, self._guided, stop)
        return single_pass_events(engine, draft, asker, budgets, stop)


def _find_turns(engine: object, prompts: PromptSet | GuidedPrompt | str | None) -> PromptSet:
    if isinstance(prompts, GuidedPrompt):
        raise UsageError(f"prompts: {prompts.name!r} is for guided mode; expected one of {', '.join(PROMPT_SETS)}")
    if prompts is None:
        size = getattr(engine, "num_parameters", None)
        prompts = "small" if isinstance(size, int) and size < SMALL_MODEL else "standard"
    return find_prompts(prompts) if isinstance(prompts, str) else prompts


def _find_guided(prompts: PromptSet | GuidedPrompt | str | None) -> GuidedPrompt:
    if isinstance(prompts, PromptSet):
        raise UsageError(f"prompts: {prompts.name!r} is for turns; expected one of {', '.join(GUIDED_PROMPTS)}")
    return prompts if isinstance(prompts, GuidedPrompt) else find_guided_prompt(prompts or "example")


def _settings(
    engine: object, policy: RevisionPolicy, params: SamplingParams, options: Options, prompts: str | None
) -> dict[str, object]:
    """Everything that shaped a chain, as plain JSON values."""
    sampling = asdict(params) | {
        # JSON has no word for -inf, which bans a token.
        "logit_bias": {
            str(token): bias if math.isfinite(bias) else str(bias) for token, bias in params.logit_bias.items()
        },
        "samplers": list(params.samplers),
    }
    settings: dict[str, object] = {
        "policy": asdict(policy),
        "params": sampling,
        "budgets": asdict(options.budgets),
        "selector": getattr(options.selector, "__name__", str(options.selector)),
    }
    optional = {
        "stop": list(options.stop),
        "prompts": prompts,
        "reference": options.reference,
        "context_length": getattr(engine, "context_length", None),
        "allowance": asdict(options.allowance) if options.allowance.is_limited else None,
        "checker": options.checker and {"name": options.checker.name, "signal": options.checker.signal.value},
        "until_passed": options.until_passed,
    }
    return settings | {name: value for name, value in optional.items() if value}


def _guard(
    draft: Draft, events: Generator[Event, None, Ending], selector: Selector, engine: object
) -> Generator[Event, None, None]:
    """Finish the chain whatever happens: what was made and paid for is delivered before an error is raised."""
    failure: SelfeeError | None = None
    draft.purse.open()
    try:
        ending = yield from events
    except SelfeeError as error:
        reason = CutReason.CONTEXT if isinstance(error, ContextOverflowError) else CutReason.ERROR
        ending = cut_off(reason, draft.place().removeprefix("in "))
        if reason is CutReason.ERROR:
            ending = replace(ending, status=f"{ending.status} ({error})")
        failure = error
        if (event := draft.break_off()) is not None:
            yield event
    chain = draft.finish(ending)
    try:
        if selector is least_doubted and failure is None:
            chain = score_verdicts(chain, engine)
        chain = replace(chain, selected=select(chain, selector))
    except SelfeeError as error:
        failure = failure or error
    yield ChainFinished(chain)
    if failure is not None and not (isinstance(failure, ContextOverflowError) and chain.delivered is not None):
        raise failure
