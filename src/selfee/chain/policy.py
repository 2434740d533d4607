"""When to revise: a pure table from what the model wants to what happens."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from selfee.errors import UsageError


class Action(enum.Enum):
    """What to do after a feedback."""

    FOLLOW = "follow"  # do as the model says: revise if it asks for it, else end
    OVERRULE = "overrule"  # revise although the model is content
    STOP = "stop"  # end although the model wants another revision


@dataclass(frozen=True)
class RevisionPolicy:
    """How many revisions to make: at least ``min_revisions`` (enforced), at most ``max_revisions``.

    0 and 3 let the model decide within reason; SelFee's "enforce k" is ``min_revisions=k``. None as maximum sets no
    limit. A revision that repeats an earlier answer word for word ends the chain, also below the minimum (its status
    says so), unless ``stop_repeats`` is false. With a maximum of 0 the answer is not criticised, unless
    ``always_criticise`` is true: then the critic's verdict on it is known although nothing follows from it.
    ``accept_score`` settles what to do with a critic that is content and yet gives a low score: below it, a revision is
    asked for all the same (where sections are asked for one by one).
    """

    min_revisions: int = 0
    max_revisions: int | None = 3
    stop_repeats: bool = True
    always_criticise: bool = False
    accept_score: float | None = None  # Revise although the critic is content if its score is below this

    def __post_init__(self) -> None:
        if self.min_revisions < 0:
            raise UsageError(f"min_revisions: {self.min_revisions} is negative; expected 0 or more")
        if self.accept_score is not None and not 0 <= self.accept_score <= 10:
            raise UsageError(f"accept_score: {self.accept_score}; expected 0 to 10, the scale of the critic's scores")
        if self.max_revisions is None:
            return
        if self.max_revisions < 0:
            raise UsageError(
                f"max_revisions: {self.max_revisions} is negative; expected 0 or more, or None for no limit"
            )
        if self.min_revisions > self.max_revisions:
            raise UsageError(
                f"min_revisions: {self.min_revisions} is more than max_revisions, {self.max_revisions}; expected at "
                "most as many; raise max_revisions"
            )

    def decide(self, num_revisions: int, wants_revision: bool) -> Action:
        """What to do after feedback on an answer that ``num_revisions`` revisions led to."""
        if wants_revision:
            return Action.FOLLOW if self.allows_more(num_revisions) else Action.STOP
        return Action.OVERRULE if num_revisions < self.min_revisions else Action.FOLLOW

    def doubts(self, score: float | None) -> bool:
        """Whether a critic's score is too low for its consent to count."""
        return self.accept_score is not None and score is not None and score < self.accept_score

    @property
    def criticises(self) -> bool:
        """Whether answers are criticised at all."""
        return self.max_revisions != 0 or self.always_criticise

    def allows_more(self, num_revisions: int) -> bool:
        """Whether another revision is allowed."""
        return self.max_revisions is None or num_revisions < self.max_revisions


def policy_for(
    exactly: int | None = None, at_least: int | None = None, at_most: int | None = None, *, limited: bool = False
) -> RevisionPolicy:
    """The policy that these numbers mean together; None = not said. Raises UsageError where they contradict each other.

    What is ``limited`` by tokens or seconds needs no limit by number, unless one is asked for.
    """
    if exactly is not None:
        if at_least is not None or at_most is not None:
            raise UsageError(
                "revisions: means minimum and maximum at once; expected it alone; leave min_revisions and "
                "max_revisions out"
            )
        return RevisionPolicy(exactly, exactly)
    defaults = RevisionPolicy()
    least = defaults.min_revisions if at_least is None else at_least
    if at_most is None and defaults.max_revisions is not None and not limited:
        at_most = max(defaults.max_revisions, least)
    return RevisionPolicy(least, at_most)
