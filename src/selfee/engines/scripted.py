"""An engine that says what it was told to say, word by word, and remembers what it was asked.

For tests and demonstrations without a model: it cuts its replies into pieces as told, waits, fails where it should,
and honours stop strings, token limits and cancellation as a real engine does. Its tokens are words with the white
space before them.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from selfee.engines.base import ChatRequest, Chunk, FinishReason, Request, TokenLogprob, Usage
from selfee.engines.stops import LogprobQueue, StopFilter
from selfee.errors import BadFileError, ContextOverflowError, EngineError, UsageError
from selfee.jsonl import read_jsonl

_WORD = re.compile(r"\s*\S+|\s+\Z")
_PROMPT_SHOWN = 60  # characters of a prompt's end that an error message quotes


def split_tokens(text: str) -> list[str]:
    """The scripted engine's tokens: words with the white space before them; joined they give the text again."""
    return _WORD.findall(text)


@dataclass(frozen=True)
class Reply:
    """One continuation and how it is delivered."""

    text: str
    chunks: int | Sequence[str] | None = None  # None = token by token; n = n characters each; or the pieces themselves
    delay: float = 0.0  # seconds before each piece
    error: str | None = None  # raise EngineError with this message ...
    error_after: int = 0  # ... once this many pieces were delivered
    retryable: bool = False  # whether that error says a retry may help
    finish_reason: FinishReason = FinishReason.END  # how it ends, unless a stop string or a limit ends it earlier
    logprob: float = -1.0  # what each token's log-probability is said to be

    def __post_init__(self) -> None:
        if isinstance(self.chunks, int):
            if self.chunks < 1:
                raise UsageError(f"reply: chunks of {self.chunks} characters; expected 1 or more")
        elif self.chunks is not None and "".join(self.chunks) != self.text:
            raise UsageError(f"reply: the chunks {list(self.chunks)!r} do not join to the text {self.text!r}")
        if self.delay < 0 or self.error_after < 0:
            raise UsageError(f"reply: delay {self.delay}, error_after {self.error_after}; expected 0 or more")

    def pieces(self, text: str) -> list[str]:
        """``text``, a beginning of this reply's text, cut as told."""
        if self.chunks is None:
            return split_tokens(text)
        if isinstance(self.chunks, int):
            return [text[start : start + self.chunks] for start in range(0, len(text), self.chunks)]
        pieces = []
        for piece in self.chunks:
            pieces.append(text[: len(piece)])
            text = text[len(piece) :]
        return pieces


@dataclass(frozen=True)
class Rule:
    """Give ``reply`` to every prompt that fits: it contains, ends with, or matches (``re.search``) what is given."""

    reply: Reply | str
    contains: str | None = None
    ends_with: str | None = None
    pattern: str | None = None

    def fits(self, prompt: str) -> bool:
        """Whether every condition given holds (a rule without conditions fits every prompt)."""
        return (
            (self.contains is None or self.contains in prompt)
            and (self.ends_with is None or prompt.endswith(self.ends_with))
            and (self.pattern is None or re.search(self.pattern, prompt) is not None)
        )


Scores = Mapping[str, float] | Callable[[str, Sequence[str]], Sequence[float]]


