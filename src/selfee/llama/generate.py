"""Prompt in, tokens out: evaluate, propose, verify, sample, cut back - as an iterator of tokens."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from selfee.errors import UsageError
from selfee.llama.drafting import NO_DRAFT, Draft, Drafter
from selfee.llama.pace import MOST_GUESSES

Logits = npt.NDArray[np.float32]


class Session(Protocol):
    """What generation needs of a session: ``selfee.llama.model.Session`` or the slow twin."""

    @property
    def length(self) -> int: ...

    def truncate(self, length: int) -> None: ...

    def forward(self, tokens: Sequence[int], logits_for: Literal["last", "all"] | int = "last") -> Logits: ...


class Sampler(Protocol):
    """What generation needs of a sampler: ``selfee.llama.sampling.Sampler`` or the slow twin."""

    def begin(self, tokens: Sequence[int]) -> None: ...

    def sample(self, logits: Logits) -> int: ...


class Evaluator(Protocol):
    """Puts one session's tokens through the model: alone, or together with those of others."""

    def evaluate(self, pending: Sequence[int], draft: Draft) -> Logits:
        """Evaluate ``pending`` and as many of the draft's tokens as seem worth it, after those that the session holds.

        Returns raw logits [1 + guesses evaluated, vocabulary]: those of the last pending token, then of the guesses.
        """
        ...

    def report(self, tokens: int) -> None:
        """The last call gave so many tokens of text."""
        ...


@dataclass(frozen=True)
class Token:
    """A sampled token and the raw logits [vocabulary] it was drawn from."""

    id: int
    logits: Logits
    drafted: bool = False  # a drafter had proposed it
    verified: int = 0  # guesses that were evaluated in the pass it came from, told with the pass's first token


class Alone:
    """An Evaluator that waits for nobody and verifies every guess."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def evaluate(self, pending: Sequence[int], draft: Draft) -> Logits:
        """See ``Evaluator.evaluate``."""
        return self._session.forward([*pending, *draft.tokens], len(draft.tokens) + 1)

    def report(self, tokens: int) -> None:
        """See ``Evaluator.report``."""


def generate(
    session: Session,
    tokens: Sequence[int],
    sampler: Sampler,
    drafter: Drafter | None = None,
    max_tokens: int = 512,
    evaluator: Evaluator | None = None,
) -> Generator[Token, None, None]:
    """Continue ``tokens`` by up to ``max_tokens``; whether a token ends the text is the caller's to see.

    ``session`` holds a beginning of ``tokens``, possibly empty; what it lacks, and at least the last token, is
    evaluated first. Afterwards, also when closed early, it holds a beginning of ``tokens`` followed by the tokens
    yielded. Tokens and logits are the same bits with any drafter or none, and with any ``evaluator`` (None: alone, all
    guesses verified). Raises ContextOverflowError where prompt and answer do not fit: ``max_tokens`` should be at most
    the room after the prompt.
    """
    if not tokens:
        raise UsageError("generate: no tokens to continue; expected at least one; begin with the model's first token")
    evaluator = evaluator or Alone(session)
    text = list(tokens)
    end = len(text) + max_tokens
    sampler.begin(text)
    if drafter is not None:
        drafter.begin(text)
    # The last token is evaluated again where the session has it: its logits are needed and were not kept.
    session.truncate(min(session.length, len(text) - 1))
    try:
        while len(text) < end:
            # The last token of all is never evaluated, so it needs no draft.
            room = min(MOST_GUESSES, end - len(text) - 1)
            draft = NO_DRAFT if drafter is None or room == 0 else drafter.propose(room)
            draft = Draft(draft.tokens[:room], draft.chances[:room])
            rows = evaluator.evaluate(text[session.length :], draft)
            known = len(text)
            guesses = [*draft.tokens[: len(rows) - 1], None]
            try:
                # Sample from each row as long as the guess before it was right.
                for row, guess in zip(rows, guesses, strict=True):
                    token = sampler.sample(row)
                    text.append(token)
                    if drafter is not None:
                        drafter.wrote((token,))
                    if token != guess and session.length >= len(text):  # wrong guesses, and this may be the last step
                        session.truncate(len(text) - 1)
                    yield Token(token, row, token == guess, len(rows) - 1 if len(text) == known + 1 else 0)
                    if token != guess:
                        break
            finally:
                evaluator.report(len(text) - known)
    finally:
        session.truncate(min(session.length, len(text)))
