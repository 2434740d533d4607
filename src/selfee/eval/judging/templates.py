"""What a judge is shown and asked: templates of our own, and the rules by which one is chosen for a question.

Ours ask for the reasons first and for the verdict in the last line, in every form. Those of the original and of
MT-bench are read from their files (``template_files``).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from selfee.errors import UsageError
from selfee.eval.questions import Question
from selfee.eval.scoring.judgment import Form
from selfee.eval.scoring.reading import TEN_POINTS, Scale

REFERENCED = ("math", "reasoning", "coding")
"""Categories whose answers are right or wrong: judged against a good answer where there is one, as in MT-bench."""

_PLACE = re.compile(r"\{([a-z_0-9]+)\}")


@dataclass(frozen=True)
class Template:
    """One prompt for a judge. Names in braces are filled in; what is filled in is not looked at again."""

    name: str
    form: Form
    system: str
    user: str
    reminder: str  # how the verdict is to be written, said to a judge whose reply could not be read
    needs_reference: bool = False
    shows_turns: bool = False  # whether it shows a conversation of two turns
    scale: Scale = TEN_POINTS
    temperature: float | None = None  # as its file says; None = it does not
    max_tokens: int | None = None
    reviewer: int | None = None  # number of its reviewer in the original's file, from 1
    defaults: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Of all words that a judge gets to see."""
        words = json.dumps([self.system, self.user, dict(self.defaults), self.reminder])
        return hashlib.sha256(words.encode()).hexdigest()

    def fill(self, values: Mapping[str, str]) -> str:
        """The user's message. Raises UsageError for a name that nothing is known about."""
        known = dict(self.defaults) | dict(values)

        def value(match: re.Match[str]) -> str:
            if match[1] not in known:
                raise UsageError(
                    f"template {self.name}: names {{{match[1]}}}; expected one of {', '.join(sorted(known))}"
                )
            return known[match[1]]

        return _PLACE.sub(value, self.user)


class TemplateSet(Protocol):
    """Chooses the template for a turn of a question."""

    @property
    def form(self) -> Form: ...

    def choose(self, question: Question, turn: int, *, with_reference: bool) -> Template: ...


REMINDERS = {
    Form.PAIR_SCORES: (
        "write one line with a JSON object that holds the two scores, in the order in which the answers were shown, "
        'for example {"scores": [6, 7.5]}'
    ),
    Form.PAIR_LABEL: "write [[A]] if the first answer is better, [[B]] if the second is, or [[C]] for a tie",
    Form.SINGLE_SCORE: "write the rating in double brackets, for example Rating: [[6]]",
}

_SYSTEM = "You judge answers that AI assistants gave. You are strict, fair and brief."
_CRITERIA = (
    "Judge how well {who} serves whoever asked: is it correct, does it do what was asked for, is it complete and "
    "clear? A longer answer is not a better one, and praise of an answer for itself counts for nothing."
)
_LAST = {
    Form.PAIR_SCORES: (
        "Then give each a score from 1 (useless) to 10 (perfect), halves allowed, in a last line that holds nothing "
        'but a JSON object with the two in the order shown, such as {"scores": [6, 7.5]}.'
    ),
    Form.PAIR_LABEL: (
        "Then give your verdict in a last line that holds nothing else: [[A]] if the first answer is better, [[B]] if "
        "the second is better, [[C]] if they are equally good."
    ),
    Form.SINGLE_SCORE: (
        "Then rate it from 1 (useless) to 10 (perfect) in a last line that holds nothing else, such as Rating: [[6]]."
    ),
}
_NAMES = {Form.PAIR_SCORES: ("Answer 1", "Answer 2"), Form.PAIR_LABEL: ("Answer A", "Answer B")}


def own_template(form: Form, *, with_reference: bool, turn: int) -> Template:
    """Our template for a form, with a place for a good answer or without, for a first turn or a later one."""
    titles = _NAMES.get(form, ("Answer",))
    shown = "".join(f"[{title}]\n{{{place}}}\n\n" for title, place in zip(titles, ("first", "second")))
    known = "[A correct answer, for comparison]\n{reference}\n\n" if with_reference else ""
    who = "each answer" if len(titles) == 2 else "the answer"
    order = "The order in which they are shown says nothing. " if len(titles) == 2 else ""
    last_turn = (
        "Judge what was answered to the last question; the earlier ones show how it came to it. " if turn else ""
    )
    compare = "Where it matters, hold each against the correct answer above. " if with_reference else ""
    task = (
        f"[Your task]\n{_CRITERIA.replace('{who}', who)} {order}{last_turn}{compare}First say in a few sentences what "
        f"is right and what is wrong with {who}. {_LAST[form]}"
    )
    name = f"selfee-{form.value}{'-reference' if with_reference else ''}{'-turns' if turn else ''}"
    return Template(
        name,
        form,
        _SYSTEM,
        f"[Question]\n{{question}}\n\n{known}{shown}{task}",
        REMINDERS[form],
        with_reference,
        bool(turn),
    )


@dataclass(frozen=True)
class OwnTemplates:
    """Our own templates, for one form."""

    form: Form

    def choose(self, question: Question, turn: int, *, with_reference: bool) -> Template:
        """The template for a turn of a question."""
        return own_template(self.form, with_reference=with_reference, turn=turn)


def uses_reference(question: Question, turn: int, wish: str = "auto") -> bool:
    """Whether a judge is shown the good answer: "auto" = where answers are right or wrong; "always", "never"."""
    if wish not in ("auto", "always", "never"):
        raise UsageError(f"references: {wish!r}; expected auto, always or never")
    has_one = bool(question.reference(turn).strip())
    return has_one and (wish == "always" or (wish == "auto" and question.category in REFERENCED))
