"""What every engine has in common: a request goes in, pieces of text come out.

An engine continues text. It knows nothing of answers, feedback or revisions (that is ``selfee.chain``) and
nothing of files (that is ``selfee.weights``). Closing the iterator that ``stream`` returns cancels the request.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from selfee.errors import UsageError

if TYPE_CHECKING:
    from selfee.engines.cancelling import Cancellation

ROLES = ("system", "user", "assistant")
"""Who may speak in a chat."""

SAMPLER_ORDER = ("penalties", "top_k", "tail_free", "typical", "top_p", "min_p", "temperature")
"""Order of the samplers, as in llama.cpp of June 2023 with min-p (newer) before the temperature."""


class FinishReason(enum.Enum):
    """Why a stream ended."""

    END = "end"  # the model produced its end-of-text token
    STOP = "stop"  # one of the request's stop strings appeared (Chunk.stop names it)
    LENGTH = "length"  # max_tokens was used up
    CONTEXT = "context"  # the context window is full
    CANCELLED = "cancelled"  # the server or the caller gave up


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is drawn. Defaults are greedy-free, moderate sampling as SelFee published (0.7)."""

    temperature: float = 0.7  # 0 = always the most likely token
    top_k: int = 40  # keep the k most likely tokens; 0 = all
    top_p: float = 0.95  # keep the smallest set with this total probability; 1 = all
    min_p: float = 0.0  # keep tokens at least this fraction as likely as the best; 0 = all
    typical_p: float = 1.0  # locally typical sampling; 1 = off
    tail_free_z: float = 1.0  # tail-free sampling; 1 = off
    repeat_penalty: float = 1.0  # divide (multiply) positive (negative) logits of recent tokens; 1 = off
    repeat_last_n: int = 64  # how many recent tokens the penalties look at; -1 = the whole context
    frequency_penalty: float = 0.0  # subtract this for each recent occurrence
    presence_penalty: float = 0.0  # subtract this once if the token occurred recently
    penalize_newline: bool = True  # whether the newline token may be penalised
    mirostat: int = 0  # 0 = off, 1 or 2 = mirostat version; replaces top-k, tail-free, typical, top-p, min-p
    mirostat_tau: float = 5.0  # mirostat: target surprise in bits
    mirostat_eta: float = 0.1  # mirostat: learning rate
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # token id -> added to its logit; -inf bans it
    seed: int | None = None  # None = a fresh random seed, reported in Usage.seed
    samplers: Sequence[str] = SAMPLER_ORDER  # the order in which samplers are applied

    def __post_init__(self) -> None:
        checks = (
            ("temperature", self.temperature, 0.0, 100.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("typical_p", self.typical_p, 0.0, 1.0),
            ("tail_free_z", self.tail_free_z, 0.0, 1.0),
            ("repeat_penalty", self.repeat_penalty, 1e-3, 100.0),
            ("frequency_penalty", self.frequency_penalty, -100.0, 100.0),
            ("presence_penalty", self.presence_penalty, -100.0, 100.0),
            ("mirostat_tau", self.mirostat_tau, 0.0, 1000.0),
            ("mirostat_eta", self.mirostat_eta, 0.0, 10.0),
        )
        for name, value, low, high in checks:
            if not low <= value <= high:  # also false for NaN
                raise UsageError(f"{name}: {value} is out of range; expected {low} to {high}")
        if 0 < self.temperature < 1e-9:  # logits divided by less may not be numbers any more
            raise UsageError(f"temperature: {self.temperature} is next to nothing; expected 0 (greedy) or 1e-9 to 100")
        if self.mirostat not in (0, 1, 2):
            raise UsageError(f"mirostat: {self.mirostat} is not a version; expected 0 (off), 1 or 2")
        if self.top_k < 0:
            raise UsageError(f"top_k: {self.top_k} is negative; expected 0 (all tokens) or more")
        if self.repeat_last_n < -1:
            raise UsageError(f"repeat_last_n: {self.repeat_last_n}; expected -1 (whole context), 0 (off) or more")
        for token, bias in self.logit_bias.items():
            if not bias < math.inf:  # also false for NaN
                raise UsageError(f"logit_bias: {bias} for token {token}; expected a number or -inf")
        unknown = [name for name in self.samplers if name not in SAMPLER_ORDER]
        if unknown:
            raise UsageError(f"samplers: unknown '{unknown[0]}'; expected names from {', '.join(SAMPLER_ORDER)}")


def check_limits(max_tokens: int | None, stop: Sequence[str]) -> None:
    """Refuse limits that no engine could honour. Raises UsageError naming the field."""
    if max_tokens is not None and max_tokens < 0:
        raise UsageError(f"max_tokens: {max_tokens} is negative; expected 0 or more, or None for no limit")
    if isinstance(stop, str):
        raise UsageError(f"stop: {stop!r} is one string; expected a sequence of strings; write ({stop!r},)")
    for text in stop:
        if not isinstance(text, str) or not text:
            raise UsageError(f"stop: {text!r} cannot be looked for; expected non-empty strings; leave it out")


def check_logprobs(logprobs: int | None) -> None:
    """Refuse a number of log-probabilities that is none. Raises UsageError."""
    if logprobs is not None and logprobs < 0:
        raise UsageError(f"logprobs: {logprobs} is negative; expected 0 or more, or None for none")


class Prediction:
    """What a continuation probably repeats; the reader of a stream may say so anew while it reads.

    It changes speed, never text: an engine that can verifies the old wording many tokens at once, others ignore it.
    """

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.changes = 0  # how often it was said anew

    def begin(self, text: str) -> None:
        """From here on the continuation probably repeats ``text`` from its start; "" = nothing in particular."""
        self.text = text
        self.changes += 1


@dataclass(frozen=True)
class Request:
    """Continue ``prompt``, exactly as written: no template, no stripping.

    ``prompt`` never contains special tokens as text: an engine adds the beginning-of-text token where its model
    wants one, and treats everything else as plain characters, unless ``parse_special`` is set (a rendered chat
    template, made by us, in which ``<|im_start|>`` and the like are meant as tokens).
    """

    prompt: str
    params: SamplingParams = SamplingParams()
    max_tokens: int | None = None  # None = until the model stops or the context is full
    stop: Sequence[str] = ()  # the text before the first of these is delivered, the stop string itself is not
    logprobs: int | None = None  # None = none; n = the chosen token's and the n most likely tokens' per position
    parse_special: bool = False
    tokens: tuple[int, ...] | None = None  # instead of ``prompt``: these very tokens (engines of this process alone)
    prediction: Prediction | None = field(default=None, compare=False)
    cancellation: Cancellation | None = field(default=None, compare=False)  # gives the request up, from any thread
    scope: str = field(default="", compare=False)  # requests of different scopes share nothing that was read
    schema: str | None = None  # a JSON schema that the text must satisfy (engines that say ``takes_schemas``)

    def __post_init__(self) -> None:
        check_limits(self.max_tokens, self.stop)
        check_logprobs(self.logprobs)


@dataclass(frozen=True)
class TokenLogprob:
    """One generated token with its natural-log probability under the raw model distribution."""

    token: int  # -1 = the server does not tell ids
    text: str
    logprob: float
    top: Sequence[tuple[int, str, float]] = ()  # (id, text, logprob), most likely first


@dataclass(frozen=True)
class Usage:
    """What one request cost."""

    prompt_tokens: int  # tokens of the prompt
    cached_tokens: int  # of these, how many were still in the cache and cost nothing
    completion_tokens: int  # tokens generated
    prompt_seconds: float  # wall time spent reading the prompt
    completion_seconds: float  # wall time spent generating
    seed: int | None = None  # the seed in force (also where the request left it open)
    drafted_tokens: int = 0  # proposed by a drafter and verified
    accepted_tokens: int = 0  # of these, kept


@dataclass(frozen=True)
class Chunk:
    """A piece of the continuation. The last chunk, and only it, has ``finish_reason`` and ``usage``."""

    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    stop: str | None = None  # the stop string that ended the stream (None with STOP: a server did not say which)
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True)
class Message:
    """One turn of a chat: ``role`` is "system", "user" or "assistant"."""

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UsageError(f"message: role {self.role!r} is unknown; expected one of {', '.join(ROLES)}")