class ScriptedEngine:
    """Implements Engine, ChatEngine, CountingEngine and, if told ``scores``, ScoringEngine.

    A request is answered by the first rule that fits its prompt, else by the next reply in order; a chat's prompt is
    its messages as ``role: content`` lines, then the prefix. No reply left is an EngineError that names the request;
    leaving the ``with`` block with replies unused is a UsageError (``strict=False`` allows it). Rules may stay unused.

    ``requests`` and ``scored`` hold everything asked, in order; ``cancelled`` counts streams closed early.
    ``scores`` maps a choice to its log-probability, or is called with (prompt, choices).
    """

    def __init__(
        self,
        replies: Sequence[Reply | str] = (),
        *,
        rules: Sequence[Rule] = (),
        scores: Scores | None = None,
        name: str = "script",
        context_length: int | None = None,
        strict: bool = True,
    ) -> None:
        if isinstance(replies, str):
            raise UsageError(f"script: replies is one string {replies!r}; expected a sequence; write [{replies!r}]")
        self.name = name
        self.context_length = context_length
        self.requests: list[Request | ChatRequest] = []
        self.scored: list[tuple[str, tuple[str, ...]]] = []
        self.cancelled = 0
        self._replies = tuple(replies)
        self._used = 0
        self._rules = tuple(rules)
        self._scores = scores
        self._strict = strict
        self._lock = threading.Lock()

    @classmethod
    def from_file(cls, path: str | Path) -> ScriptedEngine:
        """Read a script: JSON lines, each a reply, a rule (``when``), a table of ``scores``, or ``engine`` settings.

        ``{"text": "Hello.", "chunks": 2}`` is a reply, ``{"when": {"ends_with": "Feedback:"}, "text": "Good."}`` a
        rule, ``{"scores": {" not": -0.1}}`` adds scores, ``{"engine": {"strict": false}}`` sets name, context_length,
        strict. Fields of a reply are those of ``Reply``. Raises BadFileError naming file, line and field.
        """
        return _read_script(cls, Path(path))

    @property
    def supports_scoring(self) -> bool:
        """Whether the script has scores."""
        return self._scores is not None

    @property
    def unused(self) -> tuple[str, ...]:
        """Texts of the replies not asked for yet."""
        return tuple(reply if isinstance(reply, str) else reply.text for reply in self._replies[self._used :])

    def stream(self, request: Request) -> Iterator[Chunk]:
        """Yield the scripted reply; see ``Engine.stream``."""
        reply = self._take(request, request.prompt)
        return self._deliver(reply, request.prompt, request)

    def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
        """Yield the scripted reply; see ``ChatEngine.stream_chat``. The prefix is not repeated."""
        prompt = "\n".join(f"{message.role}: {message.content}" for message in request.messages)
        prompt = f"{prompt}\n{request.prefix}" if request.prefix else prompt
        reply = self._take(request, prompt)
        return self._deliver(reply, prompt, request)

    def score(self, prompt: str, choices: Sequence[str], *, parse_special: bool = False) -> Sequence[float]:
        """The scripted log-probabilities. Raises EngineError for a choice without one."""
        self.scored.append((prompt, tuple(choices)))
        if self._scores is None:
            raise EngineError(f"{self.name}: asked to score {list(choices)!r}; the script has no scores; add them")
        if callable(self._scores):
            return list(self._scores(prompt, choices))
        for choice in choices:
            if choice not in self._scores:
                raise EngineError(f"{self.name}: no score for {choice!r}; the script has {list(self._scores)!r}")
        return [self._scores[choice] for choice in choices]

    def count_tokens(self, text: str, *, parse_special: bool = False) -> int:
        """Number of words (see ``split_tokens``)."""
        return len(split_tokens(text))

    def check_finished(self) -> None:
        """Raise UsageError if a reply was never asked for."""
        if self.unused:
            raise UsageError(
                f"{self.name}: {len(self.unused)} of {len(self._replies)} replies were never asked for, the first is "
                f"{self.unused[0][:_PROMPT_SHOWN]!r}; expected all to be used; remove them or set strict to false"
            )

    def close(self) -> None:
        """Nothing to release; unused replies are reported by ``check_finished`` or the ``with`` block."""

    def __enter__(self) -> ScriptedEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._strict:
            self.check_finished()

    def _take(self, request: Request | ChatRequest, prompt: str) -> Reply:
        with self._lock:
            self.requests.append(request)
            for rule in self._rules:
                if rule.fits(prompt):
                    return _as_reply(rule.reply)
            if self._used < len(self._replies):
                self._used += 1
                return _as_reply(self._replies[self._used - 1])
            number = len(self.requests)
        raise EngineError(
            f"{self.name}: request {number} has no reply: no rule fits and all {len(self._replies)} replies are used; "
            f"its prompt ends with {prompt[-_PROMPT_SHOWN:]!r}; add a reply or a rule"
        )

    def _deliver(self, reply: Reply, prompt: str, request: Request | ChatRequest) -> Iterator[Chunk]:
        started = time.monotonic()
        prompt_tokens = len(split_tokens(prompt))
        text, end = self._cut(reply, prompt_tokens, request.max_tokens)
        filter_ = StopFilter(request.stop)
        logprobs = LogprobQueue()
        wants_logprobs = request.logprobs is not None
        completion = ""
        try:
            for number, piece in enumerate(reply.pieces(text)):
                _fail_if_told(self.name, reply, number)
                if reply.delay:
                    time.sleep(reply.delay)
                if wants_logprobs:
                    logprobs.add(filter_.received, TokenLogprob(token=-1, text=piece, logprob=reply.logprob))
                completion += piece
                if safe := filter_.feed(piece):
                    yield Chunk(safe, logprobs=logprobs.take(filter_.emitted))
                if filter_.matched is not None:
                    end = FinishReason.STOP
                    break
            else:
                _fail_if_told(self.name, reply, reply.error_after)
        except GeneratorExit:
            self.cancelled += 1
            raise
        rest = filter_.finish()
        seconds = time.monotonic() - started
        usage = Usage(prompt_tokens, 0, len(split_tokens(completion)), 0.0, seconds, request.params.seed)
        yield Chunk(rest, end, usage, filter_.matched, logprobs.take(filter_.emitted))

    def _cut(self, reply: Reply, prompt_tokens: int, max_tokens: int | None) -> tuple[str, FinishReason]:
        """The reply's text within the limits, and why it ends there."""
        tokens = split_tokens(reply.text)
        room = len(tokens) if self.context_length is None else self.context_length - prompt_tokens
        if room < 0:
            raise ContextOverflowError(
                f"{self.name}: the prompt has {prompt_tokens} tokens; the context window holds {self.context_length}; "
                "shorten the prompt"
            )
        limit, end = (room, FinishReason.CONTEXT)
        if max_tokens is not None and max_tokens <= room:
            limit, end = (max_tokens, FinishReason.LENGTH)
        if len(tokens) <= limit:
            return reply.text, reply.finish_reason
        return "".join(tokens[:limit]), end


