"""The OpenAI wire format as servers really speak it: bodies out, pieces and errors in. Pure functions.

Differences between servers are those of serving.md §2 and §4: the matched stop string is called ``stop_reason``
(vLLM), ``matched_stop`` (SGLang) or ``stopping_word`` (llama.cpp), or is missing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfee.engines.base import ChatRequest, FinishReason, Request, SamplingParams, TokenLogprob
from selfee.errors import ContextOverflowError, EngineError, SelfeeError

_STOP_FIELDS = ("stop_reason", "matched_stop", "stopping_word")
_REASONS = {
    "stop": FinishReason.END,  # or STOP: see Piece.names_stop
    "eos": FinishReason.END,
    "eos_token": FinishReason.END,
    "end_turn": FinishReason.END,
    "stop_sequence": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.CONTEXT,
    "abort": FinishReason.CANCELLED,
    "cancelled": FinishReason.CANCELLED,
}
_OVERFLOW = (
    "context_length_exceeded",
    "exceed_context_size",
    "maximum context length",
    "context size",
    "context window",
)
NOT_FOUND = "not found"
"""What the message of a 404 contains."""

_QUOTA = ("insufficient_quota", "billing_hard_limit")
_TRANSIENT = ("server_error", "overload", "rate_limit", "unavailable", "timeout", "internal")


@dataclass(frozen=True)
class Piece:
    """What one event of a stream says."""

    text: str = ""
    finish: str | None = None  # the server's own word
    stop: str | None = None  # the stop string the server names
    names_stop: bool = False  # whether the server names stop strings at all
    logprobs: tuple[TokenLogprob, ...] = ()
    usage: Mapping[str, Any] | None = None


def request_body(request: Request | ChatRequest, model: str, stop: Sequence[str]) -> dict[str, Any]:
    """The JSON body of a streaming completion or chat request, with ``stop`` in place of the request's own."""
    body: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if isinstance(request, Request):
        body["prompt"] = request.prompt
        if request.logprobs is not None:
            body["logprobs"] = request.logprobs
    else:
        body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
        if request.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": request.logprobs}
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if stop:
        body["stop"] = list(stop)
    return body | sampling_fields(request.params)


def sampling_fields(params: SamplingParams) -> dict[str, Any]:
    """Sampling parameters by their names on the wire.

    Temperature and top_p are always sent. Everything else is sent only where it departs from the defaults of
    SamplingParams, because strict servers refuse fields they do not know (so the server's own top_k is in force unless
    one is asked for); a repetition penalty goes under both names in use (llama.cpp's and vLLM's).
    """
    fields: dict[str, Any] = {"temperature": params.temperature, "top_p": params.top_p}
    if params.seed is not None:
        fields["seed"] = params.seed
    if params.logit_bias:
        # -100 is the least that servers take, and bans a token as well as -inf, which JSON cannot say.
        fields["logit_bias"] = {str(token): max(bias, -100.0) for token, bias in params.logit_bias.items()}
    default = SamplingParams()
    names = {
        "frequency_penalty": ("frequency_penalty",),
        "presence_penalty": ("presence_penalty",),
        "top_k": ("top_k",),
        "min_p": ("min_p",),
        "typical_p": ("typical_p",),
        "tail_free_z": ("tfs_z",),
        "repeat_penalty": ("repeat_penalty", "repetition_penalty"),
        "repeat_last_n": ("repeat_last_n",),
        "penalize_newline": ("penalize_nl",),
        "mirostat": ("mirostat",),
        "mirostat_tau": ("mirostat_tau",),
        "mirostat_eta": ("mirostat_eta",),
    }
    for ours, theirs in names.items():
        if (value := getattr(params, ours)) != getattr(default, ours):
            fields |= dict.fromkeys(theirs, value)
    return fields


def parse_payload(data: str | bytes, where: str) -> dict[str, Any]:
    """One JSON object of the server. Raises EngineError (retryable: the line may have been cut)."""
    try:
        payload = json.loads(data)
    except (ValueError, RecursionError) as error:
        shown = data[:80] if isinstance(data, str) else data[:80].decode("utf-8", errors="replace")
        raise EngineError(
            f"{where}: found {shown!r}; expected a JSON object", retryable=True, kind="malformed"
        ) from error
    if not isinstance(payload, dict):
        raise EngineError(f"{where}: found a JSON {type(payload).__name__}; expected an object", kind="malformed")
    return payload


def parse_piece(payload: Mapping[str, Any], where: str) -> Piece:
    """One event of a stream, or a whole answer that was not streamed. Raises EngineError if it fits neither."""
    choices = payload.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise EngineError(
            f"{where}: field 'choices' is no list of objects; expected an OpenAI-compatible answer", kind="malformed"
        )
    usage = payload.get("usage")
    usage = usage if isinstance(usage, dict) else None
    choice = next((choice for choice in choices if choice.get("index", 0) == 0), None)
    if choice is None:
        return Piece(usage=usage)
    message = choice.get("delta") or choice.get("message") or {}
    text = choice.get("text", message.get("content") if isinstance(message, dict) else None)
    if text is not None and not isinstance(text, str):
        raise EngineError(f"{where}: the text is a {type(text).__name__}; expected a string", kind="malformed")
    fields = dict(payload) | choice
    named = [fields[name] for name in _STOP_FIELDS if name in fields]
    stop = next((value for value in named if isinstance(value, str) and value), None)
    finish = choice.get("finish_reason") or None
    if finish is not None and not isinstance(finish, str):
        raise EngineError(
            f"{where}: finish_reason is a {type(finish).__name__}; expected a string or null", kind="malformed"
        )
    return Piece(text or "", finish, stop, bool(named), parse_logprobs(choice.get("logprobs")), usage)