@dataclass(frozen=True)
class ChatRequest:
    """Ask for the assistant's next message; ``prefix`` is text the answer must begin with (may be refused)."""

    messages: Sequence[Message]
    params: SamplingParams = SamplingParams()
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    prefix: str = ""
    prediction: Prediction | None = field(default=None, compare=False)
    logprobs: int | None = None  # as in ``Request``
    cancellation: Cancellation | None = field(default=None, compare=False)  # gives the request up, from any thread
    scope: str = field(default="", compare=False)  # requests of different scopes share nothing that was read
    schema: str | None = None  # as in ``Request``

    def __post_init__(self) -> None:
        check_limits(self.max_tokens, self.stop)
        check_logprobs(self.logprobs)
        if not self.messages:
            raise UsageError("chat: no messages; expected at least one; add a message with role user")


@runtime_checkable
class Engine(Protocol):
    """Continues text."""

    name: str
    context_length: int | None  # tokens that fit; None = unknown (a remote server)

    def stream(self, request: Request) -> Iterator[Chunk]:
        """Yield the continuation piece by piece; closing the iterator cancels.

        Raises ContextOverflowError if the prompt alone does not fit, EngineError if the engine fails.
        """
        ...


@runtime_checkable
class ChatEngine(Protocol):
    """Answers a chat through the model's own template."""

    name: str
    context_length: int | None

    def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
        """Yield the assistant's next message piece by piece; closing the iterator cancels."""
        ...


