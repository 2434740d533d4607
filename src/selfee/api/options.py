"""How a chain is to be made, in the words of ``selfee ask``, and what they mean for the rooms below."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from selfee.chain.allowance import Allowance
from selfee.chain.budgets import Budgets
from selfee.chain.checkers.base import Checker, CheckFunction
from selfee.chain.policy import RevisionPolicy, policy_for
from selfee.chain.prompts import GuidedPrompt, PromptSet
from selfee.chain.resampling import KEEPS
from selfee.chain.run import Mode
from selfee.chain.selectors import SELECTORS, Selector, most_agreed
from selfee.chain.types import Step
from selfee.chain.votes import find_extractor
from selfee.engines.base import SAMPLER_ORDER, SamplingParams
from selfee.errors import UsageError
from selfee.weights.fetch.builtin import BuiltinModel

Given = Mapping[str, Any]
"""Options by name, those of ``load`` and of one chain together."""


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


_NUMBERS = ("revisions", "min_revisions", "max_revisions")
_NO_VOTE = "vote_on: there is no vote; expected keep='vote' beside it"


def merged(general: Options, own: Options) -> Given:
    """The options of one chain; what is said about revisions here takes the place of all that was said in general."""
    is_said = says_revisions(own)
    kept = {name: value for name, value in general.items() if not (is_said and name in _NUMBERS)}
    return {**kept, **own}


def says_revisions(options: Options) -> bool:
    """Whether the options say how many revisions there are to be."""
    return any(options.get(name) is not None for name in _NUMBERS)


def policy_of(options: Given, limited: bool, start: Sequence[Step], *, goes_on: bool) -> RevisionPolicy:
    """The policy; where there is an answer already, numbers say how many revisions more."""
    exactly, at_least, at_most = (options.get(name) for name in _NUMBERS)
    if not goes_on:
        return policy_for(exactly, at_least, at_most, limited=limited)
    if exactly is None and at_least is None and at_most is None:
        exactly = 1
    more = policy_for(exactly, at_least, at_most, limited=limited)
    made = len(start) - 1
    most = None if more.max_revisions is None else made + more.max_revisions
    return RevisionPolicy(made + more.min_revisions, most, stop_repeats=False)


def sampling_of(options: Given, suited: BuiltinModel | None, *, samples: bool = False) -> SamplingParams:
    """The sampling, as it suits a built-in model where nothing else is given.

    Several attempts must differ, so a model that does best at temperature 0 is sampled at the usual one.
    """
    names = {field.name for field in dataclasses.fields(SamplingParams)}
    values: dict[str, Any] = {name: value for name, value in options.items() if name in names}
    if suited is not None and not (samples and suited.temperature == 0):
        values = suited.sampling | values
    if isinstance(samplers := values.get("samplers"), str):
        raise UsageError(f"samplers: {samplers!r} is one string; expected a sequence of {', '.join(SAMPLER_ORDER)}")
    return SamplingParams(**values)


def rest_of(options: Given, suited: BuiltinModel | None) -> dict[str, Any]:
    """Everything of ``stream_chain`` but instruction, policy and sampling."""
    mode, prompts = options.get("mode", "auto"), options.get("prompts")
    if suited is not None and mode == "auto":
        mode, prompts = suited.mode, prompts or suited.prompts
    budgets = {
        section: options[name]
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


def attempts_of(count: int, options: Given, suited: BuiltinModel | None) -> dict[str, Any]:
    """Everything of ``stream_samples`` but the instruction. Raises UsageError for what is not about attempts."""
    keep, vote_on = options.get("keep"), options.get("vote_on")
    if count < 0:
        raise UsageError(f"best_of: {count} is negative; expected 1 or more, or 0 for as many as are allowed")
    if keep is not None and keep not in KEEPS:
        raise UsageError(f"keep: {keep!r} chooses between revisions; with best_of expected one of {', '.join(KEEPS)}")
    if vote_on is not None and keep != "vote":
        raise UsageError(_NO_VOTE)
    rest = rest_of({**options, "keep": None, "vote_on": None}, suited)
    del rest["selector"]
    params = sampling_of(options, suited, samples=True)
    extractor = find_extractor(vote_on or "short")
    return rest | {"count": count or None, "params": params, "keep": keep, "extractor": extractor}


def _selector(options: Given) -> Selector | None:
    keep, vote_on = options.get("keep"), options.get("vote_on")
    if vote_on is not None and keep != "vote":
        raise UsageError(_NO_VOTE)
    if vote_on is not None:
        return most_agreed(find_extractor(vote_on))
    if not isinstance(keep, str):
        return keep
    if keep not in SELECTORS:
        raise UsageError(f"keep: {keep!r} is unknown; expected one of {', '.join(SELECTORS)}, or a function")
    return SELECTORS[keep]


def refuse_unknown(options: Mapping[str, object]) -> None:
    known = list(Options.__annotations__)
    for name in options:
        if name == "best_of":
            raise UsageError("best_of: is about one question, and not a model; give it to revise or stream")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise UsageError(f"{name}: no such option; {hint}")