def finish_reason(word: str, where: str) -> FinishReason:
    """What the server's ``finish_reason`` means. Raises EngineError for one that is no ending of a text."""
    if word not in _REASONS:
        expected = "expected stop or length"
        kind = "filtered" if "filter" in word else "malformed"
        raise EngineError(
            f"{where}: the stream ended with finish_reason '{word}'; {expected}; ask differently", kind=kind
        )
    return _REASONS[word]


def parse_logprobs(value: Any) -> tuple[TokenLogprob, ...]:
    """Both shapes in use: parallel lists (OpenAI completions, vLLM) and ``content`` (OpenAI chat, llama.cpp).

    A server's malformed log-probabilities count as absent.
    """
    if not isinstance(value, dict):
        return ()
    if isinstance(content := value.get("content"), list):
        return tuple(_from_content(entry) for entry in content if _is_entry(entry))
    tokens, logprobs, tops = (value.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not all(isinstance(field, list) for field in (tokens, logprobs, tops)) or len(tokens) != len(logprobs):
        return ()
    tops = [*tops, *[None] * (len(tokens) - len(tops))]
    return tuple(
        TokenLogprob(-1, token, _number(logprob), _from_table(top))
        for token, logprob, top in zip(tokens, logprobs, tops)
        if isinstance(token, str)
    )


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("token"), str)


def _from_content(entry: Mapping[str, Any]) -> TokenLogprob:
    top = entry.get("top_logprobs")
    entries = [other for other in top if _is_entry(other)] if isinstance(top, list) else []
    ranked = tuple((_id(other), other["token"], _number(other.get("logprob"))) for other in entries)
    return TokenLogprob(_id(entry), entry["token"], _number(entry.get("logprob")), ranked)


def _from_table(table: Any) -> tuple[tuple[int, str, float], ...]:
    if not isinstance(table, dict):
        return ()
    ranked = sorted(((-1, str(token), _number(value)) for token, value in table.items()), key=lambda entry: -entry[2])
    return tuple(ranked)


def _id(entry: Mapping[str, Any]) -> int:
    token = entry.get("id", -1)
    return token if isinstance(token, int) and not isinstance(token, bool) else -1


def _number(value: Any) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    return float(value) if usable else -math.inf


@dataclass(frozen=True)
class Complaint:
    """What a server's error object says."""

    message: str
    code: str = ""  # lower case: code and type together
    status: int | None = None  # of HTTP, or a numeric code within a stream

    @property
    def is_overflow(self) -> bool:
        """Whether the prompt was too long."""
        text = f"{self.code} {self.message}".lower()
        return any(sign in text for sign in _OVERFLOW) and (self.status is None or 400 <= self.status < 500)

    @property
    def is_transient(self) -> bool:
        """Whether an error within a stream may be gone at the next attempt."""
        if self.status is not None:
            return self.status in (408, 409, 429) or self.status >= 500
        return any(sign in self.code for sign in _TRANSIENT)


def parse_complaint(payload: Any, status: int | None = None) -> Complaint:
    """The error in a payload: ``{"error": {...}}``, ``{"error": "text"}``, ``{"message": …}``, ``{"detail": …}``."""
    error = payload.get("error", payload) if isinstance(payload, dict) else payload
    if not isinstance(error, dict):
        return Complaint(_shorten(error), status=status)
    message = error.get("message") or error.get("detail") or error
    code = error.get("code")
    if status is None and isinstance(code, int) and not isinstance(code, bool):
        status = code
    return Complaint(_shorten(message), f"{code} {error.get('type')}".lower(), status)


def _shorten(message: Any) -> str:
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= 500 else text[:497] + "..."


def to_error(where: str, complaint: Complaint) -> SelfeeError:
    """The error to raise for a complaint: what was found, what to do."""
    status, message = complaint.status, complaint.message or "no reason given"
    if complaint.is_overflow:
        return ContextOverflowError(f"{where}: {message}; shorten the prompt or lower max_tokens")
    told = f"HTTP {status}: {message}" if status else message
    if status == 401:
        return EngineError(f"{where}: the server does not know who asks ({told}); give the right API key", kind="key")
    if status == 403:
        return EngineError(f"{where}: the API key may not do this ({told}); use another key or model", kind="key")
    if status == 404:
        return EngineError(f"{where}: {NOT_FOUND} ({told}); check the address and the model after '#'", kind="refused")
    if status in (400, 413, 415, 422):
        return EngineError(f"{where}: the server refuses the request ({told}); change what it names", kind="refused")
    kind = "rate" if status == 429 or "rate_limit" in complaint.code else "server"
    if any(sign in complaint.code for sign in _QUOTA):  # no time of waiting fills it again
        return EngineError(f"{where}: the key's quota is used up ({told}); pay, or use another key", kind="quota")
    return EngineError(
        f"{where}: the server failed ({told}); try again later", retryable=complaint.is_transient, kind=kind
    )


class SurrogateJoiner:
    """Joins a surrogate pair that a server's JSON escapes cut in two; a lone surrogate becomes U+FFFD."""

    def __init__(self) -> None:
        self._high = ""

    def feed(self, text: str) -> str:
        """Text that can be encoded as UTF-8."""
        text = self._high + text
        self._high = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._high = text[:-1], text[-1]
        return _valid(text)

    def finish(self) -> str:
        """U+FFFD if the stream ended within a pair."""
        text, self._high = self._high, ""
        return _valid(text)


def _valid(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
