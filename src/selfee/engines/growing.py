"""One request's text as it grows token by token, and why it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfee.engines.base import ChatRequest, Chunk, FinishReason, Request, TokenLogprob, Usage
from selfee.engines.stops import LogprobQueue, StopFilter

if TYPE_CHECKING:
    from selfee.engines.local import Generated, Runtime


@dataclass
class GrowingText:
    """One request's text as it grows token by token, and why it ended."""

    runtime: Runtime
    request: Request | ChatRequest
    wanted: int | None  # log-probabilities per token
    limit: int  # tokens that may be generated
    ends: tuple[str, ...] = ()  # texts that mean the same as an end token
    count: int = 0
    ending: FinishReason | None = None
    queue: LogprobQueue = field(default_factory=LogprobQueue)
    _rest: str = ""

    def __post_init__(self) -> None:
        self._decoder = self.runtime.decoder()
        self._filter = StopFilter((*self.request.stop, *self.ends))
        if self.limit == 0:
            self.ending = self._limit_reason()

    def take(self, step: Generated) -> Chunk:
        """The text that this token makes certain; sets ``ending`` if it was the last."""
        self.count += 1
        if step.token in self.runtime.end_tokens:
            self.ending = FinishReason.END
            return Chunk("")
        if self.wanted is not None:
            self.queue.add(self._filter.received, self._logprob(step, self.wanted))
        safe = self._filter.feed(self._decoder.feed(step.token))
        if self._filter.matched is not None:
            self.ending = self._stop_reason()
        elif self.count == self.limit:
            self.ending = self._limit_reason()
        if self.ending is not None:
            self._rest = safe
            return Chunk("")
        return Chunk(safe, logprobs=self.queue.take(self._filter.emitted))

    def end(self, usage: Usage) -> Chunk:
        """The last chunk: everything withheld."""
        text = self._rest
        if self._filter.matched is None:
            text += self._filter.feed(self._decoder.finish())  # a character cut off by a limit
        text += self._filter.finish()
        if self._filter.matched is not None:
            self.ending = self._stop_reason()
        past_end = 1 if self._filter.matched is None else 0  # tokens without text belong to the text
        told = self.queue.take(self._filter.emitted + past_end)
        stop = self._filter.matched if self.ending is FinishReason.STOP else None
        return Chunk(text, self.ending, usage, stop, told)

    def _stop_reason(self) -> FinishReason:
        asked = self._filter.matched in self.request.stop
        return FinishReason.STOP if asked else FinishReason.END

    def _limit_reason(self) -> FinishReason:
        asked = self.request.max_tokens
        return FinishReason.LENGTH if asked is not None and asked <= self.limit else FinishReason.CONTEXT

    def _logprob(self, step: Generated, wanted: int) -> TokenLogprob:
        logprobs = log_softmax(step.logits)
        best = np.lexsort((np.arange(logprobs.size), -logprobs))[:wanted] if wanted else ()
        top = tuple((int(token), self.runtime.piece(int(token)), float(logprobs[token])) for token in best)
        return TokenLogprob(step.token, self.runtime.piece(step.token), float(logprobs[step.token]), top)


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Natural-log probabilities of raw logits [vocabulary], in double precision.

    The only one of this room: ``math.log`` and ``np.log`` differ in the last place for one number in some thousand, and
    a score must have the same bits whoever asks for it.
    """
    shifted = logits.astype(np.float64) - float(logits.max())
    total = float(np.exp(shifted).sum())
    return shifted - math.log(total)
