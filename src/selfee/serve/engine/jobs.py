"""What can be asked of a backend: a chain, a plain continuation, tokens of a text."""

from __future__ import annotations

from dataclasses import dataclass

from selfee.chain.allowance import Allowance
from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.chain.run import Mode
from selfee.chain.types import Event, Instruction, Step
from selfee.engines.base import Chunk, SamplingParams

_BUDGETS, _ALLOWANCE = Budgets(), Allowance()


@dataclass(frozen=True)
class ChainJob:
    """Make a chain; see ``stream_chain`` for the fields. Gives its events."""

    instruction: Instruction
    policy: RevisionPolicy
    params: SamplingParams
    budgets: Budgets = _BUDGETS
    allowance: Allowance = _ALLOWANCE
    mode: Mode = "auto"
    prompts: str | None = None
    stop: tuple[str, ...] = ()
    start: tuple[Step, ...] = ()
    scope: str = ""  # see ``Request.scope``
    logprobs: bool = False  # tell each section's mean log-probability
    schema: str | None = None  # a JSON schema for answers and revisions


@dataclass(frozen=True)
class TextJob:
    """Continue a text as it stands. Gives chunks."""

    prompt: str
    params: SamplingParams
    max_tokens: int
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    tokens: tuple[int, ...] | None = None  # instead of ``prompt``
    scope: str = ""


Job = ChainJob | TextJob
Outcome = Event | Chunk
"""What a job gives, piece by piece: a chain's events, a text's chunks."""


@dataclass(frozen=True)
class ModelInfo:
    """What a client may know of the model that is served."""

    name: str  # what clients call it
    engine: str  # what the engine calls itself
    context_length: int | None
    parallel: int  # jobs at a time
    mode: Mode  # how chains are made
    can_complete: bool
    created: int  # seconds since 1970
    end_text: str | None = None  # what the token that ends a text looks like
