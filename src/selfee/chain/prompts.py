"""The answerer's, critic's and reviser's words, as data.

In a turn's text, ``{question}`` is instruction and input with a blank line between them, ``{answer}`` the answer worked
on, ``{feedback}`` the feedback on it, ``{reference}`` a known good answer; ``{context}`` and ``{instruction}`` are the
question as SelFee wrote it. What is put in is never searched for such names again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from selfee.chain.types import Instruction, Step
from selfee.engines.base import Message
from selfee.errors import UsageError

_FIELD = re.compile(r"\{(question|context|instruction|answer|feedback|reference)\}")


@dataclass(frozen=True)
class Turn:
    """One message with fields to fill in."""

    role: str
    text: str
    with_reference: bool = False  # left out where no reference answer is known

    def fill(self, fields: Mapping[str, str]) -> Message:
        """The message with its fields filled in."""
        return Message(self.role, _FIELD.sub(lambda match: fields[match[1]], self.text))


@dataclass(frozen=True)
class PromptSet:
    """How a chat model is asked for answers, feedback and revisions.

    The answerer's conversation is ``answer``; the critic's begins with ``critique``; the reviser's is the answerer's
    conversation with its answer and then ``revise``, or, with ``one_conversation``, the critic's continued.
    """

    name: str
    answer: tuple[Turn, ...]
    critique: tuple[Turn, ...]
    revise: tuple[Turn, ...]
    critique_again: tuple[Turn, ...] = ()  # for later answers, while the conversation is kept; () = ``critique``
    revise_later: tuple[Turn, ...] = ()  # once the conversation is no longer kept; () = ``revise``
    keeps: int | None = 0  # rounds for which conversations are kept; 0 = none, None = all
    one_conversation: bool = False
    critique_prefix: str = ""  # words that the critic must begin with, where the engine can do that
    critique_stop: tuple[str, ...] = ()  # ends feedback
    ask_verdict: str = (
        'Does the answer need a revision? Reply with "Revision is needed." or "Revision is not needed." and nothing '
        "else."
    )

    def keeps_round(self, index: int) -> bool:
        """Whether the conversation of earlier rounds is kept when answer ``index`` is criticised."""
        return index > 0 and (self.keeps is None or index < self.keeps)


@dataclass(frozen=True)
class GuidedPrompt:
    """What a completion model reads before the prompt, so that it sees what a chain looks like."""

    name: str
    examples: tuple[tuple[Instruction, tuple[Step, ...]], ...] = ()


def fields_of(
    instruction: Instruction, answer: str = "", feedback: str = "", reference: str = "", *, with_history: bool = False
) -> dict[str, str]:
    """The values of a turn's fields. ``with_history``: for a reader who has not followed the conversation."""
    lines = [instruction.text, *([instruction.input] if instruction.input else [])]
    told = "".join(f"{turn.question}\n{turn.answer}\n" for turn in instruction.history) if with_history else ""
    return {
        "question": instruction.question_in_context if with_history else instruction.question,
        "context": told + "".join(f"{line}\n" for line in lines),
        "instruction": told + "\n".join(lines),
        "answer": answer,
        "feedback": feedback,
        "reference": reference,
    }


_CLASSIFY = (
    "Are there any comments or critiques for the above answer? If so, write one under 100 words. You may score the "
    "quality of the answer on the scale of 1-10 (1: no code/no sense; 10: perfect) Also, classify if revision is "
    'needed by responding "Revision is needed" or "Revision is not needed" at the end. Normally, score of less than 9 '
    "should be revised.\n\nCritique:"
)
_NO_APOLOGY = (
    "Your revision should be simple and clear, so do not add any rhetorics such as apology for the past mistake."
)
_FIRST_TRY = " Write as if the revised answer is the first try."

SELFEE_ALPACA = PromptSet(
    name="selfee-alpaca",
    answer=(Turn("user", "{question}"),),
    critique=(Turn("user", f"{{context}}Here is a proposed answer:\n{{answer}}\n\n{_CLASSIFY}"),),
    revise=(
        Turn(
            "user",
            f"Revise the answer based on your own critique within 500 words. {_NO_APOLOGY}{_FIRST_TRY}\nRevision:",
        ),
    ),
    revise_later=(
        Turn("user", f"Revise the answer based on your own critique within 500 words. {_NO_APOLOGY}\nRevision:"),
    ),
    keeps=2,
    one_conversation=True,
)
"""How SelFee's teacher was asked for the Alpaca and ShareGPT chains (appendix A.3, literally)."""

