"""What a chain is made of: an instruction, answers with their feedback, and why it ended; and the events of its making.

Step ``i`` holds answer ``i`` (0 = the first answer, ``i`` = revision ``i``) and the feedback on it, which the text
format calls "Feedback i+1".
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from selfee.errors import UsageError


@dataclass(frozen=True)
class Exchange:
    """A question of a conversation and the answer that was delivered; what led to the answer is not told again."""

    question: str
    answer: str


@dataclass(frozen=True)
class Instruction:
    """What the user asks: the instruction and, optionally, the text it is about and the conversation before it."""

    text: str
    input: str = ""
    history: tuple[Exchange, ...] = ()
    system: str = ""  # how the model is to behave in this conversation; "" = as its prompts say

    @property
    def question(self) -> str:
        """Instruction and input as one text."""
        return f"{self.text}\n\n{self.input}" if self.input else self.text

    @property
    def question_in_context(self) -> str:
        """The question with the conversation before it as one text, for readers who have not followed it."""
        if not self.history:
            return self.question
        told = (f"User: {turn.question}\n\nAssistant: {turn.answer}\n\n" for turn in self.history)
        return f"{''.join(told)}User: {self.question}"


class Section(enum.Enum):
    """The three kinds of text in a chain."""

    ANSWER = "answer"
    FEEDBACK = "feedback"
    REVISION = "revision"

    @property
    def is_answer(self) -> bool:
        """Whether it answers the instruction (an answer or a revision)."""
        return self is not Section.FEEDBACK


class VerdictSource(enum.Enum):
    """How a verdict was found."""

    PHRASE = "phrase"  # read in the feedback's own words
    CHOICE = "choice"  # the likelier of two given sentences; Verdict.probability says how likely
    ASKED = "asked"  # the model was asked once more, and said it
    HEADER = "header"  # the feedback does not say it, but the model went on to revise
    SILENCE = "silence"  # the feedback ended without asking for a revision
    USER = "user"  # the feedback is a person's, who asks for a revision by giving it


@dataclass(frozen=True)
class Verdict:
    """Whether the feedback asks for a revision, and how we know."""

    needed: bool  # what the model says; ``forced`` tells whether the policy decided otherwise
    source: VerdictSource = VerdictSource.PHRASE
    phrase: str = ""  # the words it was read from
    probability: float | None = field(default=None, compare=False)  # that a revision is needed, where it was scored
    forced: bool = field(default=False, compare=False)  # the model was content; the policy asked for a revision


@dataclass(frozen=True)
class Cost:
    """What one section cost."""

    tokens: int = 0  # generated; as the engine counts them, or the pieces that came where it cannot count
    seconds: float = 0.0  # wall time
    prompt_tokens: int = 0  # read by the requests that began in this section, as far as they told
    cached_tokens: int = 0  # of these, how many were still in the engine's cache
    seeds: tuple[int, ...] = ()  # of the requests that began in this section
    drafted_tokens: int = 0  # guesses that the engine verified, as far as it told
    accepted_tokens: int = 0  # of these, how many were right and so cost no pass of their own
    mean_logprob: float | None = None  # of the tokens that came in this section, a header's too, where they were told


@dataclass(frozen=True)
class Check:
    """What somebody other than the chain's own critic found: a program, a pattern, a judge.

    Raises UsageError for a score that is no number: it could not be compared.
    """

    passed: bool | None  # None = the checker could not tell, or only gives scores
    score: float | None = None  # the higher the better; its scale is the checker's own
    reason: str = ""  # one line for people
    failed: bool = False  # the checker itself crashed or took too long: says nothing about the answer
    cost: Cost | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.score is not None and not math.isfinite(self.score):
            raise UsageError(f"check: score is {self.score}; expected a finite number, or None for no score")


@dataclass(frozen=True)
class Step:
    """An answer and the feedback on it."""

    answer: str
    feedback: str | None = None  # as the model saw it when it went on: after overruling, if it was overruled
    verdict: Verdict | None = None
    answer_finished: bool = True  # False: cut off in mid-sentence
    feedback_finished: bool = True
    overruled: str | None = field(default=None, compare=False)  # the feedback as the model wrote it
    answer_cost: Cost | None = field(default=None, compare=False)
    feedback_cost: Cost | None = field(default=None, compare=False)
    check: Check | None = None  # of the answer, where a checker was given

    @property
    def is_deliverable(self) -> bool:
        """Whether its answer is finished and says anything."""
        return self.answer_finished and bool(self.answer.strip())


class ChainEnd(enum.Enum):
    """Why a chain ended."""

    ACCEPTED = "accepted"  # the model was content, and no further revision was enforced
    CAPPED = "capped"  # the model wanted another revision; the policy allows no more
    UNCHANGED = "unchanged"  # a revision equals the answer before it
    REPEATED = "repeated"  # a revision equals an earlier answer: the chain goes round in circles
    PASSED = "passed"  # an answer passed the checker, which the chain was to end with: not the model's own decision
    SPENT = "spent"  # what is left of the allowance holds no further section; no answer was cut off
    CUT_OFF = "cut_off"  # see Chain.cut


class CutReason(enum.Enum):
    """What cut a chain off."""

    LENGTH = "length"  # a section used up its budget
    SPENT = "spent"  # the whole chain used up its allowance
    CONTEXT = "context"  # the context window is full
    CANCELLED = "cancelled"  # the caller, or the server, gave up
    ERROR = "error"  # the engine failed


@dataclass(frozen=True)
class Chain:
    """An instruction, its answers with their feedback, why it ended, and all that is needed to make it again."""

    instruction: Instruction
    steps: tuple[Step, ...]
    end: ChainEnd
    status: str = ""  # one sentence for people: why it ended, and why with fewer revisions than enforced
    cut: CutReason | None = None  # set if and only if ``end`` is CUT_OFF
    selected: int | None = None  # the step a selector chose to deliver; None = the last finished one
    seed: int | None = None  # the chain's seed, from which every request's seed is derived
    mode: str = ""  # "single-pass", "guided" or "turns"
    engine: str = ""  # the engine's name
    settings: Mapping[str, Any] = field(default_factory=dict)  # policy, sampling, budgets, prompts

    @property
    def num_revisions(self) -> int:
        """Revisions begun, also one that was cut off: one less than answers."""
        return max(0, len(self.steps) - 1)

    @property
    def delivered(self) -> int | None:
        """The step whose answer is delivered: the selected, else the last finished one that says anything.

        None if there is none.
        """
        if self.selected is not None:
            return self.selected
        return max((number for number, step in enumerate(self.steps) if step.is_deliverable), default=None)

    @property
    def final(self) -> str:
        """The answer to deliver. Only if not even the first answer was finished, its beginning."""
        if self.delivered is not None:
            return self.steps[self.delivered].answer
        return self.steps[0].answer if self.steps else ""

    @property
    def is_complete(self) -> bool:
        """Whether the chain ended by itself and not by being cut off."""
        return self.end is not ChainEnd.CUT_OFF

    @property
    def cost(self) -> Cost:
        """All sections' costs together."""
        return total_cost(cost for step in self.steps for cost in (step.answer_cost, step.feedback_cost))

    def _repr_html_(self) -> str:
        """The chain in a notebook: the answer, and folded above it how it came about."""
        from selfee.chain.html import chain_html

        return chain_html(self)

    @property
    def check_cost(self) -> Cost:
        """What checking cost, which is not part of ``cost``: it may be another model's tokens."""
        return total_cost(step.check.cost for step in self.steps if step.check is not None)


