"""How many tokens each section may use, so that a long answer never starves the revisions after it."""

from __future__ import annotations

from dataclasses import dataclass

from selfee.chain.policy import RevisionPolicy
from selfee.chain.types import Section
from selfee.errors import UsageError

HEADER_TOKENS = 12
"""Room for one header line in a request that covers several sections."""

ROUNDS_AHEAD = 2
"""Rounds that one request makes room for where the policy sets no maximum; it is asked to go on after them."""


@dataclass(frozen=True)
class Budgets:
    """Tokens that each section may use, whatever the sections before it used.

    The released chains of SelFee shared one budget of 2,048 tokens, and 48 of 80 ended within a revision when three
    were enforced (specification of the original, D35). SelFee's training texts are at most 512 tokens an answer and
    128 a feedback; the defaults leave twice that. An answer or revision that uses up its budget ends the chain as cut
    off; feedback that does is used as far as it goes.
    """

    answer: int = 1024
    feedback: int = 256
    revision: int = 1024

    def __post_init__(self) -> None:
        for name in ("answer", "feedback", "revision"):
            if (tokens := getattr(self, name)) < 1:
                raise UsageError(f"budgets: {name} is {tokens} tokens; expected 1 or more")

    def of(self, section: Section) -> int:
        """Tokens that a section of this kind may use."""
        return int(getattr(self, section.value))

    def ahead(self, section: Section, number: int, policy: RevisionPolicy) -> int:
        """Tokens of this section and of all that may follow in the same text, with their headers."""
        made = number if section.is_answer else number - 1
        left = ROUNDS_AHEAD if policy.max_revisions is None else max(0, policy.max_revisions - made)
        rounds = left * (self.feedback + self.revision + 2 * HEADER_TOKENS)
        last = self.feedback + HEADER_TOKENS if section.is_answer else 0
        return self.of(section) + rounds + last
