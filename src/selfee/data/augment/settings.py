"""How chains are made of samples, and what is done with those that went wrong."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import Any

from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.engines.base import SamplingParams
from selfee.errors import UsageError


class OnLeak(enum.Enum):
    """What to do with feedback that tells the right answer."""

    REASK = "reask"  # criticise anew, twice at most; then the row fails
    REJECT = "reject"  # the row fails
    MASK = "mask"  # the telling words are replaced, and kept beside
    MARK = "mark"  # the row says so


class OnTrouble(enum.Enum):
    """What to do with a row that is not as it should be."""

    REJECT = "reject"  # the row fails
    MARK = "mark"  # the row says so


@dataclass(frozen=True)
class AugmentSettings:
    """Everything that shapes a chain. Two runs with the same settings and teacher make the same chains."""

    prompts: str = "auto"  # The words of answerer, critic and reviser: auto (by source), a set's name, or a file
    seed: int = 0  # All seeds are derived from this one and the row's id
    temperature: float = 1.0  # How freely the teacher draws its words
    top_p: float = 1.0  # Keep the smallest set of words with this total probability
    min_revisions: int = 0  # Revisions to make at least
    max_revisions: int = 4  # Revisions to make at most
    accept_score: float | None = None  # Revise although the critic is content if its score is below this
    answer_tokens: int = 512  # Tokens of an answer or revision at most
    feedback_tokens: int = 256  # Tokens of a feedback at most
    with_reference: bool = True  # Show the critic the source's right answer, where the prompts have a place for it
    on_leak: OnLeak = OnLeak.REASK  # Feedback tells the right answer: reask, reject, mask or mark
    on_refusal: OnTrouble = OnTrouble.REJECT  # The first answer is a refusal: reject or mark
    on_cut: OnTrouble = OnTrouble.REJECT  # The first answer was cut off by its limit: reject or mark
    on_silence: OnTrouble = OnTrouble.REJECT  # The last feedback gives no verdict, also when asked: reject or mark
    clean: bool = True  # Take apologies and announcements off answers; the original words are kept

    def __post_init__(self) -> None:
        if self.max_revisions < 1:
            raise UsageError(f"max_revisions: {self.max_revisions}; expected 1 or more: chains are to be learnt from")
        _ = self.policy, self.budgets, self.params(0)  # they say what they refuse

    @property
    def policy(self) -> RevisionPolicy:
        """How many revisions to make."""
        return RevisionPolicy(self.min_revisions, self.max_revisions, accept_score=self.accept_score)

    @property
    def budgets(self) -> Budgets:
        """Tokens of each section."""
        return Budgets(self.answer_tokens, self.feedback_tokens, self.answer_tokens)

    def params(self, seed: int) -> SamplingParams:
        """How words are drawn, for a chain with this seed."""
        return SamplingParams(temperature=self.temperature, top_p=self.top_p, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        row = asdict(self)
        return row | {name: value.value for name, value in row.items() if isinstance(value, enum.Enum)}


def settings_from_json(row: dict[str, Any]) -> AugmentSettings:
    """The settings that ``to_json`` described."""
    kinds = {"on_leak": OnLeak, "on_refusal": OnTrouble, "on_cut": OnTrouble, "on_silence": OnTrouble}
    return AugmentSettings(**row | {name: kind(row[name]) for name, kind in kinds.items()})
