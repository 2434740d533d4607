"""The messages that a judge is sent: a template filled with a question and its answers, the answers fenced."""

from __future__ import annotations

from dataclasses import dataclass

from selfee.engines.base import Message
from selfee.errors import UsageError
from selfee.eval.answers import Answer
from selfee.eval.judging.fences import NOTICE, fence_word, fenced
from selfee.eval.judging.items import Item
from selfee.eval.judging.templates import Template


@dataclass(frozen=True)
class Prompt:
    """What is sent first, and the fence in it."""

    messages: tuple[Message, ...]
    word: str | None  # of the fence; None = there is none


def build_prompt(item: Item, template: Template, *, seed: int = 0, fences: bool = True) -> Prompt:
    """The first messages of a judgment. Raises UsageError where question and template do not fit."""
    asked = [*item.question.turns, *item.question.references]
    word = fence_word(seed, item.question_id, [*asked, *item.texts]) if fences else None
    system = template.system if word is None else f"{template.system}\n\n{NOTICE.format(word=word)}"
    user = template.fill(_values(item, word))
    return Prompt((Message("system", system), Message("user", user)), word)


def _values(item: Item, word: str | None) -> dict[str, str]:
    """Every name that templates of any kind use."""
    question, turn = item.question, item.turn
    values = {"question": _numbered(question.turns[: turn + 1])}
    for number, text in enumerate(question.turns[: turn + 1], start=1):
        values[f"question_{number}"] = text
        values[f"ref_answer_{number}"] = question.reference(number - 1)
    values["reference"] = _numbered([question.reference(number) for number in range(turn + 1)])
    for letter, answer in zip("ab", item.answers):
        for number, text in enumerate(answer.texts[: turn + 1], start=1):
            values[f"answer_{letter}_{number}"] = fenced(text, word)
        values[f"answer_{letter}"] = fenced(answer.texts[turn], word)
    if item.second is None:  # MT-bench numbers the turns of the only answer
        values |= {
            f"answer_{number + 1}": fenced(text, word) for number, text in enumerate(item.first.texts[: turn + 1])
        }
        values["answer"] = fenced(item.first.texts[turn], word)
    else:  # the original numbers the answers
        values |= {"answer_1": values["answer_a"], "answer_2": values["answer_b"]}
    for name, answer in zip(("first", "second"), item.answers):
        values[name] = _conversation(answer, turn, word)
    return values


def _numbered(texts: list[str] | tuple[str, ...]) -> str:
    """One text as it is; several with their numbers before them."""
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"({number}) {text}" for number, text in enumerate(texts, start=1))


def _conversation(answer: Answer, turn: int, word: str | None) -> str:
    if turn == 0:
        return fenced(answer.texts[0], word)
    told = (f"To ({number}):\n{fenced(text, word)}" for number, text in enumerate(answer.texts[: turn + 1], start=1))
    return "\n\n".join(told)


def check_fits(item: Item, template: Template) -> None:
    """Refuse a template that shows another number of answers. Raises UsageError."""
    if template.form.num_answers != len(item.answers):
        raise UsageError(
            f"template {template.name}: shows {template.form.num_answers} answers; expected {len(item.answers)}"
        )
