"""Prompt in, tokens out: evaluate, propose, verify, sample, cut back - as an iterator of tokens."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from selfee.errors import UsageError

Logits = npt.NDArray[np.float32]


class Session(Protocol):
    """What generation needs of a session: ``selfee.llama.model.Session`` or the slow twin."""

    @property
    def length(self) -> int: ...

    def truncate(self, length: int) -> None: ...

    def forward(self, tokens: Sequence[int], logits_for: Literal["last", "all"] = "last") -> Logits: ...


class Sampler(Protocol):
    """What generation needs of a sampler: ``selfee.llama.sampling.Sampler`` or the slow twin."""

    def begin(self, tokens: Sequence[int]) -> None: ...

    def sample(self, logits: Logits) -> int: ...


class Drafter(Protocol):
    """Guesses what comes next. May change speed, never output."""

    def propose(self, tokens: Sequence[int], limit: int) -> Sequence[int]:
        """At most ``limit`` tokens that may follow ``tokens`` (the whole text so far)."""
        ...


@dataclass(frozen=True)
class Token:
    """A sampled token and the raw logits [vocabulary] it was drawn from."""

    id: int
    logits: Logits
    drafted: bool = False  # a drafter had proposed it


def generate(
    session: Session,
    tokens: Sequence[int],
    sampler: Sampler,
    drafter: Drafter | None = None,
    max_tokens: int = 512,
) -> Generator[Token, None, None]:
    """Continue ``tokens`` by up to ``max_tokens``; whether a token ends the text is the caller's to see.

    ``session`` holds a beginning of ``tokens``, possibly empty; what it lacks, and at least the last token, is
    evaluated first. Afterwards, also when closed early, it holds a beginning of ``tokens`` followed by the tokens
    yielded. Tokens and logits are the same bits with any drafter or none. Raises ContextOverflowError where prompt and
    answer do not fit: ``max_tokens`` should be at most the room after the prompt.
    """
    if not tokens:
        raise UsageError("generate: no tokens to continue; expected at least one; begin with the model's first token")
    text = list(tokens)
    end = len(text) + max_tokens
    sampler.begin(text)
    # The last token is evaluated again where the session has it: its logits are needed and were not kept.
    session.truncate(min(session.length, len(text) - 1))
    try:
        while len(text) < end:
            pending = text[session.length :]
            # The last token of all is never evaluated, so it needs no draft.
            draft = [] if drafter is None else list(drafter.propose(text, end - len(text) - 1))[: end - len(text) - 1]
            if draft and len(pending) > 1:  # logits of a long prompt would fill the memory
                session.forward(pending[:-1])
                pending = pending[-1:]
            rows = session.forward(pending + draft, "all" if draft else "last")
            yield from _verified(session, rows, draft, text, sampler)
    finally:
        session.truncate(min(session.length, len(text)))


def _verified(
    session: Session, rows: Logits, draft: Sequence[int], text: list[int], sampler: Sampler
) -> Generator[Token, None, None]:
    """Sample from each row as long as the draft before it was right; ``text`` grows by what is yielded."""
    for row, guess in zip(rows, [*draft, None], strict=True):
        token = sampler.sample(row)
        text.append(token)
        if token != guess and session.length >= len(text):  # it holds wrong guesses, and this may be the last step
            session.truncate(len(text) - 1)
        yield Token(token, row, token == guess)
        if token != guess:
            return
