"""What the server needs of whoever does the jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from selfee.engines.cancelling import Cancellation
from selfee.engines.scoring import ScoredSequence
from selfee.serve.engine.jobs import Job, ModelInfo, Outcome


class Backend(Protocol):
    """Does jobs. Methods raise SelfeeError as the engine does; BackendLostError where its process died."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def is_ready(self) -> bool:
        """Whether jobs can be done now."""
        ...

    def run(self, job: Job, cancellation: Cancellation) -> AsyncGenerator[Outcome, None]:
        """What the job gives. Once ``cancellation`` is set, the job ends soon, as cut off.

        Closing the generator sets it, and returns once nothing computes for the job any more.
        """
        ...

    async def count_tokens(self, text: str) -> int:
        """Tokens of a text, without a beginning-of-text token."""
        ...

    async def tokenize(self, text: str, *, add_special: bool) -> Sequence[tuple[int, str]]:
        """Tokens of a text, with what each says."""
        ...

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        ...

    async def score(
        self, prompts: Sequence[str | Sequence[int]], *, top: int, scope: str = ""
    ) -> Sequence[ScoredSequence]:
        """How likely the tokens of prompts are, with the ``top`` likeliest in the place of each.

        ``scope``: see ``Request``.
        """
        ...

    async def start(self) -> None:
        """Get ready."""
        ...

    async def cut(self) -> None:
        """Have all jobs end, as cut off."""
        ...

    async def close(self) -> None:
        """Stop all jobs and let go of the model."""
        ...
