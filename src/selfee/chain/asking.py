"""Requests of a chain: seeds derived from one seed, limits that the context window allows, text without its margins."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from selfee.chain.allowance import Allowance, Purse
from selfee.engines.base import Chunk, CountingEngine, FinishReason, SamplingParams, Usage
from selfee.errors import ContextOverflowError, EngineError

_SMALLEST_LIMIT = 32
_LONG_PIECE = 16  # characters; a longer piece may hold several tokens
_CHARACTERS_PER_TOKEN = 4

Opener = Callable[[SamplingParams, int], Iterator[Chunk]]
"""Sends a request with these parameters and this token limit."""


def derive_seed(seed: int, index: int, kind: str = "") -> int:
    """The seed of a chain's request number ``index``: the chain's own for the first, then 32 bits of a hash.

    ``kind`` keeps the seeds of other things apart from those of requests.
    """
    if index == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}/{kind}{index}".encode(), digest_size=4).digest(), "big")


class Asked:
    """One request under way: an iterator of its chunks; ``ending`` says why it ended once it has.

    ``lowered`` says that the context window allowed fewer tokens than were asked for, ``rationed`` that the chain's
    allowance did.
    """

    def __init__(
        self, chunks: Iterator[Chunk], seed: int, limit: int, *, lowered: bool = False, rationed: bool = False
    ) -> None:
        self.seed = seed
        self.limit = limit
        self.lowered = lowered
        self.rationed = rationed
        self.usage: Usage | None = None
        self.ending: FinishReason | None = None
        self.logprobs: list[float] = []  # of the tokens that came, where the engine was asked for them
        self._chunks = chunks
        self._first = next(chunks, None)

    def __iter__(self) -> Iterator[Chunk]:
        chunk = self._first
        while chunk is not None:
            self.logprobs += (token.logprob for token in chunk.logprobs)
            if chunk.finish_reason is not None:
                self.usage = chunk.usage
                self.ending = chunk.finish_reason
            yield chunk
            chunk = next(self._chunks, None) if self.ending is None else None
        if self.ending is None:
            raise EngineError("engine: a stream ended without a finish reason; the text is incomplete", retryable=True)

    def close(self) -> None:
        """Cancel the request if it is still under way."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


class Asker:
    """Sends one chain's requests to an engine. ``asked`` requests were made before: those to come have other seeds."""

    def __init__(
        self, engine: object, params: SamplingParams, seed: int, purse: Purse | None = None, asked: int = 0
    ) -> None:
        self.params = params
        self.seed = seed
        self._purse = purse or Purse(Allowance())
        self._counter = engine if isinstance(engine, CountingEngine) else None
        self._context_length: int | None = getattr(engine, "context_length", None)
        self._asked = asked

    @property
    def knows_context(self) -> bool:
        """Whether the context window's length is known and can be counted in."""
        return self._counter is not None and self._context_length is not None

    def ask(self, open_stream: Opener, limit: int, prompt: str) -> Asked:
        """Send a request for at most ``limit`` tokens, or as many as context window and allowance leave.

        A server that refuses prompt and limit together is asked again for less. Raises ContextOverflowError if the
        prompt does not fit.
        """
        seed = derive_seed(self.seed, self._asked)
        self._asked += 1
        left = self._purse.tokens_left
        rationed = left is not None and left < limit
        if rationed and left is not None:
            limit = max(1, left)
        room = self.room(prompt)
        lowered = room is not None and room < limit
        if lowered and room is not None:
            limit = max(1, room)
        while True:
            try:
                chunks = iter(open_stream(replace(self.params, seed=seed), limit))
                return Asked(chunks, seed, limit, lowered=lowered, rationed=rationed and not lowered)
            except ContextOverflowError:
                if room is not None or limit <= _SMALLEST_LIMIT:
                    raise
                limit, lowered = max(_SMALLEST_LIMIT, limit // 4), True

    def room(self, prompt: str) -> int | None:
        """Tokens that the context window leaves after ``prompt`` (and its first, unseen token); None if unknown."""
        if self._counter is None or self._context_length is None:
            return None
        return self._context_length - self._counter.count_tokens(prompt) - 1

    def count(self, piece: str) -> int:
        """Tokens of a piece as it came: a short one is one token."""
        if len(piece) <= _LONG_PIECE:
            return 1
        if self._counter is not None:
            return max(1, self._counter.count_tokens(piece))
        return max(1, len(piece) // _CHARACTERS_PER_TOKEN)

    def recount(self, text: str, counted: int) -> int:
        """Tokens of a whole text whose pieces gave ``counted``: pieces may be less than tokens."""
        return counted if self._counter is None else self._counter.count_tokens(text)


class Trimmer:
    """Takes white space off both ends of a text that comes in pieces; every other character passes at once."""

    def __init__(self, *, start: bool = True, end: bool = True) -> None:
        self._at_start = start
        self._end = end
        self._space = ""

    def feed(self, text: str) -> str:
        """What is certain of the text so far."""
        if self._at_start:
            text = text.lstrip()
            self._at_start = not text
        if not self._end:
            return text
        kept = text.rstrip()
        if not kept:
            self._space += text
            return ""
        text, self._space = self._space + kept, text[len(kept) :]
        return text


class Stopwatch:
    """Seconds since it was made or last read."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.monotonic()
        seconds, self._started = now - self._started, now
        return seconds
