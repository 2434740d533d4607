"""A whole reply and the question that brought it, as plain JSON values: what the journal stores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from selfee.engines.base import ChatRequest, Chunk, FinishReason, Message, Request, SamplingParams, TokenLogprob, Usage
from selfee.errors import BadFileError

_VERSION = 1


@dataclass(frozen=True)
class Reply:
    """Everything that came of one request, complete."""

    text: str
    finish_reason: FinishReason
    stop: str | None = None
    usage: Usage | None = None
    is_estimated: bool = False  # the server told no usage; it was reckoned from the length of the texts
    model: str = ""  # that answered, as the server says
    seconds: float = 0.0  # of the attempt that succeeded
    attempts: int = 1
    cost: float | None = None  # US dollars; None = no price is known, or it costs nothing
    logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def chunk(self) -> Chunk:
        """The reply as a stream of one piece: live and replayed, a reader sees the same."""
        return Chunk(self.text, self.finish_reason, self.usage, self.stop, self.logprobs)


def reply_to_json(reply: Reply) -> dict[str, Any]:
    """A reply as the journal stores it."""
    row: dict[str, Any] = {
        "version": _VERSION,
        "text": reply.text,
        "finish_reason": reply.finish_reason.value,
        "stop": reply.stop,
        "usage": None if reply.usage is None else asdict(reply.usage),
        "is_estimated": reply.is_estimated,
        "model": reply.model,
        "seconds": round(reply.seconds, 4),
        "attempts": reply.attempts,
        "cost": reply.cost,
    }
    if reply.logprobs:
        row["logprobs"] = [
            [entry.token, entry.text, _finite(entry.logprob), [[i, t, _finite(p)] for i, t, p in entry.top]]
            for entry in reply.logprobs
        ]
    return row


def reply_from_json(row: Any, where: str = "journal") -> Reply:
    """The reply that the journal stored. Raises BadFileError naming ``where``."""
    try:
        usage = row["usage"]
        return Reply(
            text=row["text"],
            finish_reason=FinishReason(row["finish_reason"]),
            stop=row["stop"],
            usage=None if usage is None else Usage(**usage),
            is_estimated=row["is_estimated"],
            model=row["model"],
            seconds=row["seconds"],
            attempts=row["attempts"],
            cost=row["cost"],
            logprobs=tuple(
                TokenLogprob(token, text, logprob, tuple((i, t, p) for i, t, p in top))
                for token, text, logprob, top in row.get("logprobs", ())
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadFileError(
            f"{where}: a stored reply cannot be read ({type(error).__name__}: {error}); expected one of selfee's; "
            "use another journal"
        ) from error


def asked_of(request: Request | ChatRequest, model: str) -> dict[str, Any]:
    """All that is asked, whose hash is the call's key. The server's address is not part of it: a model may move."""
    row: dict[str, Any] = {"model": model, "params": params_to_json(request.params), "max_tokens": request.max_tokens}
    row["stop"] = list(request.stop)
    if isinstance(request, ChatRequest):
        row["messages"] = [[message.role, message.content] for message in request.messages]
        row["prefix"] = request.prefix
        if request.logprobs is not None:
            row["logprobs"] = request.logprobs
    else:
        row["prompt"] = request.prompt
        row["logprobs"] = request.logprobs
        row["parse_special"] = request.parse_special
    return row


def request_of(asked: Mapping[str, Any]) -> Request | ChatRequest:
    """The request that ``asked_of`` described."""
    params, limit, stop = params_from_json(asked["params"]), asked["max_tokens"], tuple(asked["stop"])
    if "messages" in asked:
        messages = tuple(Message(role, content) for role, content in asked["messages"])
        return ChatRequest(messages, params, limit, stop, asked["prefix"], logprobs=asked.get("logprobs"))
    return Request(asked["prompt"], params, limit, stop, asked["logprobs"], asked["parse_special"])


def params_to_json(params: SamplingParams) -> dict[str, Any]:
    """Sampling parameters as JSON values; JSON has no word for -inf, which bans a token."""
    biases = {str(t): bias if math.isfinite(bias) else "-inf" for t, bias in params.logit_bias.items()}
    plain = asdict(replace(params, logit_bias={}))
    return plain | {"logit_bias": biases, "samplers": list(params.samplers)}


def params_from_json(row: Mapping[str, Any]) -> SamplingParams:
    """The parameters that ``params_to_json`` described."""
    biases = {int(token): float(bias) for token, bias in row["logit_bias"].items()}
    return SamplingParams(**dict(row) | {"logit_bias": biases, "samplers": tuple(row["samplers"])})


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -1e9