SELFEE_CODE = PromptSet(
    name="selfee-code",
    answer=(Turn("user", "{instruction}"),),
    critique=(
        Turn(
            "user",
            "You are given a role as a teaching assistant. You are going to get an instruction and its corresponding "
            "answer. Your job is to make me find the answer by giving an appropriate feedback. If the proposed answer "
            "is different from the ground truth, that means there should be some revision. You should guide me by "
            "giving an instruction that helps me find the answer without directly mentioning it. You should not "
            "directly mention about the answer when giving a feedback, because that is a cheating.",
        ),
        Turn("user", "Here is the instruction:\n{instruction}\n"),
        Turn("user", "Here is the answer:\n{reference}\n", with_reference=True),
        Turn("user", f"Here is my initial answer:\n{{answer}}\n\n{_CLASSIFY}"),
    ),
    critique_again=(
        Turn("user", "{answer}"),
        Turn("user", f"Here is a revised proposed answer:\n{{answer}}\n\n{_CLASSIFY}"),
    ),
    revise=(
        Turn("user", "{feedback}"),
        Turn(
            "user",
            f"Revise the answer based on your own critique with minimal edits. {_NO_APOLOGY}{_FIRST_TRY}\nRevision:",
        ),
    ),
    keeps=None,
)
"""How teacher and student talked for the Flan, math and code chains (appendix A.3, literally)."""

STANDARD = PromptSet(
    name="standard",
    answer=(Turn("user", "{question}"),),
    critique=(
        Turn("system", "You are a careful, honest reviewer. You praise little and name every error you find."),
        Turn(
            "user",
            "Review an answer to the task below. Check it for errors of fact or logic, for what is missing, and for "
            "what could be said more clearly. If it can be checked, check it step by step.\n\n"
            "# Task\n{question}\n\n# Answer\n{answer}\n\n# Your review\n"
            "Write at most 100 words of concrete comments that help to improve this answer. Then give a score from 1 "
            '(useless) to 10 (perfect), as in "Score: 7/10". End with exactly one of these two sentences: "Revision is '
            'needed." for a score below 9, or "Revision is not needed." otherwise.',
        ),
    ),
    revise=(
        Turn(
            "user",
            "A reviewer read your answer:\n\n{feedback}\n\nWrite the whole answer again, improved. Keep what was "
            "right. Write only the answer itself, as if it were your first: no apology, no mention of the review.",
        ),
    ),
)
"""For today's chat models. Each critique sees the question and one answer only: the last critique cannot bias it."""

_SMALL_SYSTEM = Turn("system", "You are a helpful AI assistant. Answer in one short paragraph.")

SMALL = PromptSet(
    name="small",
    answer=(_SMALL_SYSTEM, Turn("user", "{question}")),
    critique=(
        _SMALL_SYSTEM,
        Turn("user", "Instruction: {question}\n\nAnswer: {answer}\n\nHow could this answer be improved?"),
    ),
    critique_prefix="The answer could be improved by",
    critique_stop=("\n\n",),
    revise=(Turn("user", "{feedback}\n\nPlease answer again, better: {question}"),),
)
"""For chat models of some 100 million parameters: short requests, no verdict asked for in words (it is scored)."""

PROMPT_SETS: Mapping[str, PromptSet] = {
    prompts.name: prompts for prompts in (STANDARD, SMALL, SELFEE_ALPACA, SELFEE_CODE)
}

_EXAMPLE = (
    Instruction("Why do we see lightning before we hear thunder?"),
    (
        Step(
            "Lightning and thunder happen at different times, so we see one first.",
            "Both happen at the same moment, so the answer is wrong. It should compare how fast light and sound "
            "travel. Revision is needed.",
        ),
        Step(
            "Lightning and thunder happen together, but light travels about a million times faster than sound. We see "
            "the flash almost at once, while the sound needs about three seconds for each kilometre.",
            "The answer is correct, gives the reason and a helpful number. Revision is not needed.",
        ),
    ),
)

GUIDED_PROMPTS: Mapping[str, GuidedPrompt] = {
    prompt.name: prompt for prompt in (GuidedPrompt("example", (_EXAMPLE,)), GuidedPrompt("plain"))
}


def find_prompts(name: str) -> PromptSet:
    """The prompt set of this name. Raises UsageError for a name that does not exist."""
    if name not in PROMPT_SETS:
        raise UsageError(f"prompts: {name!r} is unknown in turns; expected one of {', '.join(PROMPT_SETS)}")
    return PROMPT_SETS[name]


def find_guided_prompt(name: str) -> GuidedPrompt:
    """The guided prompt of this name. Raises UsageError for a name that does not exist."""
    if name not in GUIDED_PROMPTS:
        raise UsageError(f"prompts: {name!r} is unknown in guided mode; expected one of {', '.join(GUIDED_PROMPTS)}")
    return GUIDED_PROMPTS[name]