def _as_reply(reply: Reply | str) -> Reply:
    return Reply(reply) if isinstance(reply, str) else reply


def _fail_if_told(name: str, reply: Reply, delivered: int) -> None:
    if reply.error is not None and delivered >= reply.error_after:
        raise EngineError(f"{name}: {reply.error}", retryable=reply.retryable)


_KINDS: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "chunks": (int, list),
    "delay": (int, float),
    "error": (str,),
    "error_after": (int,),
    "retryable": (bool,),
    "finish_reason": (str,),
    "logprob": (int, float),
    "contains": (str,),
    "ends_with": (str,),
    "pattern": (str,),
    "name": (str,),
    "context_length": (int,),
    "strict": (bool,),
}
_REPLY = ("text", "chunks", "delay", "error", "error_after", "retryable", "finish_reason", "logprob")
_RULE = ("contains", "ends_with", "pattern")
_ENGINE = ("name", "context_length", "strict")


def _read_script(engine: type[ScriptedEngine], path: Path) -> ScriptedEngine:
    replies: list[Reply] = []
    rules: list[Rule] = []
    scores: dict[str, float] = {}
    settings: dict[str, Any] = {}
    for number, row in read_jsonl(path):
        where = f"{path}:{number}"
        if "engine" in row:
            settings |= _fields(_only(row, "engine", where), _ENGINE, f"{where}: engine")
        elif "scores" in row:
            scores |= _read_scores(_only(row, "scores", where), f"{where}: scores")
        elif "when" in row:
            when = _fields(row.pop("when"), _RULE, f"{where}: when")
            rules.append(_read_rule(when, _read_reply(row, where), where))
        else:
            replies.append(_read_reply(row, where))
    if not replies and not rules:
        raise BadFileError(f'{path}: no replies; expected lines like {{"text": "Hello."}}; add one')
    return engine(replies, rules=rules, scores=scores or None, **{"name": f"script:{path}"} | settings)


def _only(row: dict[str, Any], name: str, where: str) -> Any:
    if others := [key for key in row if key != name]:
        raise BadFileError(f"{where}: field '{others[0]}' beside '{name}'; expected '{name}' alone on its line")
    return row[name]


def _fields(value: Any, allowed: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadFileError(f"{where}: found a {type(value).__name__}; expected an object")
    for key, field in value.items():
        if key not in allowed:
            raise BadFileError(f"{where}: unknown field '{key}'; expected one of {', '.join(allowed)}")
        kinds = _KINDS[key]
        if not isinstance(field, kinds) or (isinstance(field, bool) and bool not in kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise BadFileError(f"{where}: field '{key}' is a {type(field).__name__}; expected {expected}")
    return value


def _read_reply(row: dict[str, Any], where: str) -> Reply:
    fields = _fields(row, _REPLY, where)
    if "text" not in fields:
        raise BadFileError(f"{where}: no field 'text'; expected a reply; add it")
    if isinstance(pieces := fields.get("chunks"), list) and not all(isinstance(piece, str) for piece in pieces):
        raise BadFileError(f"{where}: field 'chunks' holds something else than strings; expected strings or a number")
    try:
        if "finish_reason" in fields:
            fields["finish_reason"] = FinishReason(fields["finish_reason"])
        return Reply(**fields)
    except (UsageError, ValueError) as error:
        raise BadFileError(f"{where}: {error}") from error


def _read_rule(when: dict[str, Any], reply: Reply, where: str) -> Rule:
    try:
        re.compile(when.get("pattern", ""))
    except re.error as error:
        raise BadFileError(f"{where}: pattern {when['pattern']!r} is not a regular expression ({error})") from error
    return Rule(reply, **when)


def _read_scores(value: Any, where: str) -> dict[str, float]:
    if not isinstance(value, dict):
        raise BadFileError(f"{where}: found a {type(value).__name__}; expected an object of choice -> log-probability")
    for choice, score in value.items():
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise BadFileError(f"{where}: {choice!r} has {score!r}; expected a number")
    return {choice: float(score) for choice, score in value.items()}
