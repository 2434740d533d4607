"""The text format of SelFee: how a chain is written for a model, and where its sections begin. The only home of "###".

A chain is one text: the prompt, then ``answer``, ``### Feedback 1:``, ``### Revision 1:``, ``### Feedback 2:`` and so
on (literals: specification of the original, appendix A.1). A header is a header only at the start of a line, with
nothing behind it, and with the kind and number that must come next; anything else that looks like one is text. Content
that holds the very header that must come next cannot be written in this format and is refused
(``docs/decisions/0003-content-that-looks-like-a-header-is-refused.md``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from selfee.chain.types import Chain, Exchange, Instruction, Section, Step
from selfee.errors import UsageError

_PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
)
_PREAMBLE_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
)
_INSTRUCTION = "### Instruction:\n"
_INPUT = "\n\n### Input:\n"
_ANSWER = "\n\n### Answer:\n"
_NAMES = {Section.FEEDBACK: "Feedback", Section.REVISION: "Revision"}

END_OF_TEXT = "</s>"
"""What ends a training target (a token, never typed into a prompt)."""

MAX_HEADER = 48
"""No header line is longer; what is longer is text."""


def render_prompt(instruction: Instruction) -> str:
    """The prompt a chain begins with, in training and at work, byte for byte as SelFee was trained (A.1).

    A conversation repeats instruction and answer before the last instruction, and a system text takes the place of the
    opening words, as in the original's conversation template.
    """
    preamble = _PREAMBLE_WITH_INPUT if instruction.input else _PREAMBLE
    if instruction.system:
        preamble = instruction.system + "\n\n"
    told = (f"{_INSTRUCTION}{turn.question}{_ANSWER}{turn.answer}\n\n" for turn in instruction.history)
    text_input = f"{_INPUT}{instruction.input}" if instruction.input else ""
    return f"{preamble}{''.join(told)}{_INSTRUCTION}{instruction.text}{text_input}{_ANSWER}"


def header(section: Section, number: int) -> str:
    """The text that opens a feedback or revision, with the blank line before it; "" for the first answer."""
    return "" if section is Section.ANSWER else f"\n\n### {_NAMES[section]} {number}:\n"


def follower(section: Section, number: int) -> tuple[Section, int]:
    """The section that must come next."""
    return (Section.REVISION, number) if section is Section.FEEDBACK else (Section.FEEDBACK, number + 1)


def stop_strings() -> tuple[str, ...]:
    """Where a model that writes one section alone is sure to have left it. Four: some servers refuse more.

    Numbered headers are found by the parser: no stop string tells "Feedback 2:" from a heading "Feedback loops".
    """
    return ("\n### Instruction:", "\n### Answer:", "\n### Feedback 1:", "\n### Revision 1:")


def render_target(chain: Chain) -> str:
    """What the model writes after the prompt: all sections with their headers, without the end-of-text token.

    Raises UsageError if a text holds a line that would be read as the next header.
    """
    return render_steps(chain.steps)


def render_steps(steps: Sequence[Step], *, check: bool = True) -> str:
    """See ``render_target``. Raises UsageError also if feedback is missing between two answers.

    Without ``check``, texts that could not be read back are written all the same: enough for a prompt.
    """
    parts = []
    for index, step in enumerate(steps):
        section = Section.REVISION if index else Section.ANSWER
        parts += [header(section, index), _checked(step.answer, section, index, check)]
        if step.feedback is not None:
            number = index + 1
            parts += [header(Section.FEEDBACK, number), _checked(step.feedback, Section.FEEDBACK, number, check)]
        elif index + 1 < len(steps):
            raise UsageError(f"chain: answer {index} has no feedback but a revision follows; expected feedback")
    return "".join(parts)


def asks_for_more(chain: Chain) -> bool:
    """Whether the text ends with a feedback that asks for a revision: a training target must not end there (D23)."""
    last = chain.steps[-1] if chain.steps else None
    return last is not None and last.verdict is not None and last.verdict.needed


def split_prompt(whole: str, instruction: Instruction | None = None) -> tuple[str, str]:
    """Cut a whole generation into prompt and target.

    With the instruction, the prompt is known to the byte, whatever it contains; without it, the first ``### Answer:``
    is taken, which an instruction could contain. Raises UsageError if the text does not begin with such a prompt.
    """
    if instruction is not None:
        prompt = render_prompt(instruction)
        if not whole.startswith(prompt):
            raise UsageError(f"text: does not begin with the prompt of {instruction.text[:40]!r}; expected it")
        return prompt, whole[len(prompt) :]
    end = whole.find(_ANSWER)
    if end < 0:
        raise UsageError("text: holds no line '### Answer:'; expected a prompt and what the model wrote")
    return whole[: end + len(_ANSWER)], whole[end + len(_ANSWER) :]


def read_prompt(prompt: str) -> Instruction:
    """The instruction in a prompt: ``render_prompt(read_prompt(p)) == p``. Raises UsageError for other texts."""
    for preamble in (_PREAMBLE_WITH_INPUT, _PREAMBLE):
        opening = preamble + _INSTRUCTION
        if not (prompt.startswith(opening) and prompt.endswith(_ANSWER)):
            continue
        text = prompt[len(opening) : -len(_ANSWER)]
        if preamble is _PREAMBLE:
            return Instruction(text)
        text, separator, input_ = text.partition(_INPUT)
        if separator and input_:
            return Instruction(text, input_)
    raise UsageError("prompt: is not one that SelFee was trained on; expected the words of appendix A.1")


@dataclass(frozen=True)
class Framing:
    """The words around questions and answers, for programs that put prompts together themselves."""

    preamble: str  # what a conversation begins with; a system text may take its place
    question: str  # the line above a question
    answer: str  # the line above an answer
    gap: str  # between any two of them


def framing() -> Framing:
    """The words of ``render_prompt``: preamble, gap, question line, question, gap, answer line, and so on."""
    return Framing(_PREAMBLE.rstrip("\n"), _INSTRUCTION.strip(), _ANSWER.strip(), "\n\n")


def read_conversation(prompt: str) -> Instruction:
    """The conversation in a prompt: as ``read_prompt``, also with answers told before and another system text.

    Raises UsageError for other texts, and for one that could be read in two ways.
    """
    opening, _, rest = prompt.partition("\n\n" + _INSTRUCTION)
    opening += "\n\n"
    if opening == _PREAMBLE_WITH_INPUT:
        return read_prompt(prompt)
    told = [turn.split(_ANSWER) for turn in rest.split("\n\n" + _INSTRUCTION)]
    if all(len(turn) == 2 for turn in told) and told[-1][1] == "":
        system = "" if opening == _PREAMBLE else opening.removesuffix("\n\n")
        history = tuple(Exchange(question, answer) for question, answer in told[:-1])
        instruction = Instruction(told[-1][0], "", history, system)
        if render_prompt(instruction) == prompt:
            return instruction
    raise UsageError("prompt: is no conversation in the words of appendix A.1; expected one")


def is_header(line: str, section: Section, number: int | None) -> bool:
    """Whether a line (without its line break) is the header of this section, in one of the tolerated spellings.

    ``number`` None = any feedback or revision header, whatever its kind and number.
    """
    if len(line) >= MAX_HEADER or not line.startswith("#"):
        return False
    if number is None:
        return any(_patterns(name)[0].fullmatch(line) for name in _NAMES)
    match = _patterns(section)[0].fullmatch(line)
    return match is not None and match["number"] == str(number)


def may_become_header(line: str, section: Section, number: int | None) -> bool:
    """Whether a line whose end has not come yet may still become that header."""
    if len(line) >= MAX_HEADER:
        return False
    if number is None:
        return any(_patterns(name)[1].fullmatch(line) for name in _NAMES)
    match = _patterns(section)[1].fullmatch(line)
    if match is None:
        return False
    digits = match["number"] or ""
    return digits == str(number) if match["rest"] else str(number).startswith(digits)


@cache
def _patterns(section: Section) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The header's spellings ("### Revision 1:", "### Revision1:", "###Revision 1 :"), and all their beginnings."""
    words, rest = [*"###", r"[ \t]*", *_NAMES[section], r"[ \t]*"], r"[ \t]*:[ \t\r]*"
    beginning = r"(?:(?P<number>[0-9]+)(?P<rest>[ \t]*(?::[ \t\r]*)?))?"
    for atom in reversed(words):
        beginning = f"(?:{atom}{beginning})?"
    return re.compile("".join(words) + "(?P<number>[0-9]+)" + rest), re.compile(beginning)


def _checked(text: str, section: Section, number: int, check: bool) -> str:
    expected = follower(section, number)
    if check and "###" in text:
        for line_number, line in enumerate(text.split("\n"), start=1):
            if is_header(line, *expected):
                raise UsageError(
                    f"{section.value} {number}: line {line_number} reads {line.strip()!r}, which is how the next "
                    "section begins; this text cannot be written in the text format; change that line, or keep the "
                    "chain as JSON"
                )
    return text