def total_cost(costs: Iterable[Cost | None]) -> Cost:
    """All costs that are known, together."""
    known = [cost for cost in costs if cost is not None]
    return Cost(
        tokens=sum(cost.tokens for cost in known),
        seconds=sum(cost.seconds for cost in known),
        prompt_tokens=sum(cost.prompt_tokens for cost in known),
        cached_tokens=sum(cost.cached_tokens for cost in known),
        seeds=tuple(seed for cost in known for seed in cost.seeds),
        drafted_tokens=sum(cost.drafted_tokens for cost in known),
        accepted_tokens=sum(cost.accepted_tokens for cost in known),
    )


@dataclass(frozen=True)
class SectionStart:
    """A section begins. ``number`` is 0 for the first answer, else that of the feedback or revision, from 1."""

    section: Section
    number: int


@dataclass(frozen=True)
class TextDelta:
    """The next piece of the section's text."""

    text: str


@dataclass(frozen=True)
class SectionEnd:
    """A section is over. ``text`` is the whole of it: the section's deltas joined."""

    section: Section
    number: int
    text: str
    finished: bool = True  # False: cut off
    verdict: Verdict | None = None  # of feedback
    cost: Cost | None = field(default=None, compare=False)


class Overrule(enum.Enum):
    """How a content feedback was made to ask for a revision."""

    REPLACED = "replaced"  # the sentence with its verdict was replaced
    APPENDED = "appended"  # it had no verdict; a sentence was added


@dataclass(frozen=True)
class Overruled:
    """The policy asks for a revision although the model does not; ``feedback`` is what the text now says."""

    number: int  # of the feedback, from 1
    feedback: str
    kind: Overrule


@dataclass(frozen=True)
class Checked:
    """The checker has looked at an answer. ``number`` is that of the answer, 0 for the first."""

    number: int
    check: Check


@dataclass(frozen=True)
class ChainFinished:
    """The last event: the whole chain."""

    chain: Chain


Event = SectionStart | TextDelta | SectionEnd | Checked | Overruled | ChainFinished
