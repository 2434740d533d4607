"""Jobs and what comes of them as JSON, for the pipe to the process that computes. Both ends are this very program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import selfee.errors
from selfee.chain.allowance import Allowance
from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.chain.record import from_json, to_json
from selfee.chain.types import (
    Chain,
    ChainEnd,
    ChainFinished,
    Cost,
    Overrule,
    Overruled,
    Section,
    SectionEnd,
    SectionStart,
    TextDelta,
    Verdict,
    VerdictSource,
)
from selfee.engines.base import Chunk, FinishReason, SamplingParams, TokenLogprob, Usage
from selfee.engines.scoring import ScoredSequence, ScoredToken
from selfee.errors import EngineError, SelfeeError
from selfee.serve.engine.jobs import ChainJob, Job, Outcome, TextJob


def job_to_json(job: Job) -> dict[str, Any]:
    """A job as plain JSON values."""
    row: dict[str, Any] = {"params": _params_to_json(job.params), "stop": list(job.stop)}
    if isinstance(job, TextJob):
        names = [field.name for field in fields(job) if field.name not in row]
        return row | {"kind": "text"} | {name: getattr(job, name) for name in names}
    told = Chain(job.instruction, job.start, ChainEnd.CAPPED)
    plain = {name: asdict(getattr(job, name)) for name in ("policy", "budgets", "allowance")}
    rest = {name: getattr(job, name) for name in ("mode", "prompts", "scope", "logprobs", "schema")}
    return row | plain | rest | {"kind": "chain", "chain": to_json(told)}


def job_from_json(row: Mapping[str, Any]) -> Job:
    """The job in what ``job_to_json`` gave."""
    params, stop = _params_from_json(row["params"]), tuple(row["stop"])
    if row["kind"] == "text":
        rest = {name: value for name, value in row.items() if name not in ("kind", "params", "stop")}
        if rest.get("tokens") is not None:
            rest["tokens"] = tuple(rest["tokens"])
        return TextJob(params=params, stop=stop, **rest)
    told = from_json(row["chain"])
    return ChainJob(
        told.instruction,
        RevisionPolicy(**row["policy"]),
        params,
        Budgets(**row["budgets"]),
        Allowance(**row["allowance"]),
        row["mode"],
        row["prompts"],
        stop,
        told.steps,
        row["scope"],
        row["logprobs"],
        row["schema"],
    )


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """An event or a chunk as plain JSON values; the commonest are the shortest."""
    if isinstance(outcome, TextDelta):
        return {"d": outcome.text}
    if isinstance(outcome, Chunk):
        return _chunk_to_json(outcome)
    if isinstance(outcome, SectionStart):
        return {"e": "start", "section": outcome.section.value, "number": outcome.number}
    if isinstance(outcome, SectionEnd):
        verdict, cost = outcome.verdict, outcome.cost
        return {
            "e": "end",
            "section": outcome.section.value,
            "number": outcome.number,
            "text": outcome.text,
            "finished": outcome.finished,
            "verdict": None if verdict is None else vars(verdict) | {"source": verdict.source.value},
            "cost": None if cost is None else vars(cost),
        }
    if isinstance(outcome, Overruled):
        return {
            "e": "overruled",
            "number": outcome.number,
            "feedback": outcome.feedback,
            "kind": outcome.kind.value,
        }
    assert isinstance(outcome, ChainFinished), "jobs of the server have no checker"
    return {"e": "finished", "chain": to_json(outcome.chain)}


def outcome_from_json(row: Mapping[str, Any]) -> Outcome:
    """The event or chunk in what ``outcome_to_json`` gave."""
    if "d" in row:
        return TextDelta(row["d"])
    if "c" in row:
        return _chunk_from_json(row)
    kind = row["e"]
    if kind == "start":
        return SectionStart(Section(row["section"]), row["number"])
    if kind == "finished":
        return ChainFinished(from_json(row["chain"]))
    if kind == "overruled":
        return Overruled(row["number"], row["feedback"], Overrule(row["kind"]))
    verdict, cost = row["verdict"], row["cost"]
    return SectionEnd(
        Section(row["section"]),
        row["number"],
        row["text"],
        row["finished"],
        None if verdict is None else Verdict(**(verdict | {"source": VerdictSource(verdict["source"])})),
        None if cost is None else Cost(**(cost | {"seeds": tuple(cost["seeds"])})),
    )


def error_to_json(error: BaseException) -> dict[str, Any]:
    """An error as plain JSON values."""
    if isinstance(error, SelfeeError):
        return {
            "kind": type(error).__name__,
            "message": str(error),
            "retryable": getattr(error, "retryable", False),
        }
    return {"kind": "EngineError", "message": f"engine: unexpected {type(error).__name__}: {error}", "retryable": False}


def error_from_json(row: Mapping[str, Any]) -> SelfeeError:
    """The error in what ``error_to_json`` gave."""
    kind = getattr(selfee.errors, row["kind"], EngineError)
    if kind is EngineError:
        return EngineError(row["message"], retryable=row["retryable"])
    error: SelfeeError = kind(row["message"])
    return error


def _params_to_json(params: SamplingParams) -> dict[str, Any]:
    biases = {str(token): bias if math.isfinite(bias) else None for token, bias in params.logit_bias.items()}
    return vars(params) | {"logit_bias": biases, "samplers": list(params.samplers)}


def _params_from_json(row: Mapping[str, Any]) -> SamplingParams:
    biases = {int(token): -math.inf if bias is None else bias for token, bias in row["logit_bias"].items()}
    return SamplingParams(**{**row, "logit_bias": biases, "samplers": tuple(row["samplers"])})


def _chunk_to_json(chunk: Chunk) -> dict[str, Any]:
    row: dict[str, Any] = {"c": chunk.text}
    if chunk.finish_reason is not None:
        row["finish"] = chunk.finish_reason.value
        row["usage"] = None if chunk.usage is None else vars(chunk.usage)
        row["stop"] = chunk.stop
    if chunk.logprobs:
        row["logprobs"] = [[each.token, each.text, each.logprob, list(each.top)] for each in chunk.logprobs]
    return row


def _chunk_from_json(row: Mapping[str, Any]) -> Chunk:
    told: Sequence[Any] = row.get("logprobs", ())
    usage = row.get("usage")
    return Chunk(
        row["c"],
        FinishReason(row["finish"]) if "finish" in row else None,
        None if usage is None else Usage(**usage),
        row.get("stop"),
        tuple(
            TokenLogprob(token, text, logprob, tuple((one, said, value) for one, said, value in top))
            for token, text, logprob, top in told
        ),
    )


def sequence_to_json(sequence: ScoredSequence) -> list[Any]:
    """A scored sequence as plain JSON values."""
    return [[_token_to_json(token) for token in sequence.tokens], _token_to_json(sequence.next), sequence.evaluated]


def sequence_from_json(row: Sequence[Any]) -> ScoredSequence:
    """The sequence in what ``sequence_to_json`` gave."""
    tokens, following, evaluated = row
    return ScoredSequence(tuple(_token_from_json(token) for token in tokens), _token_from_json(following), evaluated)


def _token_to_json(token: ScoredToken) -> list[Any]:
    return [token.token, token.text, token.logprob, token.is_greedy, [list(each) for each in token.top]]


def _token_from_json(row: Sequence[Any]) -> ScoredToken:
    token, text, logprob, is_greedy, top = row
    return ScoredToken(token, text, logprob, is_greedy, tuple((one, said, value) for one, said, value in top))