@runtime_checkable
class ScoringEngine(Protocol):
    """Says how likely given continuations are (an optional ability of an engine)."""

    def score(self, prompt: str, choices: Sequence[str], *, parse_special: bool = False) -> Sequence[float]:
        """Natural-log probability of each choice following ``prompt``, summed over its tokens."""
        ...


@runtime_checkable
class CountingEngine(Protocol):
    """Counts tokens as its model would (an optional ability of an engine)."""

    def count_tokens(self, text: str, *, parse_special: bool = False) -> int:
        """Number of tokens of ``text``, without a beginning-of-text token."""
        ...


@runtime_checkable
class ProbingEngine(Protocol):
    """Finds out by asking whether it can score: a server says so only when tried."""

    def probe_scoring(self) -> ScoringEngine | None:
        """A scorer that works, or None; asks at most once and remembers the answer."""
        ...


@runtime_checkable
class TemplatedEngine(Protocol):
    """Writes chats in a form that can be chosen (an optional ability of an engine)."""

    @property
    def template(self) -> str:
        """What the form is called; "" where the model brings none and none was chosen."""
        ...

    def use_template(self, name: str) -> None:
        """Write chats as ``name`` says from now on. Raises UsageError for a form that cannot be."""
        ...


def chat_of(engine: object) -> ChatEngine | None:
    """The engine as a ChatEngine if its *model* can chat, else None.

    An engine class may have ``stream_chat`` although the model it was given has no template; it then says so by an
    attribute ``supports_chat``. Ask here instead of ``isinstance``.
    """
    if isinstance(engine, ChatEngine) and getattr(engine, "supports_chat", True):
        return engine
    return None


def scoring_of(engine: object) -> ScoringEngine | None:
    """Something that scores as the engine would, else None. Ask here instead of ``isinstance``.

    A remote server is probed with one short request the first time (see ``ProbingEngine``); an engine whose ability
    depends on how it was made says so by an attribute ``supports_scoring``.
    """
    if isinstance(engine, ProbingEngine):
        return engine.probe_scoring()
    if isinstance(engine, ScoringEngine) and getattr(engine, "supports_scoring", True):
        return engine
    return None
