"""A model in this process: keeps what it has read, so that asking again with an edited text costs only the edit.

Every request is encoded anew from its text, so its answer is a pure function of the request and its seed, whatever was
asked before.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from selfee.engines.base import (
    ChatRequest,
    Chunk,
    FinishReason,
    Message,
    Prediction,
    Request,
    SamplingParams,
    Usage,
)
from selfee.engines.cancelling import Cancellation
from selfee.engines.growing import GrowingText, log_softmax
from selfee.engines.scoring import Logits, ScoredSequence, ScoringRequest, TokenScorer
from selfee.engines.session_files import restore_into, save_latest, session_files_of
from selfee.engines.sessions import HeldSession, Session, SessionPool, count_shared
from selfee.errors import ContextOverflowError, UsageError


class Decoder(Protocol):
    """Turns tokens into text and never cuts a character."""

    def feed(self, token: int) -> str: ...

    def finish(self) -> str: ...


@dataclass(frozen=True)
class Generated:
    """A sampled token and the raw logits [vocabulary] it was drawn from."""

    token: int
    logits: npt.NDArray[np.float32]
    drafted: bool = False  # a guess had said so
    verified: int = 0  # guesses verified in the pass it came from, told once a pass


class Runtime(Protocol):
    """What LocalEngine needs of a model and its tokenizer."""

    name: str
    context_length: int  # tokens a session can hold
    vocab_size: int
    end_tokens: Collection[int]  # end of text, end of turn
    num_parameters: int  # weights of the model
    trained_on_chains: bool  # whether the file says that its model was trained to criticise and revise

    @property
    def supports_chat(self) -> bool:
        """Whether there is a chat template."""
        ...

    @property
    def template(self) -> str:
        """What the chat template is called; "" where there is none."""
        ...

    @property
    def chat_stops(self) -> Sequence[str]:
        """Texts that end a message where no end token does."""
        ...

    def use_template(self, name: str) -> None:
        """Write chats as ``name`` says from now on: "own" is the file's. Raises UsageError where that cannot be."""
        ...

    def encode(self, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
        """Tokens of a text; ``add_bos`` asks for the beginning-of-text token if the model wants one."""
        ...

    def encode_chat(self, messages: Sequence[Message], prefix: str) -> list[int]:
        """Tokens of a rendered chat up to where the assistant continues; contents are never read as special tokens."""
        ...

    def piece(self, token: int) -> str:
        """One token as text, for display."""
        ...

    def decoder(self) -> Decoder: ...

    def new_session(self) -> Session: ...

    def generate(
        self,
        session: Session,
        tokens: Sequence[int],
        params: SamplingParams,
        seed: int,
        max_tokens: int,
        prediction: Prediction | None,
        cancellation: Cancellation | None = None,
        schema: str | None = None,
    ) -> Generator[Generated, None, None]:
        """Evaluate what ``session`` lacks of ``tokens`` (at least the last), then sample up to ``max_tokens``.

        Also when closed early, the session afterwards holds a beginning of ``tokens`` followed by the tokens yielded.
        Whether a token is an end token is the caller's to see. ``prediction`` changes speed, never tokens. Several
        threads may generate at the same time, each with a session of its own. Ends soon after ``cancellation`` is set,
        also while the prompt is read. With a JSON ``schema`` no token leaves it; raises UsageError for one that cannot
        be enforced.
        """
        ...

    def quiet(self) -> AbstractContextManager[None]:
        """A context in which no session computes, so that one may be copied."""
        ...

    def forward_many(self, parts: Sequence[tuple[Session, Sequence[int], int]]) -> list[Logits]:
        """Evaluate tokens in several sessions in one pass; see ``selfee.engines.scoring.ScoringRuntime``."""
        ...

    def close(self) -> None: ...


class LocalEngine:
    """Implements Engine, ChatEngine, ScoringEngine, TokenScoringEngine and CountingEngine over a Runtime.

    ``parallel`` requests at a time, each from a thread of its own; they go through the model together, and each gets
    the text it would get alone. Others wait until a stream has ended or is closed. ``reuse=False`` forgets the cache
    before each request (the same texts, slower: it defines what reuse must give). A step that completes no text yields
    an empty chunk, so that a stream can be closed after every token.
    """

    takes_schemas = True

    def __init__(self, runtime: Runtime, *, reuse: bool = True, parallel: int = 1) -> None:
        self.name = runtime.name
        self.context_length: int | None = runtime.context_length
        self._runtime = runtime
        self._reuse = reuse
        self.parallel = parallel
        self._sessions: SessionPool[Session] = SessionPool(
            runtime.new_session, parallel, parallel * runtime.context_length, runtime.quiet
        )
        self._scorer = TokenScorer(runtime, self._sessions, parallel=parallel, reuse=reuse)

    @property
    def supports_chat(self) -> bool:
        """Whether there is a chat template."""
        return self._runtime.supports_chat

    @property
    def template(self) -> str:
        """What the chat template is called; "" where there is none."""
        return self._runtime.template

    def use_template(self, name: str) -> None:
        """Write chats in another form from now on: "alpaca", "chatml" or "own" (the file's). Raises UsageError."""
        self._runtime.use_template(name)

    @property
    def num_parameters(self) -> int:
        """Weights of the model: small models need other words."""
        return self._runtime.num_parameters

    @property
    def trained_on_chains(self) -> bool:
        """Whether the model writes answer, feedback and revision by itself."""
        return self._runtime.trained_on_chains

    @property
    def end_text(self) -> str:
        """What a token that ends a text looks like."""
        return self._runtime.piece(min(self._runtime.end_tokens)) if self._runtime.end_tokens else ""

    def stream(self, request: Request) -> Iterator[Chunk]:
        """See ``Engine.stream``. Raises ContextOverflowError or UsageError here, before anything is computed."""
        if request.tokens is not None:
            return self._start(self._known(request.tokens), request, request.logprobs)
        tokens = self._runtime.encode(request.prompt, add_bos=True, parse_special=request.parse_special)
        return self._start(tokens, request, request.logprobs)

    def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
        """See ``ChatEngine.stream_chat``; the prefix is not repeated. Raises UsageError without a template."""
        if not self.supports_chat:
            raise UsageError(
                f"{self.name}: the file has no chat template; expected one for a chat; use the guided mode, which "
                "needs none, or a chat model"
            )
        tokens = self._runtime.encode_chat(request.messages, request.prefix)
        return self._start(tokens, request, request.logprobs, tuple(self._runtime.chat_stops))

    def count_tokens(self, text: str, *, parse_special: bool = False) -> int:
        """See ``CountingEngine``."""
        return len(self._runtime.encode(text, add_bos=False, parse_special=parse_special))

    def tokenize(self, text: str, *, add_special: bool = True) -> list[tuple[int, str]]:
        """Tokens of a text with what each says; ``add_special``: with the beginning-of-text token, as a prompt has."""
        tokens = self._runtime.encode(text, add_bos=add_special, parse_special=False)
        return [(token, self._runtime.piece(token)) for token in tokens]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens that begin a text. Raises UsageError for one that does not exist."""
        decoder = self._runtime.decoder()
        return "".join([decoder.feed(token) for token in self._known(tokens)]) + decoder.finish()

    def score(self, prompt: str, choices: Sequence[str], *, parse_special: bool = False) -> Sequence[float]:
        """See ``ScoringEngine``.

        A choice's tokens are those of prompt + choice after what they share with the tokens of the prompt alone: where
        a token spans the border, it counts whole. Raises ContextOverflowError, or UsageError where nothing precedes
        the choice.
        """
        alone = self._runtime.encode(prompt, add_bos=True, parse_special=parse_special)
        whole = [
            self._runtime.encode(prompt + choice, add_bos=True, parse_special=parse_special) if choice else alone
            for choice in choices
        ]
        for tokens in whole:
            self._check_room(len(tokens), "prompt and choice have", self._runtime.context_length)
        with self._sessions.borrow(alone, copied=False) as held:  # scoring waits for no pause
            return [self._score(held, alone, tokens) for tokens in whole]

    def encode_text(self, text: str, *, parse_special: bool = False) -> list[int]:
        """See ``TokenScoringEngine``."""
        return self._runtime.encode(text, add_bos=True, parse_special=parse_special)

    def score_tokens(self, requests: Sequence[ScoringRequest]) -> list[ScoredSequence]:
        """See ``TokenScoringEngine``: exact, what sequences share is read once."""
        return self._scorer.score(requests)

    def save_session(self, path: str | Path, *, remembered: Path | None = None) -> int:
        """Save what was read last; returns its tokens, 0 if nothing was, and then nothing is written.

        ``remembered`` is a file in which fingerprints of models are kept, so that a model is hashed once only. Raises
        ResourceError where the file cannot be written; an older one is then still there.
        """
        return save_latest(self._sessions, session_files_of(self._runtime, self.name), Path(path), remembered)

    def restore_session(self, path: str | Path, *, remembered: Path | None = None) -> int:
        """Go on from a saved session: requests that begin with its tokens need not read them. Returns their number.

        Raises BadFileError (damaged), UnsupportedFileError (another model's, another version) or ContextOverflowError;
        what was kept before is then still kept.
        """
        return restore_into(self._sessions, session_files_of(self._runtime, self.name), Path(path), remembered)

    def close(self) -> None:
        """Give the model's memory back; streams must have ended."""
        self._runtime.close()

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _score(self, held: HeldSession[Session], alone: Sequence[int], tokens: Sequence[int]) -> float:
        start = count_shared(alone, tokens)
        if start == len(tokens):
            return 0.0
        if start == 0:
            raise UsageError(f"{self.name}: nothing precedes the text to score; expected a prompt; give one")
        cached = held.align(tokens, start - 1 if self._reuse else 0)
        if cached < start - 1:  # apart, because the logits of a long prompt would fill the memory
            held.session.forward(tokens[cached : start - 1])
        logits = held.session.forward(tokens[start - 1 : -1], logits_for="all")
        return float(sum(log_softmax(row)[token] for row, token in zip(logits, tokens[start:], strict=True)))

    def _known(self, tokens: Sequence[int]) -> list[int]:
        for token in tokens:
            if not 0 <= token < self._runtime.vocab_size:
                raise UsageError(
                    f"tokens: {token} does not exist; {self.name} has 0 to {self._runtime.vocab_size - 1}; leave it out"
                )
        return list(tokens)

    def _check_room(self, count: int, found: str, allowed: int) -> None:
        if count > allowed:
            raise ContextOverflowError(
                f"{self.name}: {found} {count} tokens; the context window of {self._runtime.context_length} allows "
                f"{allowed}; shorten the text or open the model with a larger context_length"
            )

    def _start(
        self, tokens: list[int], request: Request | ChatRequest, logprobs: int | None, ends: tuple[str, ...] = ()
    ) -> Iterator[Chunk]:
        for token in request.params.logit_bias:
            if not 0 <= token < self._runtime.vocab_size:
                raise UsageError(
                    f"logit_bias: token {token} does not exist; {self.name} has 0 to {self._runtime.vocab_size - 1}"
                )
        if not tokens:
            raise UsageError(f"{self.name}: the prompt has no tokens; expected at least one; write something")
        self._check_room(len(tokens), "the prompt has", self._runtime.context_length - 1)
        return self._stream(tokens, request, logprobs, ends)

    def _stream(
        self, tokens: list[int], request: Request | ChatRequest, logprobs: int | None, ends: tuple[str, ...]
    ) -> Iterator[Chunk]:
        room = self._runtime.context_length - len(tokens)
        limit = room if request.max_tokens is None else min(room, request.max_tokens)
        text = GrowingText(self._runtime, request, logprobs, limit, ends)
        params = request.params
        seed = random.getrandbits(32) if params.seed is None else params.seed
        with self._sessions.borrow(tokens if self._reuse else (), scope=request.scope) as held:
            started = time.monotonic()
            cached = held.align(tokens, len(tokens) - 1 if self._reuse else 0) if limit else 0
            first = started
            drafted = accepted = 0
            more = (request.prediction, request.cancellation, request.schema)
            generate = self._runtime.generate
            steps = generate(held.session, tokens, params, seed, limit, *more) if limit else _nothing()
            try:
                for step in steps:
                    held.tokens.append(step.token)
                    drafted += step.verified
                    accepted += step.drafted
                    if text.count == 0:
                        first = time.monotonic()
                    chunk = text.take(step)
                    if text.ending is not None:
                        break
                    yield chunk
                else:
                    text.ending = text.ending or FinishReason.CANCELLED  # nothing else ends it before its limit
            finally:
                steps.close()
            ended = time.monotonic()
        usage = Usage(len(tokens), cached, text.count, first - started, ended - first, seed, drafted, accepted)
        yield text.end(usage)


def _nothing() -> Generator[Generated, None, None]:
    yield from ()
